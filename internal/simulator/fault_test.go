package simulator_test

import (
	"encoding/json"
	"errors"
	"io"
	"net/http"
	"net/http/httptest"
	"strings"
	"syscall"
	"testing"

	"smokeball.internal/tokenbroker/internal/simulator"
)

func setFault(t *testing.T, s *simulator.Simulator, id string, f simulator.Fault) {
	t.Helper()
	if err := s.SetFault(id, f); err != nil {
		t.Fatal(err)
	}
}

// The kinds that need no connection: what is answered, and whether a token was bought.
func TestFaultAnswers(t *testing.T) {
	tooMany := `{"__type":"TooManyRequestsException","message":"Rate exceeded"}`
	for _, test := range []struct {
		name   string
		fault  simulator.Fault
		status int
		header map[string]string
		body   string // exact, unless it starts with "…"
		bought int
	}{
		{
			name:   "throttled",
			fault:  simulator.Fault{Kind: simulator.KindStatus, Status: 429, RetryAfter: "17", Body: "Rate Exceeded"},
			status: 429, body: "Rate Exceeded",
			header: map[string]string{"Retry-After": "17", "Content-Type": "text/plain; charset=utf-8"},
		},
		{
			name:   "throttled as the SDK API is",
			fault:  simulator.Fault{Kind: simulator.KindStatus, Status: 400, Body: tooMany},
			status: 400, body: tooMany,
			header: map[string]string{"Retry-After": "", "Content-Type": "application/json;charset=UTF-8"},
		},
		{
			name:   "down",
			fault:  simulator.Fault{Kind: simulator.KindStatus, Status: 503, Body: "<html>", ContentType: "text/html"},
			status: 503, body: "<html>", header: map[string]string{"Content-Type": "text/html"},
		},
		{name: "status without body", fault: simulator.Fault{Kind: simulator.KindStatus, Status: 500}, status: 500},
		{
			name: "waf", fault: simulator.Fault{Kind: simulator.KindWAF}, status: 403, body: "…<H1>403 ERROR</H1>",
			header: map[string]string{"Content-Type": "text/html", "Server": "CloudFront"},
		},
		{
			name:   "redirect",
			fault:  simulator.Fault{Kind: simulator.KindRedirect, Location: "http://127.0.0.1:1/x"},
			status: 302, header: map[string]string{"Location": "http://127.0.0.1:1/x"},
		},
		{
			name:   "redirect that repeats the request",
			fault:  simulator.Fault{Kind: simulator.KindRedirect, Location: "/elsewhere", Status: 307},
			status: 307, header: map[string]string{"Location": "/elsewhere"},
		},
		{name: "empty", fault: simulator.Fault{Kind: simulator.KindEmpty}, status: 200},
		{name: "garbage", fault: simulator.Fault{Kind: simulator.KindGarbage}, status: 200, body: `{"access_token":`},
		{name: "chosen garbage", fault: simulator.Fault{Kind: simulator.KindGarbage, Body: "<html>"}, status: 200, body: "<html>"},
		{name: "error in 200", fault: simulator.Fault{Kind: simulator.KindErrorIn200}, status: 200, body: `{"error":"server_error"}`},
		{
			name:   "chosen error in 200",
			fault:  simulator.Fault{Kind: simulator.KindErrorIn200, Body: `{"error":"invalid_client"}`},
			status: 200, body: `{"error":"invalid_client"}`,
		},
		{name: "no token", fault: simulator.Fault{Kind: simulator.KindNoToken}, status: 200, body: `{"expires_in":3600,"token_type":"Bearer"}`},
		{name: "token type", fault: simulator.Fault{Kind: simulator.KindTokenType, TokenType: "mac"}, status: 200, body: `…"token_type":"mac"}`, bought: 1},
		{name: "oversize", fault: simulator.Fault{Kind: simulator.KindOversize, Size: 3}, status: 200, body: `…{"padding":"xxx","access_token":"`, bought: 1},
		{name: "same token, the first time", fault: simulator.Fault{Kind: simulator.KindSameToken}, status: 200, body: `…"access_token":"`, bought: 1},
	} {
		t.Run(test.name, func(t *testing.T) {
			s := newSimulator(t)
			setFault(t, s, "acme", test.fault)
			w := serve(s, tokenRequest())
			part, partial := strings.CutPrefix(test.body, "…")
			body := w.Body.String()
			if w.Code != test.status || (partial && !strings.Contains(body, part)) || (!partial && body != test.body) {
				t.Errorf("%d %s, want %d %s", w.Code, body, test.status, test.body)
			}
			for name, want := range test.header {
				if got := w.Header().Get(name); got != want {
					t.Errorf("%s = %q, want %q", name, got, want)
				}
			}
			wantCounts(t, s, "acme", 1, test.bought)
		})
	}
}

func TestFaultExpiresIn(t *testing.T) {
	for value, want := range map[string]string{
		`"omitted"`:            `,"token_type":"Bearer"}`,
		`"3600"`:               `,"expires_in":"3600",`,
		`3600.0`:               `,"expires_in":3600.0,`,
		`3.6e3`:                `,"expires_in":3.6e3,`,
		`0`:                    `,"expires_in":0,`,
		`-1`:                   `,"expires_in":-1,`,
		`1e400`:                `,"expires_in":1e400,`,
		`99999999999999999999`: `,"expires_in":99999999999999999999,`,
		`null`:                 `,"expires_in":null,`,
		`""`:                   `,"expires_in":"",`,
		`true`:                 `,"expires_in":true,`,
	} {
		t.Run(value, func(t *testing.T) {
			s := newSimulator(t)
			setFault(t, s, "acme", simulator.Fault{Kind: simulator.KindExpiresIn, ExpiresIn: json.RawMessage(value)})
			body := serve(s, tokenRequest()).Body.String()
			if !strings.Contains(body, want) || (value == simulator.Omitted && strings.Contains(body, "expires_in")) {
				t.Errorf("body = %s, want %s in it", body, want)
			}
			wantCounts(t, s, "acme", 1, 1)
		})
	}
}

func TestFaultSameTokenBuysNothingAndIsPerScope(t *testing.T) {
	s := newSimulator(t)
	first := serve(s, tokenRequest()).Body.String()
	setFault(t, s, "acme", simulator.Fault{Kind: simulator.KindSameToken})
	if again := serve(s, tokenRequest()).Body.String(); again != first {
		t.Errorf("got %s, want the first answer again: %s", again, first)
	}
	wantCounts(t, s, "acme", 2, 1)
	narrow := tokenRequest()
	narrow.Body = io.NopCloser(strings.NewReader(acmeForm + "&scope=matters/read"))
	if serve(s, narrow).Body.String() == first {
		t.Error("another scope got the same token")
	}
	wantCounts(t, s, "acme", 3, 2)
	wrong := tokenRequest()
	wrong.SetBasicAuth("acme", "wrong")
	if w := serve(s, wrong); w.Code != http.StatusBadRequest {
		t.Errorf("a wrong secret is answered %d, want 400", w.Code)
	}
}

func TestFaultOpaque(t *testing.T) {
	s := newSimulator(t)
	setFault(t, s, "acme", simulator.Fault{Kind: simulator.KindOpaque})
	token, _ := answered(t, serve(s, tokenRequest()).Body.String())["access_token"].(string)
	if token == "" || strings.Contains(token, ".") {
		t.Errorf("access_token = %q, want one that is not a JWT", token)
	}
	wantCounts(t, s, "acme", 1, 1)
}

func TestFaultClaimsTakeThePlacesOfTheTokensOwn(t *testing.T) {
	s := newSimulator(t)
	setFault(t, s, "acme", simulator.Fault{Kind: simulator.KindClaims, Claims: json.RawMessage(`{"client_id":"globex","aud":["x"]}`)})
	token, _ := answered(t, serve(s, tokenRequest()).Body.String())["access_token"].(string)
	claims := claimsOf(t, token)
	if claims["client_id"] != "globex" || claims["aud"] == nil || claims["sub"] != "acme" || claims["token_use"] != "access" {
		t.Errorf("the claims are %v", claims)
	}
	wantCounts(t, s, "acme", 1, 1)
}

// A fault of the answer leaves refusals as they are; one in front of the issuer does not look at credentials.
func TestFaultsAndRefusals(t *testing.T) {
	for kind, want := range map[simulator.Kind]int{
		simulator.KindTruncate: http.StatusBadRequest,
		simulator.KindOversize: http.StatusBadRequest,
		simulator.KindOpaque:   http.StatusBadRequest,
		simulator.KindWAF:      http.StatusForbidden,
		simulator.KindEmpty:    http.StatusOK,
	} {
		s := newSimulator(t)
		setFault(t, s, simulator.AllClients, simulator.Fault{Kind: kind})
		r := tokenRequest()
		r.SetBasicAuth("acme", "wrong")
		if w := serve(s, r); w.Code != want {
			t.Errorf("%s: %d, want %d", kind, w.Code, want)
		}
		wantCounts(t, s, "acme", 1, 0)
	}
}

func TestFaultsOnTheConnection(t *testing.T) {
	for _, test := range []struct {
		kind  simulator.Kind
		check func(t *testing.T, body string, err error)
	}{
		{simulator.KindTruncate, func(t *testing.T, body string, err error) {
			if !errors.Is(err, io.ErrUnexpectedEOF) || !strings.HasPrefix(body, `{"access_token":`) || json.Valid([]byte(body)) {
				t.Errorf("body %q, error %v, want part of a token and an unexpected EOF", body, err)
			}
		}},
		{simulator.KindReset, func(t *testing.T, body string, err error) {
			if !errors.Is(err, syscall.ECONNRESET) && !errors.Is(err, io.EOF) {
				t.Errorf("body %q, error %v, want a connection reset", body, err)
			}
		}},
		{simulator.KindOversize, func(t *testing.T, body string, err error) {
			if err != nil || len(body) < 8<<20 || answered(t, body)["access_token"] == nil {
				t.Errorf("%d bytes, error %v, want valid JSON of 8 MiB with a token", len(body), err)
			}
		}},
	} {
		t.Run(string(test.kind), func(t *testing.T) {
			s := newSimulator(t)
			server := httptest.NewServer(s)
			defer server.Close()
			setFault(t, s, "acme", simulator.Fault{Kind: test.kind, Times: 1})
			body, err := exchange(server, tokenRequestTo(server.URL))
			test.check(t, body, err)
			wantCounts(t, s, "acme", 1, 1)

			if _, err := exchange(server, tokenRequestTo(server.URL)); err != nil {
				t.Errorf("the next request fails too: %v", err)
			}
			wantCounts(t, s, "acme", 2, 2)
		})
	}
}

func exchange(server *httptest.Server, r *http.Request) (string, error) {
	response, err := server.Client().Do(r)
	if err != nil {
		return "", err
	}
	defer response.Body.Close()
	body, err := io.ReadAll(response.Body)
	return string(body), err
}

func TestFaultTimesAndPrecedence(t *testing.T) {
	s := newSimulator(t)
	setFault(t, s, simulator.AllClients, simulator.Fault{Kind: simulator.KindStatus, Status: 503})
	setFault(t, s, "acme", simulator.Fault{Kind: simulator.KindWAF, Times: 2})
	next := func(want int) {
		t.Helper()
		if got := serve(s, tokenRequest()).Code; got != want {
			t.Errorf("status = %d, want %d", got, want)
		}
	}
	next(403)
	next(403)
	next(503) // used up: the fault for all clients shows
	setFault(t, s, "acme", simulator.Fault{Kind: simulator.KindStatus, Status: 500})
	next(500)
	setFault(t, s, "acme", simulator.Fault{Kind: simulator.KindStatus, Status: 502})
	next(502) // replaced, not queued
	s.ClearFault("acme")
	next(503)
	s.ClearFaults()
	next(200)
}

func TestSetFaultNamesTheFieldAtFault(t *testing.T) {
	for _, test := range []struct {
		fault simulator.Fault
		field string
	}{
		{simulator.Fault{}, "kind"},
		{simulator.Fault{Kind: "explode"}, "kind"},
		{simulator.Fault{Kind: simulator.KindStatus}, "status"},
		{simulator.Fault{Kind: simulator.KindStatus, Status: 199}, "status"},
		{simulator.Fault{Kind: simulator.KindStatus, Status: 600}, "status"},
		{simulator.Fault{Kind: simulator.KindStatus, Status: 429, RetryAfter: "1\r\nX: y"}, "retry_after"},
		{simulator.Fault{Kind: simulator.KindStatus, Status: 429, ContentType: "a\nb"}, "content_type"},
		{simulator.Fault{Kind: simulator.KindWAF, Times: -1}, "times"},
		{simulator.Fault{Kind: simulator.KindWAF, Delay: -1}, "delay"},
		{simulator.Fault{Kind: simulator.KindWAF, RetryAfter: "1"}, "retry_after"},
		{simulator.Fault{Kind: simulator.KindDelay}, "delay"},
		{simulator.Fault{Kind: simulator.KindRedirect}, "location"},
		{simulator.Fault{Kind: simulator.KindRedirect, Location: "http://a b/"}, "location"},
		{simulator.Fault{Kind: simulator.KindRedirect, Location: "/x", Status: 304}, "status"},
		{simulator.Fault{Kind: simulator.KindExpiresIn}, "expires_in"},
		{simulator.Fault{Kind: simulator.KindExpiresIn, ExpiresIn: json.RawMessage("omitted")}, "expires_in"},
		{simulator.Fault{Kind: simulator.KindTokenType}, "token_type"},
		{simulator.Fault{Kind: simulator.KindOpaque, TokenType: "mac"}, "token_type"},
		{simulator.Fault{Kind: simulator.KindClaims}, "claims"},
		{simulator.Fault{Kind: simulator.KindClaims, Claims: json.RawMessage(`["client_id"]`)}, "claims"},
		{simulator.Fault{Kind: simulator.KindClaims, Claims: json.RawMessage(`null`)}, "claims"},
		{simulator.Fault{Kind: simulator.KindOversize, Size: -1}, "size"},
		{simulator.Fault{Kind: simulator.KindOversize, Size: 1 << 40}, "size"},
		{simulator.Fault{Kind: simulator.KindEmpty, Body: "x"}, "body"},
	} {
		s := newSimulator(t)
		err := s.SetFault("acme", test.fault)
		if err == nil || !strings.HasPrefix(err.Error(), test.field+": ") {
			t.Errorf("SetFault(%+v) = %v, want an error about %s", test.fault, err, test.field)
		}
		if w := serve(s, tokenRequest()); w.Code != http.StatusOK {
			t.Errorf("the refused fault %+v is in force", test.fault)
		}
	}
	err := newSimulator(t).SetFault("nobody", simulator.Fault{Kind: simulator.KindWAF})
	if !errors.Is(err, simulator.ErrUnknownClient) || !strings.HasPrefix(err.Error(), "client_id: ") {
		t.Errorf("SetFault for an unknown client = %v, want ErrUnknownClient", err)
	}
}

package smokeball_test

import (
	"bytes"
	"compress/gzip"
	"io"
	"net/http"
	"strings"
	"testing"
	"time"

	"smokeball.internal/tokenbroker/internal/simulator"
	"smokeball.internal/tokenbroker/internal/token"
)

func TestOutcomesAreClassified(t *testing.T) {
	const html = "<html>blocked</html>"
	for _, test := range []struct {
		name   string
		answer http.HandlerFunc
		class  token.Class
		said   string // part of the message
		times  int    // how often the request is made
	}{
		// Cognito answers 400 where RFC 6749 wants 401: the code decides, not the status.
		{"invalid_client, Cognito", says(400, `{"error":"invalid_client"}`), token.CredentialsRejected, "answers invalid_client", 1},
		{"invalid_client, RFC 6749", says(401, `{"error":"invalid_client"}`, "WWW-Authenticate", "Basic"), token.CredentialsRejected, "invalid_client", 1},
		{"invalid_client, 403", says(403, `{"error":"invalid_client"}`), token.CredentialsRejected, "invalid_client", 1},
		{"invalid_client, 200", says(200, `{"error":"invalid_client"}`), token.CredentialsRejected, "invalid_client", 1},
		{"invalid_client beside a token", says(200, `{"error":"invalid_client","access_token":"x","token_type":"Bearer"}`), token.CredentialsRejected, "invalid_client", 1},
		{"invalid_client, not called JSON", says(400, `{"error":"invalid_client"}`, "Content-Type", "text/plain"), token.CredentialsRejected, "text/plain", 1},
		{"invalid_scope", says(400, `{"error":"invalid_scope"}`), token.ScopeRejected, "invalid_scope", 1},
		{"unauthorized_client", says(400, `{"error":"unauthorized_client"}`), token.GrantRejected, "unauthorized_client", 1},
		{"unsupported_grant_type", says(400, `{"error":"unsupported_grant_type"}`), token.GrantRejected, "unsupported_grant_type", 1},
		{"invalid_grant", says(400, `{"error":"invalid_grant"}`), token.GrantRejected, "invalid_grant", 1},
		{"invalid_request", says(400, `{"error":"invalid_request"}`), token.GrantRejected, "invalid_request", 1},

		{"429", says(429, "Rate Exceeded"), token.Throttled, "slow down", 1},
		{"429 with an OAuth error", says(429, `{"error":"invalid_client"}`), token.Throttled, "slow down", 1},
		{"400 as the SDK API throttles", says(400, `{"__type":"TooManyRequestsException","message":"x"}`), token.Throttled, "slow down", 1},
		{"400 with a namespace before it", says(400, `{"__type":"com.amazonaws#TooManyRequestsException"}`), token.Throttled, "slow down", 1},
		{"400 with it as the error", says(400, `{"error":"TooManyRequestsException"}`), token.Throttled, "slow down", 1},
		{"400 that only says so", says(400, "Rate exceeded", "Content-Type", "text/plain"), token.Throttled, "slow down", 1},
		{"slow_down", says(400, `{"error":"slow_down"}`), token.Throttled, "slow_down", 1},

		{"403 of a firewall, HTML", says(403, html, "Content-Type", "text/html"), token.Blocked, "firewall", 1},
		{"403 of a firewall, JSON", says(403, `{"__type":"ForbiddenException","message":"Request not allowed due to WAF block."}`), token.Blocked, "firewall", 1},
		{"403 without a body", says(403, ""), token.Blocked, "firewall", 1},
		{"403 with an unknown error", says(403, `{"error":"access_denied"}`), token.Blocked, "firewall", 1},

		{"408", says(408, ""), token.Unavailable, "status 408", 3},
		{"500", says(500, ""), token.Unavailable, "status 500", 3},
		{"502, HTML", says(502, html, "Content-Type", "text/html"), token.Unavailable, "text/html", 3},
		{"503", says(503, ""), token.Unavailable, "status 503", 3},
		{"504", says(504, ""), token.Unavailable, "status 504", 3},
		{"server_error", says(400, `{"error":"server_error"}`), token.Unavailable, "server_error", 3},
		{"temporarily_unavailable", says(503, `{"error":"temporarily_unavailable"}`), token.Unavailable, "temporarily_unavailable", 3},
		{"no answer", raw(""), token.Unavailable, "closed the connection", 3},
		{"not HTTP", raw("SSH-2.0-OpenSSH_9.6\r\n"), token.Unavailable, "could not be reached", 3},
		{"headers without end", raw("HTTP/1.1 200 OK\r\nX: " + strings.Repeat("x", 1<<20)), token.Unavailable, "could not be reached", 3},
		{"broken off in the body", raw("HTTP/1.1 200 OK\r\nContent-Length: 100\r\n\r\n{\"access_token\":\"x\""), token.Unavailable, "broke off", 3},

		{"200, empty", says(200, ""), token.Malformed, "nothing", 3},
		{"200, HTML", says(200, html), token.Malformed, "not JSON", 3},
		{"200, half an answer", says(200, `{"access_token":"x","token_type":"Bea`), token.Malformed, "not JSON", 3},
		{"200, two answers", says(200, `{"access_token":"x","token_type":"Bearer"}{}`), token.Malformed, "not JSON", 3},
		{"200, a list", says(200, `[]`), token.Malformed, "not JSON", 3},
		{"200, null", says(200, `null`), token.Malformed, "access_token", 3},
		{"200, unknown error", says(200, `{"error":"weird"}`), token.Malformed, "with an error", 3},
		{"200, unknown error beside a token", says(200, `{"error":"weird","access_token":"x","token_type":"Bearer"}`), token.Malformed, "with an error", 3},
		{"200, no token", says(200, `{"expires_in":3600,"token_type":"Bearer"}`), token.Malformed, "access_token", 3},
		{"200, token is a number", says(200, `{"access_token":1,"token_type":"Bearer"}`), token.Malformed, "not JSON", 3},

		// What does not speak OAuth 2.0 is not asked twice: it would be sent the secret again for nothing.
		{"400 with an unknown error", says(400, `{"error":"weird"}`), token.Malformed, "error code", 1},
		{"400, empty", says(400, ""), token.Malformed, "error code", 1},
		{"401, empty", says(401, ""), token.Malformed, "error code", 1},
		{"404", says(404, html), token.Malformed, "status 404", 1},
		{"405", says(405, ""), token.Malformed, "status 405", 1},
		{"204", says(204, ""), token.Malformed, "status 204", 1},
		{"201 with a token", says(201, `{"access_token":"x","expires_in":3600,"token_type":"Bearer"}`), token.Malformed, "status 201", 1},
		{"304", says(304, ""), token.Malformed, "redirect", 1},
	} {
		t.Run(test.name, func(t *testing.T) {
			s := answers(test.answer)
			bubble(t, s, func(t *testing.T, n *network) {
				f := n.failure(test.class)
				wantSaid(t, f, test.said)
				wantSaid(t, f, "auth.example")
				if !f.RetryAt.IsZero() || f.Streak != 0 || f.RetryAfter != 0 {
					t.Errorf("RetryAt, Streak, RetryAfter = %v, %v, %v: the first two are the broker's to set, nobody said the third", f.RetryAt, f.Streak, f.RetryAfter)
				}
			})
			wantRequests(t, s, test.times)
		})
	}
}

func TestBearerIsTheOnlyTokenTypeTaken(t *testing.T) {
	for tokenType, good := range map[string]bool{
		`"Bearer"`: true, `"bearer"`: true, `"BEARER"`: true, `"bEaReR"`: true,
		`"mac"`: false, `"DPoP"`: false, `""`: false, `null`: false, `"Bearer "`: false, `["Bearer"]`: false,
	} {
		body := `{"access_token":"x","expires_in":3600,"token_type":` + tokenType + `}`
		bubble(t, answers(says(200, body)), func(t *testing.T, n *network) {
			if good {
				n.token()
				return
			}
			n.failure(token.Malformed)
		})
	}
}

// The token goes into a header of every request a caller makes: with a line break in it, it would be two headers.
func TestAccessTokenThatCannotStandInAHeaderIsRefused(t *testing.T) {
	for _, bad := range []string{
		`\r\nX-Injected: 1`, `a\nb`, `a\rb`, `a b`, ` a`, `a `, `a\tb`, `a\u0000b`, `a\u007fb`, `aüb`, "a\x80b", `a\u2028b`, ` `, ``,
	} {
		bubble(t, answers(sold(bad)), func(t *testing.T, n *network) {
			wantSaid(t, n.failure(token.Malformed), "usable access_token")
		})
	}
	const good = "!#$%&'()*+,-./09:;<=>?@AZ[]^_`az{|}~"
	bubble(t, answers(sold(good)), func(t *testing.T, n *network) {
		if got := n.token().AccessToken.Reveal(); got != good {
			t.Errorf("the access token is %q, want %q", got, good)
		}
	})
}

func TestAnswerIsReadUpTo256KiB(t *testing.T) {
	padded := func(size int) http.HandlerFunc {
		body := `{"access_token":"x","expires_in":3600,"token_type":"Bearer"}`
		return says(200, body+strings.Repeat(" ", size-len(body)))
	}
	bubble(t, answers(padded(256<<10)), func(_ *testing.T, n *network) { n.token() })
	bubble(t, answers(padded(256<<10+1)), func(t *testing.T, n *network) {
		wantSaid(t, n.failure(token.Malformed), "longer than 256 KiB")
	})
	// One that never ends is not waited for.
	endless := func(w http.ResponseWriter, r *http.Request) {
		for r.Context().Err() == nil {
			if _, err := io.WriteString(w, strings.Repeat("x", 32<<10)); err != nil {
				return
			}
		}
	}
	bubble(t, answers(endless), func(t *testing.T, n *network) {
		begun := time.Now()
		wantSaid(t, n.failure(token.Malformed), "longer than 256 KiB")
		if took := time.Since(begun); took > time.Second {
			t.Errorf("reading took %v", took)
		}
	})
}

// A few KiB can unpack to gigabytes. What was not asked for is taken as it is, and then is no JSON.
func TestCompressedAnswerIsNotUnpacked(t *testing.T) {
	for name, content := range map[string]string{
		"a token response": `{"access_token":"x","expires_in":3600,"token_type":"Bearer"}`,
		"a bomb":           `{"access_token":"x","expires_in":3600,"token_type":"Bearer"}` + strings.Repeat(" ", 4<<20),
	} {
		t.Run(name, func(t *testing.T) {
			var packed bytes.Buffer
			z := gzip.NewWriter(&packed)
			if _, err := io.WriteString(z, content); err != nil {
				t.Fatal(err)
			}
			if err := z.Close(); err != nil {
				t.Fatal(err)
			}
			bubble(t, answers(says(200, packed.String(), "Content-Encoding", "gzip")), func(t *testing.T, n *network) {
				wantSaid(t, n.failure(token.Malformed), "not JSON")
			})
		})
	}
}

func TestFaultsOfTheSimulatedIssuerAreClassified(t *testing.T) {
	for _, test := range []struct {
		fault  simulator.Fault
		class  token.Class
		bought int // what the fault cost
	}{
		{simulator.Fault{Kind: simulator.KindWAF}, token.Blocked, 0},
		{simulator.Fault{Kind: simulator.KindRedirect, Location: "/x"}, token.Malformed, 0},
		{simulator.Fault{Kind: simulator.KindEmpty}, token.Malformed, 0},
		{simulator.Fault{Kind: simulator.KindGarbage}, token.Malformed, 0},
		{simulator.Fault{Kind: simulator.KindErrorIn200}, token.Unavailable, 0},
		{simulator.Fault{Kind: simulator.KindNoToken}, token.Malformed, 0},
		{simulator.Fault{Kind: simulator.KindReset}, token.Unavailable, 3},
		{simulator.Fault{Kind: simulator.KindTruncate}, token.Unavailable, 3},
		{simulator.Fault{Kind: simulator.KindOversize, Size: 512 << 10}, token.Malformed, 1},
		{simulator.Fault{Kind: simulator.KindTokenType, TokenType: "mac"}, token.Malformed, 1},
		{simulator.Fault{Kind: simulator.KindHang}, token.Unavailable, 2},
	} {
		t.Run(string(test.fault.Kind), func(t *testing.T) {
			synctestSimulator(t, func(t *testing.T, n *network, sim *simulator.Simulator) {
				if err := sim.SetFault(clientID, test.fault); err != nil {
					t.Fatal(err)
				}
				n.failure(test.class)
				if got := sim.Bought(clientID); got != test.bought {
					t.Errorf("%d tokens were bought, want %d", got, test.bought)
				}
				sim.ClearFaults()
				n.token()
			})
		})
	}
}

package simulator_test

import (
	"encoding/json"
	"net/http"
	"net/http/httptest"
	"reflect"
	"strings"
	"testing"
	"time"

	"smokeball.internal/tokenbroker/internal/simulator"
)

func control(s http.Handler, method, path, body string) *httptest.ResponseRecorder {
	return serve(s, httptest.NewRequest(method, path, strings.NewReader(body)))
}

func TestControlShowsStateWithoutSecrets(t *testing.T) {
	s := newSimulator(t)
	s.SetClient(simulator.Client{Endpoint: "au/staging", ID: "globex", ExpiresIn: 5 * time.Minute})
	token, _ := answered(t, serve(s, tokenRequest()).Body.String())["access_token"].(string)
	setFault(t, s, "acme", simulator.Fault{Kind: simulator.KindStatus, Status: 429, RetryAfter: "5", Times: 2, Delay: time.Millisecond})
	serve(s, tokenRequest().WithContext(t.Context()))

	w := control(s, http.MethodGet, "/control", "")
	body := w.Body.String()
	for _, secret := range []string{acmeSecret, "old-secret", token} {
		if secret == "" || strings.Contains(body, secret) {
			t.Errorf("%q is shown", secret)
		}
	}
	want := map[string]any{
		"clients": []any{
			map[string]any{
				"client_id": "acme", "endpoint": "us/production", "scopes": []any{"matters/read", "documents/write"},
				"expires_in": 3600.0, "active_secrets": 2.0, "requests": 2.0, "bought": 1.0,
			},
			map[string]any{
				"client_id": "globex", "endpoint": "au/staging", "scopes": []any{},
				"expires_in": 300.0, "active_secrets": 0.0, "requests": 0.0, "bought": 0.0,
			},
		},
		"faults": map[string]any{
			"acme": map[string]any{"kind": "status", "status": 429.0, "retry_after": "5", "times": 1.0, "delay": "1ms"},
		},
		"api_faults": map[string]any{},
	}
	if got := answered(t, body); w.Code != http.StatusOK || !reflect.DeepEqual(got, want) {
		t.Errorf("%d\n got %v\nwant %v", w.Code, got, want)
	}
}

func TestControlSetsAndClearsFaults(t *testing.T) {
	s := newSimulator(t)
	do := func(method, path, body string) {
		t.Helper()
		if w := control(s, method, path, body); w.Code != http.StatusNoContent {
			t.Fatalf("%s %s: %d %s", method, path, w.Code, w.Body)
		}
	}
	next := func(want int) {
		t.Helper()
		if got := serve(s, tokenRequest()).Code; got != want {
			t.Errorf("status = %d, want %d", got, want)
		}
	}
	do(http.MethodPut, "/control/faults/*", `{"kind":"status","status":503}`)
	do(http.MethodPut, "/control/faults/acme", `{"kind":"waf","times":1,"delay":"1ms"}`)
	next(403)
	next(503)
	do(http.MethodPut, "/control/faults/acme", `{"kind":"status","status":500}`)
	next(500)
	do(http.MethodDelete, "/control/faults/acme", "")
	next(503)
	do(http.MethodDelete, "/control/faults", "")
	next(200)
	do(http.MethodPut, "/control/faults/*", `{"kind":"waf"}`)
	do(http.MethodPost, "/control/reset", "")
	wantCounts(t, s, simulator.AllClients, 0, 0)
	next(200)
}

func TestControlRotatesASecret(t *testing.T) {
	s := newSimulator(t)
	put := func(body string) {
		t.Helper()
		if w := control(s, http.MethodPut, "/control/clients/acme", body); w.Code != http.StatusNoContent {
			t.Fatalf("%d %s", w.Code, w.Body)
		}
	}
	serve(s, tokenRequest())
	put(`{"secrets":["next-secret"]}`)
	if w := serve(s, tokenRequest()); w.Code != http.StatusBadRequest {
		t.Errorf("the old secret is answered %d, want 400", w.Code)
	}
	put(`{"expires_in":60,"scopes":["search/write"]}`)
	r := tokenRequest()
	r.SetBasicAuth("acme", "next-secret") // not named by the second change, so still in force
	body := answered(t, serve(s, r).Body.String())
	if body["expires_in"] != 60.0 || claimsOf(t, body["access_token"].(string))["scope"] != "search/write" {
		t.Errorf("body = %v, want a lifetime of 60 and scope search/write", body)
	}
	wantCounts(t, s, "acme", 3, 2)
}

func TestControlRefuses(t *testing.T) {
	huge := `{"kind":"garbage","body":"` + strings.Repeat("x", 65<<10) + `"}`
	for _, test := range []struct {
		name, method, path, body string
		want                     int
		reason                   string
	}{
		{"unknown field of a fault", "PUT", "/control/faults/acme", `{"kind":"waf","tims":1}`, 400, `unknown field "tims"`},
		{"unknown kind", "PUT", "/control/faults/acme", `{"kind":"boom"}`, 400, `kind: "boom" is not one of`},
		{"field of another kind", "PUT", "/control/faults/acme", `{"kind":"waf","status":1}`, 400, `status: not used by kind "waf"`},
		{"wrong type", "PUT", "/control/faults/acme", `{"kind":"waf","times":"two"}`, 400, `times: must not be of type string`},
		{"bad delay", "PUT", "/control/faults/acme", `{"kind":"delay","delay":"soon"}`, 400, `delay: must be a duration such as 1.5s`},
		{"delay as a number", "PUT", "/control/faults/acme", `{"kind":"delay","delay":5}`, 400, `delay: must not be of type number`},
		{"array", "PUT", "/control/faults/acme", `[]`, 400, `body: must not be of type array`},
		{"null", "PUT", "/control/faults/acme", `null`, 400, `kind: `},
		{"empty body", "PUT", "/control/faults/acme", ``, 400, `body: must be a JSON object, is empty`},
		{"not JSON", "PUT", "/control/faults/acme", `kind=waf`, 400, `invalid character 'k'`},
		{"two values", "PUT", "/control/faults/acme", `{"kind":"waf"}{}`, 400, `body: must be one JSON object`},
		{"too large", "PUT", "/control/faults/acme", huge, 413, `too large`},
		{"fault of nobody", "PUT", "/control/faults/nobody", `{"kind":"waf"}`, 404, `no such client: \"nobody\"`},
		{"unknown client", "PUT", "/control/clients/nobody", `{"expires_in":60}`, 404, `no such client: \"nobody\"`},
		{"unknown field of a client", "PUT", "/control/clients/acme", `{"secret":"x"}`, 400, `unknown field "secret"`},
		{"three secrets", "PUT", "/control/clients/acme", `{"secrets":["a","b","c"]}`, 400, `secrets: must be one to 2`},
		{"no secret", "PUT", "/control/clients/acme", `{"secrets":[]}`, 400, `secrets: must be one to 2`},
		{"empty secret", "PUT", "/control/clients/acme", `{"secrets":[""]}`, 400, `secrets: must be one to 2`},
		{"secret as text", "PUT", "/control/clients/acme", `{"secrets":"tell-nobody"}`, 400, `secrets: must not be of type string`},
		{"scope with a space", "PUT", "/control/clients/acme", `{"scopes":["a b"]}`, 400, `scopes: must be names`},
		{"no lifetime", "PUT", "/control/clients/acme", `{"expires_in":0}`, 400, `expires_in: must be from 1 to 86400`},
		{"long lifetime", "PUT", "/control/clients/acme", `{"expires_in":86401}`, 400, `expires_in: must be from 1 to 86400`},
		{"method", "POST", "/control/faults/acme", `{"kind":"waf"}`, 405, ``},
		{"path", "GET", "/control/secrets", ``, 404, ``},
	} {
		t.Run(test.name, func(t *testing.T) {
			s := newSimulator(t)
			w := control(s, test.method, test.path, test.body)
			body := strings.ReplaceAll(w.Body.String(), `\"`, `"`)
			if w.Code != test.want || !strings.Contains(body, strings.ReplaceAll(test.reason, `\"`, `"`)) {
				t.Errorf("%d %s, want %d %s", w.Code, body, test.want, test.reason)
			}
			if strings.Contains(body, "tell-nobody") {
				t.Error("the answer quotes a secret")
			}
			if got := serve(s, tokenRequest()); got.Code != http.StatusOK {
				t.Errorf("the refused change is in force: %d %s", got.Code, got.Body)
			}
		})
	}
}

func TestControlRefusesWebPages(t *testing.T) {
	for _, test := range []struct{ method, path string }{
		{"GET", "/control"},
		{"PUT", "/control/faults/acme"},
		{"DELETE", "/control/faults"},
		{"DELETE", "/control/faults/acme"},
		{"PUT", "/control/clients/acme"},
		{"POST", "/control/reset"},
	} {
		for _, origin := range []string{"http://evil.example", "null", ""} {
			s := newSimulator(t)
			serve(s, tokenRequest())
			r := httptest.NewRequest(test.method, test.path, strings.NewReader(`{"kind":"waf"}`))
			r.Header.Set("Origin", origin)
			if w := serve(s, r); w.Code != http.StatusForbidden {
				t.Errorf("%s %s with Origin %q: %d, want 403", test.method, test.path, origin, w.Code)
			}
			wantCounts(t, s, "acme", 1, 1)
		}
	}
}

func TestFaultReadsBackFromJSON(t *testing.T) {
	for _, text := range []string{
		`{"kind":"hang"}`,
		`{"kind":"status","times":3,"status":429,"body":"x","content_type":"text/plain","retry_after":"7","delay":"1m30s"}`,
		`{"kind":"expires_in","expires_in":null}`,
		`{"kind":"expires_in","expires_in":"omitted"}`,
		`{"kind":"expires_in","expires_in":3600.0}`,
		`{"kind":"redirect","status":307,"location":"/x"}`,
		`{"kind":"oversize","size":10}`,
		`{"kind":"token_type","token_type":"mac"}`,
		`{"kind":"claims","claims":{"client_id":"globex"}}`,
	} {
		var f simulator.Fault
		if err := json.Unmarshal([]byte(text), &f); err != nil {
			t.Errorf("%s: %v", text, err)
		}
		if err := newSimulator(t).SetFault("acme", f); err != nil {
			t.Errorf("%s: %v", text, err)
		}
		if got, err := json.Marshal(f); err != nil || string(got) != text {
			t.Errorf("got %s (%v), want %s", got, err, text)
		}
	}
}

package simulator_test

import (
	"net/http"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"smokeball.internal/tokenbroker/internal/simulator"
)

func setAPIFault(t *testing.T, s *simulator.Simulator, id string, f simulator.Fault) {
	t.Helper()
	if err := s.SetAPIFault(id, f); err != nil {
		t.Fatal(err)
	}
}

func TestAPIFaultsAreOfTheAPIAlone(t *testing.T) {
	s := newAPI(t)
	do := func(method, path, body string) {
		t.Helper()
		if w := control(s, method, path, body); w.Code != http.StatusNoContent {
			t.Fatalf("%s %s: %d %s", method, path, w.Code, w.Body)
		}
	}
	do(http.MethodPut, "/control/api-faults/acme", `{"kind":"status","status":401}`)
	for range 3 { // For ever, whatever token it is.
		wantAnswer(t, serve(s, apiRequest(mattersURL, buy(t, s, "acme", ""))), http.StatusUnauthorized, "application/json;charset=UTF-8", `{"message":"Unauthorized"}`)
	}
	globex := buy(t, s, "globex", "")
	const below = "/au/staging/api/" + globexAccount + "/matters"
	wantAnswer(t, serve(s, apiRequest(below, globex)), http.StatusOK, apiJSON, "")
	if body := control(s, http.MethodGet, "/control", "").Body.String(); !strings.Contains(body, `"api_faults": {`+"\n"+`    "acme": {`) {
		t.Errorf("the fault is not shown: %s", body)
	}
	do(http.MethodDelete, "/control/api-faults/acme", "")
	wantAnswer(t, serve(s, apiRequest(mattersURL, buy(t, s, "acme", ""))), http.StatusOK, apiJSON, "")

	do(http.MethodPut, "/control/faults/acme", `{"kind":"waf"}`)
	do(http.MethodPut, "/control/api-faults/*", `{"kind":"status","status":503,"times":1}`)
	wantAnswer(t, serve(s, apiRequest(below, globex)), http.StatusServiceUnavailable, "application/json;charset=UTF-8", `{"message":"Service Unavailable"}`)
	wantAnswer(t, serve(s, apiRequest(below, globex)), http.StatusOK, apiJSON, "")
	for _, all := range []struct{ method, path string }{{http.MethodDelete, "/control/faults"}, {http.MethodPost, "/control/reset"}} {
		do(http.MethodPut, "/control/api-faults/*", `{"kind":"waf"}`)
		do(all.method, all.path, "")
		wantAnswer(t, serve(s, apiRequest(below, globex)), http.StatusOK, apiJSON, "")
	}
}

func TestAPIRequestsCanBeRedirectedToAnotherHost(t *testing.T) {
	s := newAPI(t)
	token := buy(t, s, "acme", "")
	setAPIFault(t, s, "acme", simulator.Fault{Kind: simulator.KindRedirect, Location: "https://files.example/1", Status: 307})
	w := serve(s, apiRequest("/us/production/api/matters/1/documents/files/2/download", token))
	if w.Code != http.StatusTemporaryRedirect || w.Header().Get("Location") != "https://files.example/1" {
		t.Errorf("%d to %q", w.Code, w.Header().Get("Location"))
	}
}

func TestAPIRequestsCanBeHeldBack(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := newAPI(t)
		token := buy(t, s, "acme", "")
		setAPIFault(t, s, "acme", simulator.Fault{Kind: simulator.KindDelay, Delay: 20 * time.Second})
		begun := time.Now()
		wantAnswer(t, serve(s, apiRequest(mattersURL, token)), http.StatusOK, apiJSON, "")
		if waited := time.Since(begun); waited != 20*time.Second {
			t.Errorf("answered after %v, want 20s", waited)
		}
	})
}

func TestAPIFaultsAreValidated(t *testing.T) {
	s := newAPI(t)
	for _, test := range []struct {
		id    string
		fault simulator.Fault
		said  string
	}{
		{"acme", simulator.Fault{}, "kind: "},
		{"acme", simulator.Fault{Kind: simulator.KindStatus}, "status: "},
		{"acme", simulator.Fault{Kind: simulator.KindOpaque}, "kind: "},
		{"acme", simulator.Fault{Kind: simulator.KindNoToken}, "kind: "},
		{"nobody", simulator.Fault{Kind: simulator.KindWAF}, "client_id: "},
	} {
		if err := s.SetAPIFault(test.id, test.fault); err == nil || !strings.HasPrefix(err.Error(), test.said) {
			t.Errorf("SetAPIFault(%q, %v) = %v, want it refused for %s", test.id, test.fault, err, test.said)
		}
	}
}

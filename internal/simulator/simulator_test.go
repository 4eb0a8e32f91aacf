package simulator_test

import (
	"encoding/json"
	"fmt"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync"
	"testing"
	"time"

	"smokeball.internal/tokenbroker/internal/simulator"
)

const (
	acmeURL    = "/us/production/oauth2/token"
	acmeForm   = "grant_type=client_credentials&client_id=acme"
	acmeSecret = "Ab_c+d/100%"
	formType   = "application/x-www-form-urlencoded"
)

// newSimulator has one client with every scope it needs, and two secrets.
func newSimulator(t *testing.T) *simulator.Simulator {
	t.Helper()
	s := simulator.New()
	t.Cleanup(s.Close)
	s.SetClient(simulator.Client{
		Endpoint: "us/production",
		ID:       "acme",
		Secrets:  []string{"old-secret", acmeSecret},
		Scopes:   []string{"matters/read", "documents/write"},
	})
	return s
}

// tokenRequest is a correct request, which each test then spoils.
func tokenRequest() *http.Request { return tokenRequestTo("") }

func tokenRequestTo(server string) *http.Request {
	r := httptest.NewRequest(http.MethodPost, server+acmeURL, strings.NewReader(acmeForm))
	r.RequestURI = ""
	r.Header.Set("Content-Type", formType)
	r.SetBasicAuth("acme", acmeSecret)
	return r
}

func serve(s http.Handler, r *http.Request) *httptest.ResponseRecorder {
	w := httptest.NewRecorder()
	s.ServeHTTP(w, r)
	return w
}

func wantCounts(t *testing.T, s *simulator.Simulator, id string, requests, bought int) {
	t.Helper()
	if got := s.Requests(id); got != requests {
		t.Errorf("Requests(%q) = %d, want %d", id, got, requests)
	}
	if got := s.Bought(id); got != bought {
		t.Errorf("Bought(%q) = %d, want %d", id, got, bought)
	}
}

// answered decodes a JSON object and fails on anything else.
func answered(t *testing.T, body string) map[string]any {
	t.Helper()
	var fields map[string]any
	if err := json.Unmarshal([]byte(body), &fields); err != nil {
		t.Fatalf("the body is not a JSON object: %v\n%s", err, body)
	}
	return fields
}

func TestCountersAreExactUnderConcurrency(t *testing.T) {
	s := newSimulator(t)
	if err := s.SetFault("acme", simulator.Fault{Kind: simulator.KindStatus, Status: 503, Times: 30}); err != nil {
		t.Fatal(err)
	}
	var wg sync.WaitGroup
	var mu sync.Mutex
	statuses, tokens := map[int]int{}, map[string]bool{}
	for range 100 {
		wg.Go(func() {
			w := serve(s, tokenRequest())
			s.SetClient(simulator.Client{Endpoint: "us/production", ID: "globex"})
			_ = s.Bought(simulator.AllClients)
			serve(s, httptest.NewRequest(http.MethodGet, "/control", nil))
			mu.Lock()
			defer mu.Unlock()
			statuses[w.Code]++
			if w.Code == http.StatusOK {
				tokens[w.Body.String()] = true
			}
		})
	}
	wg.Wait()
	if statuses[503] != 30 || statuses[200] != 70 {
		t.Errorf("statuses = %v, want 30 times 503 and 70 times 200", statuses)
	}
	if len(tokens) != 70 {
		t.Errorf("%d different tokens, want 70", len(tokens))
	}
	wantCounts(t, s, "acme", 100, 70)
}

func TestRequestsAreCountedInTheNameTheyAreMade(t *testing.T) {
	s := newSimulator(t)
	serve(s, tokenRequest())
	stranger := tokenRequest()
	stranger.SetBasicAuth("stranger", "x")
	serve(s, stranger)
	bodyOnly := tokenRequest()
	bodyOnly.Header.Del("Authorization")
	serve(s, bodyOnly)
	nobody := httptest.NewRequest(http.MethodPost, acmeURL, nil)
	serve(s, nobody)

	wantCounts(t, s, "acme", 2, 1)
	wantCounts(t, s, "stranger", 1, 0)
	wantCounts(t, s, "", 1, 0)
	wantCounts(t, s, "never seen", 0, 0)
	wantCounts(t, s, simulator.AllClients, 4, 1)
}

func TestInventedIdentifiersAreBounded(t *testing.T) {
	s := newSimulator(t)
	r := tokenRequest()
	r.SetBasicAuth(strings.Repeat("x", 300), "x")
	serve(s, r)
	wantCounts(t, s, "", 1, 0)
	for i := range 10_100 {
		r := httptest.NewRequest(http.MethodPost, acmeURL, nil)
		r.SetBasicAuth(fmt.Sprintf("stranger-%d", i), "x")
		serve(s, r)
	}
	wantCounts(t, s, simulator.AllClients, 10_101, 0)
	if s.Requests("") < 100 {
		t.Errorf("Requests(\"\") = %d, want the overflow there", s.Requests(""))
	}
}

func TestSetClientKeepsCountersAndRotatesSecrets(t *testing.T) {
	s := newSimulator(t)
	serve(s, tokenRequest())
	secrets := []string{"new-secret"}
	s.SetClient(simulator.Client{Endpoint: "/us/production/", ID: "acme", Secrets: secrets})
	secrets[0] = acmeSecret // the caller's slice, not the simulator's
	if w := serve(s, tokenRequest()); w.Code != http.StatusBadRequest {
		t.Errorf("the old secret is answered %d, want 400", w.Code)
	}
	r := tokenRequest()
	r.SetBasicAuth("acme", "new-secret")
	if w := serve(s, r); w.Code != http.StatusOK {
		t.Errorf("the new secret is answered %d, want 200", w.Code)
	}
	wantCounts(t, s, "acme", 3, 2)
}

func TestResetClearsCountersAndFaultsAndKeepsClients(t *testing.T) {
	s := newSimulator(t)
	serve(s, tokenRequest())
	stranger := tokenRequest()
	stranger.SetBasicAuth("stranger", "x")
	serve(s, stranger)
	if err := s.SetFault(simulator.AllClients, simulator.Fault{Kind: simulator.KindWAF}); err != nil {
		t.Fatal(err)
	}
	s.Reset()
	wantCounts(t, s, simulator.AllClients, 0, 0)
	if w := serve(s, tokenRequest()); w.Code != http.StatusOK {
		t.Errorf("after Reset: %d, want 200", w.Code)
	}
	wantCounts(t, s, "acme", 1, 1)
}

func TestLifetimes(t *testing.T) {
	for _, test := range []struct {
		set  time.Duration
		want float64
	}{
		{0, 3600},
		{-time.Second, 3600},
		{300 * time.Second, 300},
		{24 * time.Hour, 86400},
		{1500 * time.Millisecond, 2},
		{time.Nanosecond, 1},
	} {
		t.Run(test.set.String(), func(t *testing.T) {
			s := newSimulator(t)
			s.SetClient(simulator.Client{
				Endpoint: "us/production", ID: "acme", Secrets: []string{acmeSecret}, ExpiresIn: test.set,
			})
			got := answered(t, serve(s, tokenRequest()).Body.String())
			if got["expires_in"] != test.want {
				t.Errorf("expires_in = %v, want %v", got["expires_in"], test.want)
			}
			claims := claimsOf(t, got["access_token"].(string))
			if life := claims["exp"].(float64) - claims["iat"].(float64); life != test.want {
				t.Errorf("exp - iat = %v, want %v", life, test.want)
			}
		})
	}
}

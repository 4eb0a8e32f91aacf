package simulator_test

import (
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"smokeball.internal/tokenbroker/internal/simulator"
)

const (
	globexAccount = "0f0e0d0c-0000-4000-8000-000000000001"
	mattersURL    = "/us/production/api/matters"
)

// newAPI has acme, a single firm's private app, and globex, whose grant is for several accounts.
func newAPI(t *testing.T) *simulator.Simulator {
	t.Helper()
	s := simulator.New()
	t.Cleanup(s.Close)
	s.SetClient(simulator.Client{
		Endpoint: "us/production", ID: "acme", Secrets: []string{"acme"}, APIKey: "acme-key",
		Scopes: []string{"matters/read", "contacts/read", "documents/write"},
	})
	s.SetClient(simulator.Client{
		Endpoint: "au/staging", ID: "globex", Secrets: []string{"globex"}, AccountID: globexAccount,
		Scopes: []string{"matters/read", "contacts/read"},
	})
	return s
}

// buy returns a token of acme (us/production) or globex (au/staging).
func buy(t *testing.T, s http.Handler, client, scope string) string {
	t.Helper()
	path := map[string]string{"acme": "/us/production", "globex": "/au/staging"}[client] + simulator.TokenPath
	form := "grant_type=client_credentials&client_id=" + client
	if scope != "" {
		form += "&scope=" + strings.ReplaceAll(scope, "/", "%2F")
	}
	r := httptest.NewRequest(http.MethodPost, path, strings.NewReader(form))
	r.Header.Set("Content-Type", formType)
	r.SetBasicAuth(client, client)
	token, _ := answered(t, serve(s, r).Body.String())["access_token"].(string)
	if token == "" {
		t.Fatalf("no token for %s", client)
	}
	return token
}

// apiRequest carries acme's API key.
func apiRequest(path, token string) *http.Request {
	r := httptest.NewRequest(http.MethodGet, "http://sim.example"+path, nil)
	r.Header.Set("Authorization", "Bearer "+token)
	r.Header.Set("X-Api-Key", "acme-key")
	return r
}

func wantAnswer(t *testing.T, w *httptest.ResponseRecorder, status int, contentType, said string) {
	t.Helper()
	if w.Code != status || w.Header().Get("Content-Type") != contentType || !strings.Contains(w.Body.String(), said) {
		t.Errorf("%d %s %s\nwant %d %s with %s in it", w.Code, w.Header().Get("Content-Type"), w.Body, status, contentType, said)
	}
}

const (
	gatewayJSON = "application/json"
	apiJSON     = "application/json; charset=utf-8"
	problemJSON = "application/problem+json"
)

func TestAPIListsMatters(t *testing.T) {
	s := newAPI(t)
	w := serve(s, apiRequest(mattersURL, buy(t, s, "acme", "")))
	wantAnswer(t, w, http.StatusOK, apiJSON, `"value":[{`)
	if len(w.Header().Get("x-amzn-requestid")) != 36 {
		t.Errorf("x-amzn-RequestId = %q, want a UUID", w.Header().Get("x-amzn-requestid"))
	}
	list := answered(t, w.Body.String())
	const href = "http://sim.example" + mattersURL
	if list["href"] != href || list["offset"] != 0.0 || list["limit"] != 500.0 || list["size"] != 3.0 || list["next"] != nil {
		t.Errorf("got %v, want all three matters", list)
	}
	matter := list["value"].([]any)[0].(map[string]any)
	id, _ := matter["id"].(string)
	if len(id) != 36 || matter["href"] != href+"/"+id || matter["number"] != "ACM-101" || matter["status"] != "Open" || matter["description"] == "" {
		t.Errorf("the matter is %v", matter)
	}

	// Its links lead somewhere.
	client, _ := matter["clients"].([]any)[0].(map[string]any)["href"].(string)
	for link, said := range map[string]string{href + "/" + id: `"number":"ACM-101"`, client: `"lastName":"Marsh"`} {
		path := strings.TrimPrefix(link, "http://sim.example")
		wantAnswer(t, serve(s, apiRequest(path, buy(t, s, "acme", ""))), http.StatusOK, apiJSON, said)
	}
}

func TestAPIPages(t *testing.T) {
	s := newAPI(t)
	token := buy(t, s, "acme", "")
	numbers, pages := "", 0
	for path := mattersURL + "?Limit=2"; path != ""; pages++ {
		list := answered(t, serve(s, apiRequest(path, token)).Body.String())
		for _, matter := range list["value"].([]any) {
			numbers += matter.(map[string]any)["number"].(string) + " "
		}
		if last := list["last"].(map[string]any)["href"]; last != "http://sim.example"+mattersURL+"?limit=2&offset=2" {
			t.Errorf("last = %v", last)
		}
		next, _ := list["next"].(map[string]any)
		link, _ := next["href"].(string)
		path = strings.TrimPrefix(link, "http://sim.example")
	}
	if numbers != "ACM-101 ACM-102 ACM-103 " || pages != 2 {
		t.Errorf("got %s in %d pages, want each matter once in two", numbers, pages)
	}
	wantAnswer(t, serve(s, apiRequest(mattersURL+"?offset=3", token)), http.StatusOK, apiJSON, `"value":[]`)
	if list := answered(t, serve(s, apiRequest(mattersURL+"?limit=3", token)).Body.String()); list["next"] != nil {
		t.Errorf("next = %v behind the last page", list["next"])
	}
	for _, query := range []string{"limit=0", "limit=501", "limit=many", "offset=-1"} {
		name, _, _ := strings.Cut(query, "=")
		wantAnswer(t, serve(s, apiRequest(mattersURL+"?"+query, token)), http.StatusBadRequest, problemJSON, `"errors":[{"field":"`+name+`"`)
	}
}

func TestAPIOfAnAccountIsBelowIt(t *testing.T) {
	s := newAPI(t)
	acme, globex := buy(t, s, "acme", ""), buy(t, s, "globex", "")
	const below = "/au/staging/api/" + globexAccount + "/matters"
	w := serve(s, apiRequest(below, globex))
	wantAnswer(t, w, http.StatusOK, apiJSON, `"number":"GLO-101"`)
	list := answered(t, w.Body.String())
	if list["href"] != "http://sim.example"+below {
		t.Errorf("href = %v, want the account in it", list["href"])
	}
	id, _ := list["value"].([]any)[0].(map[string]any)["id"].(string)
	if others := serve(s, apiRequest(mattersURL, acme)).Body.String(); id == "" || strings.Contains(others, id) {
		t.Errorf("the matter %q is acme's too: %s", id, others)
	}
	wantAnswer(t, serve(s, apiRequest("/au/staging/api/matters", globex)), http.StatusForbidden, problemJSON, "account")
	wantAnswer(t, serve(s, apiRequest("/au/staging/api/another/matters", globex)), http.StatusForbidden, problemJSON, "account")
	wantAnswer(t, serve(s, apiRequest("/us/production/api/"+globexAccount+"/matters", acme)), http.StatusNotFound, problemJSON, `"status":404`)
}

func TestAPIRefusesAsTheRealOneDoes(t *testing.T) {
	s := newAPI(t)
	acme, few, globex := buy(t, s, "acme", ""), buy(t, s, "acme", "documents/write"), buy(t, s, "globex", "")
	header := func(name string, values ...string) func(*http.Request) {
		return func(r *http.Request) { r.Header[name] = values }
	}
	for _, test := range []struct {
		name, path, token string
		change            func(*http.Request)
		status            int
		contentType, said string
	}{
		{"no credentials", mattersURL, acme, header("Authorization"), 401, gatewayJSON, `{"message":"Unauthorized"}`},
		{"an empty token", mattersURL, "", nil, 401, gatewayJSON, `{"message":"Unauthorized"}`},
		{"another scheme", mattersURL, acme, header("Authorization", "Basic "+acme), 401, gatewayJSON, `{"message":"Unauthorized"}`},
		{"two headers", mattersURL, acme, header("Authorization", "Bearer "+acme, "Bearer "+acme), 401, gatewayJSON, `{"message":"Unauthorized"}`},
		{"a token that was not sold", mattersURL, acme + "x", nil, 401, gatewayJSON, `{"message":"Unauthorized"}`},
		{"a token of another place", mattersURL, globex, nil, 401, gatewayJSON, `{"message":"Unauthorized"}`},
		{"no API key", mattersURL, acme, header("X-Api-Key"), 403, gatewayJSON, `{"message":"Forbidden"}`},
		{"another API key", mattersURL, acme, header("X-Api-Key", "x"), 403, gatewayJSON, `{"message":"Forbidden"}`},
		{"a missing scope", mattersURL, few, nil, 403, problemJSON, "matters/read"},
		{"no such matter", mattersURL + "/1", acme, nil, 404, problemJSON, `"instance":"/matters/1"`},
		{"no such resource", "/us/production/api/tasks", acme, nil, 404, problemJSON, `"title":"Not Found"`},
	} {
		t.Run(test.name, func(t *testing.T) {
			r := apiRequest(test.path, test.token)
			if test.change != nil {
				test.change(r)
			}
			w := serve(s, r)
			wantAnswer(t, w, test.status, test.contentType, test.said)
			if exception := w.Header().Get("x-amzn-errortype"); (test.contentType == gatewayJSON) != strings.HasSuffix(exception, "Exception") {
				t.Errorf("x-amzn-ErrorType = %q", exception)
			}
		})
	}
	r := apiRequest(mattersURL, acme)
	r.Method = http.MethodPost
	if w := serve(s, r); w.Code != http.StatusMethodNotAllowed {
		t.Errorf("POST is answered %d, want 405", w.Code)
	}
}

func TestAPITakesATokenUntilItExpires(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := newAPI(t)
		token := buy(t, s, "acme", "")
		time.Sleep(time.Hour - time.Nanosecond)
		wantAnswer(t, serve(s, apiRequest(mattersURL, token)), http.StatusOK, apiJSON, "")
		time.Sleep(time.Nanosecond)
		wantAnswer(t, serve(s, apiRequest(mattersURL, token)), http.StatusUnauthorized, gatewayJSON, `{"message":"The incoming token has expired"}`)
		young := buy(t, s, "acme", "")
		for range 3000 { // Old tokens are thrown out meanwhile, and no others.
			buy(t, s, "acme", "")
		}
		wantAnswer(t, serve(s, apiRequest(mattersURL, token)), http.StatusUnauthorized, gatewayJSON, `{"message":"Unauthorized"}`)
		wantAnswer(t, serve(s, apiRequest(mattersURL, young)), http.StatusOK, apiJSON, "")
	})
}

func TestAPIGoesByWhatWasSold(t *testing.T) {
	for _, fault := range []simulator.Fault{
		{Kind: simulator.KindOpaque},
		{Kind: simulator.KindClaims, Claims: []byte(`{"exp":1,"scope":"","client_id":"x"}`)},
	} {
		s := newAPI(t)
		setFault(t, s, "acme", fault)
		wantAnswer(t, serve(s, apiRequest(mattersURL, buy(t, s, "acme", ""))), http.StatusOK, apiJSON, "")
	}
}

func TestRevokedTokensAreRefusedAndNewOnesAreNot(t *testing.T) {
	s := newAPI(t)
	acme, globex := buy(t, s, "acme", ""), buy(t, s, "globex", "")
	const below = "/au/staging/api/" + globexAccount + "/matters"
	if w := control(s, http.MethodDelete, "/control/tokens/acme", ""); w.Code != http.StatusNoContent {
		t.Fatalf("%d %s", w.Code, w.Body)
	}
	wantAnswer(t, serve(s, apiRequest(mattersURL, acme)), http.StatusUnauthorized, gatewayJSON, `{"message":"Unauthorized"}`)
	wantAnswer(t, serve(s, apiRequest(mattersURL, buy(t, s, "acme", ""))), http.StatusOK, apiJSON, "")
	wantAnswer(t, serve(s, apiRequest(below, globex)), http.StatusOK, apiJSON, "")
	s.Revoke(simulator.AllClients)
	wantAnswer(t, serve(s, apiRequest(below, globex)), http.StatusUnauthorized, gatewayJSON, `{"message":"Unauthorized"}`)
}

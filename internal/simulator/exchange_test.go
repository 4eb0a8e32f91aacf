package simulator_test

import (
	"encoding/base64"
	"encoding/json"
	"net/http"
	"net/http/httptest"
	"net/url"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"smokeball.internal/tokenbroker/internal/simulator"
)

func claimsOf(t *testing.T, token string) map[string]any {
	t.Helper()
	parts := strings.Split(token, ".")
	if len(parts) != 3 {
		t.Fatalf("the token has %d parts, want 3", len(parts))
	}
	body, err := base64.RawURLEncoding.DecodeString(parts[1])
	if err != nil {
		t.Fatal(err)
	}
	return answered(t, string(body))
}

func TestTokenResponse(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := newSimulator(t)
		now := float64(time.Now().Unix())
		w := serve(s, tokenRequest())
		if w.Code != http.StatusOK {
			t.Fatalf("status = %d, want 200: %s", w.Code, w.Body)
		}
		for name, want := range map[string]string{
			"Content-Type":  "application/json;charset=UTF-8",
			"Cache-Control": "no-store",
			"Pragma":        "no-cache",
		} {
			if got := w.Header().Get(name); got != want {
				t.Errorf("%s = %q, want %q", name, got, want)
			}
		}
		if len(w.Header().Get("x-amz-cognito-request-id")) != 36 {
			t.Errorf("x-amz-cognito-request-id = %q, want a UUID", w.Header().Get("x-amz-cognito-request-id"))
		}
		body := answered(t, w.Body.String())
		token, _ := body["access_token"].(string)
		if len(body) != 3 || token == "" || body["expires_in"] != 3600.0 || body["token_type"] != "Bearer" {
			t.Errorf("body = %v, want access_token, expires_in 3600 and token_type Bearer, nothing else", body)
		}
		claims := claimsOf(t, token)
		for name, want := range map[string]any{
			"iss":       "https://cognito-idp.us-east-1.amazonaws.com/us-east-1_Simulatedproduction",
			"sub":       "acme",
			"client_id": "acme",
			"scope":     "documents/write matters/read",
			"token_use": "access",
			"iat":       now,
			"auth_time": now,
			"exp":       now + 3600,
		} {
			if claims[name] != want {
				t.Errorf("claim %s = %v, want %v", name, claims[name], want)
			}
		}
		if claims["jti"] == "" || claims["aud"] != nil {
			t.Errorf("claims = %v, want a jti and no aud", claims)
		}
		head, err := base64.RawURLEncoding.DecodeString(strings.Split(token, ".")[0])
		if err != nil || answered(t, string(head))["alg"] != "RS256" {
			t.Errorf("header = %s (%v), want alg RS256", head, err)
		}
		signature, err := base64.RawURLEncoding.DecodeString(strings.Split(token, ".")[2])
		if err != nil || len(signature) != 256 {
			t.Errorf("the signature has %d bytes (%v), want 256 as of a 2048 bit key", len(signature), err)
		}
	})
}

// Every case spoils (or not) one thing of a correct request. A refusal is 400 whatever the code is, and buys nothing.
func TestRules(t *testing.T) {
	header := func(name, value string) func(*http.Request) {
		return func(r *http.Request) { r.Header.Set(name, value) }
	}
	basic := func(user, secret string) func(*http.Request) {
		return func(r *http.Request) { r.SetBasicAuth(user, secret) }
	}
	path := func(p string) func(*http.Request) { return func(r *http.Request) { r.URL.Path = p } }
	for _, test := range []struct {
		name  string
		form  string
		spoil func(*http.Request)
		want  string // error code, or "" for a token
	}{
		{name: "as documented"},
		{name: "the other active secret", spoil: basic("acme", "old-secret")},
		{name: "content type with a charset", spoil: header("Content-Type", formType+"; charset=utf-8")},
		{name: "unknown parameters are ignored", form: acmeForm + "&aws_client_metadata=%7B%7D"},
		{name: "empty scope is no scope", form: acmeForm + "&scope="},
		{name: "one scope", form: acmeForm + "&scope=matters%2Fread"},
		{name: "two scopes", form: acmeForm + "&scope=matters%2Fread%20documents%2Fwrite"},
		{name: "empty secret in the body is no secret", form: acmeForm + "&client_secret="},

		{name: "wrong secret", spoil: basic("acme", "wrong"), want: "invalid_client"},
		{name: "empty secret", spoil: basic("acme", ""), want: "invalid_client"},
		{name: "part of a secret", spoil: basic("acme", acmeSecret[:5]), want: "invalid_client"},
		{name: "form-encoded secret", spoil: basic("acme", url.QueryEscape(acmeSecret)), want: "invalid_client"},
		{name: "another endpoint", spoil: path("/au/production/oauth2/token"), want: "invalid_client"},
		{name: "another environment", spoil: path("/us/staging/oauth2/token"), want: "invalid_client"},
		{name: "unknown client", form: "grant_type=client_credentials&client_id=nobody", spoil: basic("nobody", acmeSecret), want: "invalid_client"},
		{name: "client without secrets", form: "grant_type=client_credentials&client_id=bare", spoil: basic("bare", ""), want: "invalid_client"},
		{name: "client_secret_post", form: acmeForm + "&client_secret=old-secret", spoil: func(r *http.Request) { r.Header.Del("Authorization") }, want: "invalid_client"},
		{name: "no credentials", spoil: func(r *http.Request) { r.Header.Del("Authorization") }, want: "invalid_client"},
		{name: "bearer credentials", spoil: header("Authorization", "Bearer abc"), want: "invalid_client"},
		{name: "basic without base64", spoil: header("Authorization", "Basic ???"), want: "invalid_client"},
		{name: "wrong secret before wrong grant", form: "grant_type=password&client_id=acme", spoil: basic("acme", "wrong"), want: "invalid_client"},

		{name: "secret in header and body", form: acmeForm + "&client_secret=old-secret", want: "invalid_request"},
		{name: "two Authorization headers", spoil: func(r *http.Request) { r.Header.Add("Authorization", "Basic YTpi") }, want: "invalid_request"},
		{name: "no client_id in the body", form: "grant_type=client_credentials", want: "invalid_request"},
		{name: "another client_id in the body", form: "grant_type=client_credentials&client_id=globex", want: "invalid_request"},
		{name: "no grant_type", form: "client_id=acme", want: "invalid_request"},
		{name: "repeated parameter", form: acmeForm + "&client_id=acme", want: "invalid_request"},
		{name: "parameters in the query only", form: " ", spoil: func(r *http.Request) { r.URL.RawQuery = acmeForm }, want: "invalid_request"},
		{name: "broken encoding", form: acmeForm + "&scope=%zz", want: "invalid_request"},
		{name: "body too large", form: acmeForm + "&x=" + strings.Repeat("x", 65<<10), want: "invalid_request"},
		{name: "JSON", form: `{"grant_type":"client_credentials"}`, spoil: header("Content-Type", "application/json"), want: "invalid_request"},
		{name: "no content type", spoil: func(r *http.Request) { r.Header.Del("Content-Type") }, want: "invalid_request"},

		{name: "another grant", form: "grant_type=authorization_code&client_id=acme&code=x", want: "unsupported_grant_type"},
		{name: "unknown scope", form: acmeForm + "&scope=search%2Fwrite", want: "invalid_scope"},
		{name: "known and unknown scope", form: acmeForm + "&scope=matters%2Fread+search%2Fwrite", want: "invalid_scope"},
	} {
		t.Run(test.name, func(t *testing.T) {
			s := newSimulator(t)
			s.SetClient(simulator.Client{Endpoint: "us/production", ID: "bare"})
			form := test.form
			if form == "" {
				form = acmeForm
			}
			r := httptest.NewRequest(http.MethodPost, acmeURL, strings.NewReader(strings.TrimSpace(form)))
			r.Header.Set("Content-Type", formType)
			r.SetBasicAuth("acme", acmeSecret)
			if test.spoil != nil {
				test.spoil(r)
			}
			w := serve(s, r)
			if test.want == "" {
				if w.Code != http.StatusOK {
					t.Errorf("%d %s, want a token", w.Code, w.Body)
				}
				wantCounts(t, s, simulator.AllClients, 1, 1)
				return
			}
			if want := `{"error":"` + test.want + `"}`; w.Code != http.StatusBadRequest || w.Body.String() != want {
				t.Errorf("%d %s, want 400 %s", w.Code, w.Body, want)
			}
			if got := w.Header().Get("Content-Type"); got != "application/json;charset=UTF-8" {
				t.Errorf("Content-Type = %q", got)
			}
			wantCounts(t, s, simulator.AllClients, 1, 0)
		})
	}
}

func TestGrantedScopes(t *testing.T) {
	s := newSimulator(t)
	for form, want := range map[string]string{
		acmeForm:                           "documents/write matters/read",
		acmeForm + "&scope=matters%2Fread": "matters/read",
		acmeForm + "&scope=matters/read++matters/read+documents/write": "documents/write matters/read",
	} {
		r := httptest.NewRequest(http.MethodPost, acmeURL, strings.NewReader(form))
		r.Header.Set("Content-Type", formType)
		r.SetBasicAuth("acme", acmeSecret)
		var body struct {
			AccessToken string `json:"access_token"`
		}
		if err := json.Unmarshal(serve(s, r).Body.Bytes(), &body); err != nil {
			t.Fatal(err)
		}
		if got := claimsOf(t, body.AccessToken)["scope"]; got != want {
			t.Errorf("%s: scope = %v, want %s", form, got, want)
		}
	}
}

func TestOnlyPostAndOnlyTheTokenPath(t *testing.T) {
	for _, test := range []struct {
		method, path string
		want         int
	}{
		{http.MethodGet, acmeURL, http.StatusMethodNotAllowed},
		{http.MethodPut, acmeURL, http.StatusMethodNotAllowed},
		{http.MethodDelete, acmeURL, http.StatusMethodNotAllowed},
		{http.MethodPost, "/us/production/oauth2/authorize", http.StatusNotFound},
		{http.MethodPost, "/oauth2/token", http.StatusNotFound},
		{http.MethodGet, "/", http.StatusNotFound},
	} {
		s := newSimulator(t)
		r := tokenRequest()
		r.Method, r.URL.Path = test.method, test.path
		if w := serve(s, r); w.Code != test.want {
			t.Errorf("%s %s: %d, want %d", test.method, test.path, w.Code, test.want)
		}
		wantCounts(t, s, simulator.AllClients, 0, 0)
	}
}

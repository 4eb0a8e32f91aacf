package smokeball_test

import (
	"encoding/base64"
	"net/http"
	"slices"
	"strings"
	"testing"

	"smokeball.internal/tokenbroker/internal/secret"
	"smokeball.internal/tokenbroker/internal/simulator"
	"smokeball.internal/tokenbroker/internal/token"
)

// Source: https://docs.smokeball.com, "Client Credentials Grant".
func TestRequestIsTheOneSmokeballDocuments(t *testing.T) {
	for _, test := range []struct {
		name, id, secret string
		scopes           []string
		body             string
	}{
		{name: "plain", id: "acme", secret: "secret", body: "client_id=acme&grant_type=client_credentials"},
		// Cognito lets a secret be chosen from letters, digits, "_" and "+". Form-encoded first, as RFC 6749 section
		// 2.3.1 has it, "+" would be "%2B" and another secret.
		{name: "a plus", id: "acme", secret: "Ab_c+d", body: "client_id=acme&grant_type=client_credentials"},
		{name: "a percent sign", id: "acme", secret: "50%2Boff%", body: "client_id=acme&grant_type=client_credentials"},
		{name: "equals signs", id: "acme", secret: "YQ==", body: "client_id=acme&grant_type=client_credentials"},
		{name: "a colon in the secret", id: "acme", secret: "a:b", body: "client_id=acme&grant_type=client_credentials"},
		{name: "space, ampersand, not ASCII", id: "acme", secret: "a b&c=ü", body: "client_id=acme&grant_type=client_credentials"},
		{name: "a secret longer than a line of base64", id: "acme", secret: strings.Repeat("s", 200), body: "client_id=acme&grant_type=client_credentials"},
		{name: "an id that the form encodes and Basic does not", id: "a+b/c", secret: "s", body: "client_id=a%2Bb%2Fc&grant_type=client_credentials"},
		{
			name: "one scope", id: "acme", secret: "s", scopes: []string{"matters/read"},
			body: "client_id=acme&grant_type=client_credentials&scope=matters%2Fread",
		},
		{
			name: "two scopes", id: "acme", secret: "s", scopes: []string{"documents/write", "matters/read"},
			body: "client_id=acme&grant_type=client_credentials&scope=documents%2Fwrite+matters%2Fread",
		},
		{name: "an empty list of scopes", id: "acme", secret: "s", scopes: []string{}, body: "client_id=acme&grant_type=client_credentials"},
	} {
		t.Run(test.name, func(t *testing.T) {
			s := answers(sold(accessToken))
			bubble(t, s, func(t *testing.T, n *network) {
				tok, err := n.issuer.Exchange(t.Context(), token.Credential{
					Endpoint: endpoint, ClientID: test.id, Secret: secret.New(test.secret), Scopes: test.scopes,
				})
				if err != nil {
					t.Fatal(err)
				}
				if got := tok.AccessToken.Reveal(); got != accessToken {
					t.Errorf("the access token is %q", got)
				}
			})
			wantRequests(t, s, 1)
			r := s.requests()[0]
			if r.method != http.MethodPost || r.host != "auth.example" || r.path != "/us/production/oauth2/token" {
				t.Errorf("the request is %s http://%s%s", r.method, r.host, r.path)
			}
			if r.body != test.body {
				t.Errorf("the body is\n%s, want\n%s", r.body, test.body)
			}
			basic := "Basic " + base64.StdEncoding.EncodeToString([]byte(test.id+":"+test.secret))
			for name, want := range map[string][]string{
				"Authorization": {basic},
				"Content-Type":  {"application/x-www-form-urlencoded"},
				"Accept":        {"application/json"},
				"User-Agent":    {"tokenbroker"},
				// None: what is not asked for is not unpacked.
				"Accept-Encoding": nil,
			} {
				if got := r.header.Values(name); !slices.Equal(got, want) {
					t.Errorf("%s is %q, want %q", name, got, want)
				}
			}
		})
	}
}

func TestSecretIsInTheAuthorizationHeaderAlone(t *testing.T) {
	s := answers(sold(accessToken))
	bubble(t, s, func(_ *testing.T, n *network) { n.token("matters/read") })
	r := s.requests()[0]
	r.header.Del("Authorization")
	for name, values := range r.header {
		if strings.Contains(strings.Join(values, " "), "Planted") {
			t.Errorf("the secret is in the header %s", name)
		}
	}
	if strings.Contains(r.body+r.path, "Planted") || strings.Contains(r.body, "client_secret") {
		t.Errorf("the secret is in the body or the path: %s %s", r.path, r.body)
	}
}

func TestRepeatedRequestIsTheSameRequest(t *testing.T) {
	s := answers(says(503, ""), raw(""), sold(accessToken))
	bubble(t, s, func(_ *testing.T, n *network) { n.token("matters/read") })
	wantRequests(t, s, 3)
	first := s.requests()[0]
	for i, r := range s.requests()[1:] {
		if r.method != first.method || r.path != first.path || r.body != first.body || r.body == "" ||
			r.header.Get("Authorization") != first.header.Get("Authorization") {
			t.Errorf("request %d is %+v, the first was %+v", i+2, r, first)
		}
	}
}

// The simulator insists on all that Smokeball, Cognito and RFC 6749 ask of a request.
func TestSimulatedIssuerSellsAToken(t *testing.T) {
	sim := simulator.New()
	sim.SetClient(simulator.Client{
		Endpoint: "us/production", ID: clientID, Secrets: []string{clientSecret}, Scopes: []string{"a/read", "b/read", "c/read"},
	})
	bubble(t, sim, func(t *testing.T, n *network) {
		tok := n.token("a/read", "b/read")
		if sim.Bought(clientID) != 1 || sim.Requests(clientID) != 1 {
			t.Errorf("%d tokens bought with %d requests", sim.Bought(clientID), sim.Requests(clientID))
		}
		if tok.ID != token.ID(tok.AccessToken) || tok.AccessToken.IsZero() {
			t.Errorf("ID %q does not name the token", tok.ID)
		}
		if !slices.Equal(tok.Scopes, []string{"a/read", "b/read"}) {
			t.Errorf("Scopes = %q, want those asked for", tok.Scopes)
		}
	})
}

// RFC 6749 section 5.1: the issuer says which scopes it granted only if they are not the ones asked for.
func TestScopesAreThoseTheIssuerSaysItGranted(t *testing.T) {
	for _, test := range []struct {
		name, said  string
		asked, want []string
	}{
		{"nothing asked, nothing said", "", nil, nil},
		{"nothing said: what was asked for", "", []string{"a", "b"}, []string{"a", "b"}},
		{"fewer", `,"scope":"a"`, []string{"a", "b"}, []string{"a"}},
		{"all, none asked for, in another order", `,"scope":"c  a b a"`, nil, []string{"a", "b", "c"}},
		{"an empty scope says nothing", `,"scope":""`, []string{"a"}, []string{"a"}},
		{"null says nothing", `,"scope":null`, []string{"a"}, []string{"a"}},
	} {
		t.Run(test.name, func(t *testing.T) {
			body := `{"access_token":"x","expires_in":3600,"token_type":"Bearer"` + test.said + `}`
			bubble(t, answers(says(200, body)), func(t *testing.T, n *network) {
				if got := n.token(test.asked...).Scopes; !slices.Equal(got, test.want) {
					t.Errorf("Scopes = %q, want %q", got, test.want)
				}
			})
		})
	}
}

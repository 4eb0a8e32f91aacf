package smokeball_test

import (
	"encoding/json"
	"strings"
	"testing"

	"smokeball.internal/tokenbroker/internal/simulator"
	"smokeball.internal/tokenbroker/internal/token"
)

const (
	ofAnotherClient = "a token of another client"
	ofAnotherKind   = "not an access token"
	ofOtherScopes   = "scopes that were not asked for"
)

// A cache that leaves the Authorization header out of its key would hand one firm's token to another.
func TestTokenThatWasNotAskedForIsRefused(t *testing.T) {
	for _, test := range []struct {
		name, claims string
		asked        []string
		why          string // "" if the token is taken
	}{
		{"what Cognito says", `{"client_id":"acme-client","token_use":"access","scope":"a b"}`, []string{"a", "b"}, ""},
		{"another client", `{"client_id":"planted","token_use":"access"}`, nil, ofAnotherClient},
		{"another client of nearly this name", `{"client_id":"Acme-Client"}`, nil, ofAnotherClient},
		{"a client without a name", `{"client_id":""}`, nil, ofAnotherClient},
		{"the client said twice", `{"client_id":"acme-client","client_id":"planted"}`, nil, ofAnotherClient},
		{"an id token", `{"aud":"acme-client","token_use":"id"}`, nil, ofAnotherKind},
		{"a use that nobody knows", `{"client_id":"acme-client","token_use":"planted"}`, nil, ofAnotherKind},
		{"one scope more", `{"scope":"a planted"}`, []string{"a"}, ofOtherScopes},
		{"another scope", `{"scope":"planted"}`, []string{"a"}, ofOtherScopes},
		{"fewer scopes", `{"scope":"a"}`, []string{"a", "b"}, ""},
		{"all scopes, as none were named", `{"scope":"a b c"}`, nil, ""},
		// Claims that are missing, or are something else than Cognito makes them, say nothing.
		{"no claims", `{}`, []string{"a"}, ""},
		{"a client that is no string", `{"client_id":["planted"],"token_use":null,"scope":7}`, []string{"a"}, ""},
		{"claims of other letters", `{"Client_ID":"planted","TOKEN_USE":"id"}`, nil, ""},
		{"claims that are no object", `["client_id","planted"]`, nil, ""},
		{"claims that are no JSON", `{"client_id":"planted"`, nil, ""},
	} {
		t.Run(test.name, func(t *testing.T) {
			s := answers(sold(jwt(test.claims)))
			bubble(t, s, func(t *testing.T, n *network) {
				tok, err := n.exchange(test.asked...)
				if test.why == "" {
					if err != nil {
						t.Errorf("Exchange: %v", err)
					}
					return
				}
				wantSaid(t, wantFailure(t, tok, err, token.Malformed), test.why)
				wantNothingPlanted(t, err)
			})
			wantRequests(t, s, 1) // Another would cost another token.
		})
	}
}

// RFC 6749 section 1.4: what a token looks like is between the issuer and the API.
func TestTokenThatSaysNothingIsTaken(t *testing.T) {
	claims := strings.Split(jwt(`{"client_id":"planted","token_use":"id"}`), ".")[1]
	for _, opaque := range []string{"opaque", "a.b", "a.b.c", claims, "a." + claims, "a." + claims + ".c.d", "a.!" + claims + ".c"} {
		bubble(t, answers(sold(opaque)), func(t *testing.T, n *network) {
			if got := n.token().AccessToken.Reveal(); got != opaque {
				t.Errorf("the access token is %q, want %q", got, opaque)
			}
		})
	}
}

func TestResponseWithScopesThatWereNotAskedForIsRefused(t *testing.T) {
	s := answers(says(200, `{"access_token":"x","expires_in":3600,"token_type":"Bearer","scope":"planted a"}`))
	bubble(t, s, func(t *testing.T, n *network) {
		tok, err := n.exchange("a", "b")
		wantSaid(t, wantFailure(t, tok, err, token.Malformed), ofOtherScopes)
		wantNothingPlanted(t, err)
		n.token()
		n.token("a", "planted")
	})
	wantRequests(t, s, 3)
}

func TestTokenOfAnotherTenantIsPaidForOnceAndKeptFromTheCaller(t *testing.T) {
	synctestSimulator(t, func(t *testing.T, n *network, sim *simulator.Simulator) {
		n.token()
		if err := sim.SetFault(clientID, simulator.Fault{Kind: simulator.KindClaims, Claims: json.RawMessage(`{"client_id":"globex"}`)}); err != nil {
			t.Fatal(err)
		}
		wantSaid(t, n.failure(token.Malformed), ofAnotherClient)
		if bought, requests := sim.Bought(clientID), sim.Requests(clientID); bought != 2 || requests != 2 {
			t.Errorf("%d tokens bought with %d requests, want 2", bought, requests)
		}
	})
}

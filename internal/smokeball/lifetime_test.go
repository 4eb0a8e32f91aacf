package smokeball_test

import (
	"encoding/base64"
	"fmt"
	"net/http"
	"testing"
	"time"

	"smokeball.internal/tokenbroker/internal/simulator"
	"smokeball.internal/tokenbroker/internal/token"
)

// synctestSimulator runs a test against the simulated issuer, made in the bubble because it waits on timers.
func synctestSimulator(t *testing.T, test func(*testing.T, *network, *simulator.Simulator)) {
	t.Helper()
	var sim *simulator.Simulator
	late := http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) { sim.ServeHTTP(w, r) })
	bubble(t, late, func(t *testing.T, n *network) {
		sim = simulator.New()
		t.Cleanup(sim.Close)
		sim.SetClient(simulator.Client{Endpoint: "us/production", ID: clientID, Secrets: []string{clientSecret}})
		test(t, n, sim)
	})
}

// epoch is when time begins in a bubble.
var epoch = time.Date(2000, 1, 1, 0, 0, 0, 0, time.UTC)

// expiring is a JWT that ends so long after the epoch.
func expiring(after time.Duration) string {
	return jwt(fmt.Sprintf(`{"token_use":"access","exp":%d}`, epoch.Add(after).Unix()))
}

func httpDate(after time.Duration) string { return epoch.Add(after).Format(http.TimeFormat) }

func TestExpiresInIsReadInEveryFormItComesIn(t *testing.T) {
	const byDefault, longest = 5 * time.Minute, 24 * time.Hour
	for _, test := range []struct {
		expiresIn string // "" leaves the field out
		life      time.Duration
	}{
		{`3600`, time.Hour},
		{`"3600"`, time.Hour},
		{`" 3600 "`, time.Hour},
		{`3600.0`, time.Hour},
		{`3.6e3`, time.Hour},
		{`"3.6e3"`, time.Hour},
		{`0.5`, 500 * time.Millisecond},
		{`300`, 5 * time.Minute},
		{`86400`, longest},
		{`86401`, longest},
		{`1e12`, longest},
		{`1e400`, longest}, // more than a float64 holds
		{`"1e400"`, longest},
		{`99999999999999999999999999`, longest},
		{`0`, 0},
		{`"0"`, 0},
		{`-1`, 0},
		{`"-1"`, 0},
		{`-1e400`, 0},
		{``, byDefault},
		{`null`, byDefault},
		{`""`, byDefault},
		{`"abc"`, byDefault},
		{`"NaN"`, byDefault},
		{`"1 hour"`, byDefault},
		{`true`, byDefault},
		{`{}`, byDefault},
		{`[3600]`, byDefault},
	} {
		t.Run(test.expiresIn, func(t *testing.T) {
			field := `,"expires_in":` + test.expiresIn
			if test.expiresIn == "" {
				field = ""
			}
			body := `{"access_token":"opaque","token_type":"Bearer"` + field + `}`
			bubble(t, answers(says(200, body)), func(t *testing.T, n *network) {
				if got := n.token().Lifetime(); got != test.life {
					t.Errorf("the token lives %v, want %v", got, test.life)
				}
			})
		})
	}
}

func TestExpOfATokenCutsItsLife(t *testing.T) {
	const year = 365 * 24 * time.Hour
	encoded := func(payload string) string { return "e30." + payload + ".c2ln" }
	for _, test := range []struct {
		name, expiresIn, token string
		header                 []string
		life                   time.Duration
		dead                   bool
	}{
		{name: "exp agrees", expiresIn: "3600", token: expiring(time.Hour), life: time.Hour},
		{name: "exp is sooner: the token comes out of a cache", expiresIn: "3600", token: expiring(10 * time.Minute), life: 10 * time.Minute},
		{name: "exp is later", expiresIn: "600", token: expiring(time.Hour), life: 10 * time.Minute},
		{name: "expires_in is zero", expiresIn: "0", token: expiring(time.Hour), life: 0},
		{name: "expires_in is missing", token: expiring(time.Hour), life: time.Hour},
		{name: "expires_in is null", expiresIn: "null", token: expiring(time.Hour), life: time.Hour},
		{name: "expires_in is no number", expiresIn: `"abc"`, token: expiring(time.Hour), life: time.Hour},
		{name: "exp in a thousand years", token: expiring(200 * year), life: 24 * time.Hour},

		{name: "exp has passed", expiresIn: "3600", token: expiring(-time.Second), dead: true},
		{name: "exp is now", expiresIn: "3600", token: expiring(0), dead: true},
		{name: "exp has passed and nothing else is said", token: expiring(-time.Second), dead: true},
		{name: "exp is zero", expiresIn: "3600", token: jwt(`{"exp":0}`), dead: true},

		// The server's clock counts, not the one here, which is wrong in these by a year.
		{name: "our clock is behind", expiresIn: "3600", token: expiring(year + time.Minute), header: []string{"Date", httpDate(year)}, life: time.Minute},
		{name: "our clock is ahead", expiresIn: "3600", token: expiring(time.Hour - year), header: []string{"Date", httpDate(-year)}, life: time.Hour},
		{name: "dead by the server's clock alone", expiresIn: "3600", token: expiring(time.Hour), header: []string{"Date", httpDate(year)}, dead: true},
		{name: "no Date to compare with", expiresIn: "3600", token: expiring(-year), header: []string{"Date", "-"}, life: time.Hour},
		{name: "no Date and no expires_in", token: expiring(time.Hour), header: []string{"Date", "-"}, life: 5 * time.Minute},
		{name: "a Date that is none", expiresIn: "3600", token: expiring(-year), header: []string{"Date", "today"}, life: time.Hour},
		// A cache may repeat the Date of what it kept, and says in Age how long ago that was.
		{name: "the answer comes out of a cache, Date and all", expiresIn: "3600", token: expiring(time.Hour), header: []string{"Age", "600"}, life: 50 * time.Minute},
		{name: "and is too old", expiresIn: "3600", token: expiring(time.Hour), header: []string{"Age", "3600"}, dead: true},
		{name: "an Age that is none", expiresIn: "3600", token: expiring(time.Hour), header: []string{"Age", "-5"}, life: time.Hour},

		// AWS: treat the token as opaque. What cannot be read in it is no error.
		{name: "exp is text", expiresIn: "3600", token: jwt(`{"exp":"1"}`), life: time.Hour},
		{name: "exp is null", expiresIn: "3600", token: jwt(`{"exp":null}`), life: time.Hour},
		{name: "exp is negative", expiresIn: "3600", token: jwt(`{"exp":-1}`), life: time.Hour},
		{name: "exp is more than a float64 holds", expiresIn: "3600", token: jwt(`{"exp":1e400}`), life: time.Hour},
		{name: "exp is beyond all calendars", expiresIn: "3600", token: jwt(`{"exp":1e300}`), life: time.Hour},
		{name: "exp has a fraction", token: jwt(fmt.Sprintf(`{"exp":%d.9}`, epoch.Unix()+60)), life: time.Minute},
		{name: "no exp", expiresIn: "3600", token: jwt(`{}`), life: time.Hour},
		{name: "claims are no object", expiresIn: "3600", token: jwt(`[]`), life: time.Hour},
		{name: "claims are no JSON", expiresIn: "3600", token: jwt(`x`), life: time.Hour},
		{name: "claims are not base64", expiresIn: "3600", token: encoded("*"), life: time.Hour},
		{name: "claims are padded", expiresIn: "3600", token: encoded(base64.URLEncoding.EncodeToString(fmt.Appendf(nil, `{"exp":%d }`, epoch.Unix()+60))), life: time.Minute},
		{name: "too few parts", expiresIn: "3600", token: "a.b", life: time.Hour},
		{name: "too many parts", expiresIn: "3600", token: expiring(-time.Hour) + ".d", life: time.Hour},
	} {
		t.Run(test.name, func(t *testing.T) {
			body := `{"access_token":"` + test.token + `","token_type":"Bearer"`
			if test.expiresIn != "" {
				body += `,"expires_in":` + test.expiresIn
			}
			bubble(t, answers(says(200, body+`}`, test.header...)), func(t *testing.T, n *network) {
				if test.dead {
					wantSaid(t, n.failure(token.Malformed), "expired already")
					return
				}
				if got := n.token().Lifetime(); got != test.life {
					t.Errorf("the token lives %v, want %v", got, test.life)
				}
			})
		})
	}
}

func TestLifeIsCountedFromWhenTheRequestWasSent(t *testing.T) {
	slow := answers(after(3*time.Second, sold("opaque")))
	bubble(t, slow, func(t *testing.T, n *network) {
		sent := time.Now()
		tok := n.token()
		if took := time.Since(sent); took != 3*time.Second {
			t.Fatalf("the answer took %v", took)
		}
		if !tok.Issued.Equal(sent) || !tok.Expires.Equal(sent.Add(time.Hour)) {
			t.Errorf("issued %v and expires %v after the request was sent, want 0 and 1h", tok.Issued.Sub(sent), tok.Expires.Sub(sent))
		}
		if !tok.RefreshAt.IsZero() {
			t.Errorf("RefreshAt = %v: it is the broker's to set", tok.RefreshAt)
		}
	})
}

func TestLifeIsCountedFromTheAttemptThatBroughtTheToken(t *testing.T) {
	s := answers(after(2*time.Second, says(503, "")), sold("opaque"))
	bubble(t, s, func(t *testing.T, n *network) {
		tok := n.token()
		if sent := s.requests()[1].at; !tok.Issued.Equal(sent) {
			t.Errorf("issued %v after the second request was sent", tok.Issued.Sub(sent))
		}
	})
}

// A caching proxy before the issuer repeats the token and the expires_in it came with.
func TestTokenSoldTwiceLivesAsLongAsTheFirstTime(t *testing.T) {
	synctestSimulator(t, func(t *testing.T, n *network, sim *simulator.Simulator) {
		first := n.token()
		if err := sim.SetFault(clientID, simulator.Fault{Kind: simulator.KindSameToken}); err != nil {
			t.Fatal(err)
		}
		time.Sleep(40 * time.Minute)
		second := n.token()
		if second.ID != first.ID {
			t.Fatal("the simulator sold another token")
		}
		if second.Lifetime() != 20*time.Minute || !second.Expires.Equal(first.Expires) {
			t.Errorf("the second lives %v and ends %v after the first", second.Lifetime(), second.Expires.Sub(first.Expires))
		}
		time.Sleep(20 * time.Minute)
		wantSaid(t, n.failure(token.Malformed), "expired already")
	})
}

func TestOpaqueTokenLivesAsLongAsItsIssuerSays(t *testing.T) {
	synctestSimulator(t, func(t *testing.T, n *network, sim *simulator.Simulator) {
		if err := sim.SetFault(clientID, simulator.Fault{Kind: simulator.KindOpaque}); err != nil {
			t.Fatal(err)
		}
		if got := n.token().Lifetime(); got != time.Hour {
			t.Errorf("it lives %v", got)
		}
	})
}

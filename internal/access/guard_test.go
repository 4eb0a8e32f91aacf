package access_test

import (
	"errors"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"smokeball.internal/tokenbroker/internal/access"
	"smokeball.internal/tokenbroker/internal/access/accesstest"
)

// guarded returns a guard with rules, which looks up labels in tenants, and a
// function that lets somebody in.
func guarded(t testing.TB, tenants access.Tenants, rules string) (*access.Guard, func(subject string) *access.Caller) {
	t.Helper()
	issuer := accesstest.NewTokenIssuer(t, idp, "one")
	guard := access.NewGuard(tokens(t, issuer.JWKS()), tenants)
	policy, err := access.ParsePolicy("access.yaml", []byte(rules))
	if err != nil {
		t.Fatal(err)
	}
	guard.SetPolicy(policy)
	return guard, func(subject string) *access.Caller {
		t.Helper()
		c, err := guard.Identify(nil, []string{"Bearer " + issuer.Sign(issuer.Claims(subject, audience))})
		if err != nil {
			t.Fatal(err)
		}
		return c
	}
}

// Who calls from many places at once does not get more than who calls from one.
func TestARateHoldsForCallsAtOnce(t *testing.T) {
	const perSecond, atOnce = 1000, 200
	guard, as := guarded(t, nil, "limits: [{principals: ['jwt:a'], calls_per_second: 1000}]")
	caller := as("a")
	began := time.Now()
	var admitted atomic.Int64
	var calls sync.WaitGroup
	for range atOnce {
		calls.Go(func() {
			for time.Since(began) < time.Second {
				var tooFast *access.TooFastError
				switch err := guard.Admit(caller, "GetToken"); {
				case err == nil:
					admitted.Add(1)
				case !errors.As(err, &tooFast) || tooFast.After <= 0 || tooFast.After > time.Second:
					t.Errorf("got %v", err)
				}
			}
		})
	}
	calls.Wait()
	if most := int64(perSecond * (1 + time.Since(began).Seconds())); admitted.Load() > most {
		t.Errorf("%d calls were admitted, want %d at most", admitted.Load(), most)
	}
}

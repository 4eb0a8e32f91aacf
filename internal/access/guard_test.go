package access_test

import (
	"context"
	"errors"
	"fmt"
	"runtime"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"smokeball.internal/tokenbroker/internal/access"
	"smokeball.internal/tokenbroker/internal/access/accesstest"
	"smokeball.internal/tokenbroker/internal/tenant"
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
	// The limiter takes times in the order in which they come, not in which they were: a few more.
	if most := int64(1.1 * perSecond * (1 + time.Since(began).Seconds())); admitted.Load() > most {
		t.Errorf("%d calls were admitted, want %d at most", admitted.Load(), most)
	}
}

// registry is tenants that are looked up in the time that it takes.
type registry struct {
	labels map[string]map[string]string
	memory map[string]bool // of those, which are in memory
	takes  time.Duration
	err    error // not nil: the store does not answer
}

func (r registry) Labels(ctx context.Context, id string, fresh bool) (map[string]string, error) {
	if fresh || !r.memory[id] {
		select {
		case <-time.After(r.takes):
		case <-ctx.Done():
			return nil, ctx.Err()
		}
		if r.err != nil {
			return nil, r.err
		}
	}
	labels, ok := r.labels[id]
	if !ok {
		return nil, tenant.ErrNotFound
	}
	return labels, nil
}

// Neither the error nor the time tells a tenant that is hidden from one that
// there is not, whatever deadline the caller sets and however the store fares.
func TestAHiddenTenantIsNone(t *testing.T) {
	t.Parallel()
	away := errors.New("away")
	for name, test := range map[string]struct {
		takes, deadline time.Duration
		err, want       error
	}{
		"as a rule":                          {time.Millisecond, time.Minute, nil, access.ErrNotAllowed},
		"a deadline between two looks":       {10 * time.Millisecond, 15 * time.Millisecond, nil, access.ErrNotAllowed},
		"a deadline in the middle of a look": {10 * time.Millisecond, 5 * time.Millisecond, nil, access.ErrNotAllowed},
		"a deadline after the looks":         {10 * time.Millisecond, 30 * time.Millisecond, nil, access.ErrNotAllowed},
		"a store that does not answer":       {2 * time.Second, time.Minute, away, away},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				red := map[string]string{"team": "red"}
				guard, as := guarded(t, registry{map[string]map[string]string{"held": red, "stored": red}, map[string]bool{"held": true}, test.takes, test.err},
					"rules: [{principals: ['jwt:a'], roles: [token.reader], labels: {team: blue}}]")
				caller := as("a")
				took := map[string]time.Duration{}
				for _, id := range []string{"held", "stored", "none"} {
					ctx, cancel := context.WithTimeout(t.Context(), test.deadline)
					began := time.Now()
					_, err := guard.Decide(ctx, caller, access.Query{Method: "GetToken", Tenant: id})
					cancel()
					if took[id] = time.Since(began); !errors.Is(err, test.want) {
						t.Errorf("%s: got %v, want %v", id, err, test.want)
					}
				}
				if took["held"] != took["none"] || took["stored"] != took["none"] {
					t.Errorf("took %v", took)
				}
			})
		})
	}
}

// However many tokens and connections a principal has, what it may do is kept once.
func TestWhatAPrincipalMayDoIsKeptOnce(t *testing.T) {
	ids := make([]string, 3000)
	for n := range ids {
		ids[n] = fmt.Sprint("firm-", n)
	}
	guard, as := guarded(t, nil, "rules: [{principals: ['jwt:a'], roles: [token.reader], tenants: ["+strings.Join(ids, ", ")+"]}]")
	heap := func() uint64 {
		var m runtime.MemStats
		runtime.GC()
		runtime.ReadMemStats(&m)
		return m.HeapAlloc
	}
	before := heap()
	callers := make([]*access.Caller, 200)
	for n := range callers {
		if callers[n] = as("a"); !guard.Known(callers[n]) {
			t.Fatal("no rule")
		}
	}
	if each := (heap() - before) / uint64(len(callers)); each > 32<<10 {
		t.Errorf("%d bytes for each token", each)
	}
	runtime.KeepAlive(callers)
	runtime.KeepAlive(guard)
}

// What was allowed once stands as long as rule and label do. Whether a tenant went
// away or went to others is the same to who may not have it any more.
func TestWhatWasAllowedStandsOrNot(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		away := errors.New("away")
		labels := map[string]map[string]string{"blue": {"team": "blue"}, "red": {"team": "red"}}
		r := registry{labels, map[string]bool{"blue": true, "red": true, "gone": true}, time.Second, away}
		guard, as := guarded(t, r, "rules:\n- {principals: ['jwt:a'], roles: [token.reader], labels: {team: blue}}\n- {principals: ['jwt:a'], roles: [token.reader], tenants: [named], scopes: ['a']}")
		caller, began := as("a"), time.Now()
		for _, test := range []struct {
			tenant string
			scopes []string
			want   error
		}{
			{"blue", nil, nil},
			{"red", nil, access.ErrNotAllowed},
			{"gone", nil, access.ErrNotAllowed},
			{"named", []string{"a"}, nil},
			{"unheard", nil, away},
		} {
			if err := guard.Standing(t.Context(), caller, access.Query{Method: "WatchToken", Tenant: test.tenant, Scopes: test.scopes}); !errors.Is(err, test.want) {
				t.Errorf("%s: got %v, want %v", test.tenant, err, test.want)
			}
		}
		if took := time.Since(began); took != time.Second { // That of the one that is not in memory.
			t.Errorf("took %v", took)
		}
	})
}

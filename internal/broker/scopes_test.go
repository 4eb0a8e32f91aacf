package broker_test

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"smokeball.internal/tokenbroker/internal/broker"
	"smokeball.internal/tokenbroker/internal/broker/brokertest"
	"smokeball.internal/tokenbroker/internal/secret"
	"smokeball.internal/tokenbroker/internal/tenant"
	"smokeball.internal/tokenbroker/internal/token"
)

// mostSets is how many sets of scopes a tenant's callers may have tokens for, beside the registered scopes.
const mostSets = 16

// invent asks for tokens of scopes that nobody has asked for, and returns how many were had.
func invent(t *testing.T, b *broker.Broker, id, prefix string, sets int) (had int) {
	t.Helper()
	for n := range sets {
		switch _, err := b.Get(t.Context(), id, []string{fmt.Sprint(prefix, n)}, 0); {
		case err == nil:
			had++
		case !errors.Is(err, broker.ErrTooManyScopeSets):
			t.Fatalf("Get: %v", err)
		}
	}
	return had
}

func TestCallersMayHaveTokensForSixteenSetsOfScopes(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		fleet := brokertest.NewFleet(t, 2)
		fleet.Register(t, "acme", nil)
		fleet.Register(t, "globex", nil)
		b := fleet.Replicas[0]
		if had := invent(t, b, "acme", "x", 1000); had != mostSets {
			t.Errorf("%d tokens, want %d", had, mostSets)
		}
		if asked, entries := fleet.Issuer.Asked("client of acme"), b.Entries(); asked != mostSets || entries != mostSets {
			t.Errorf("%d exchanges, and %d keys in memory, want %d", asked, entries, mostSets)
		}
		// The registered scopes are not one of them, those that are held stay, and a set is one whatever its order.
		get(t, b, "acme")
		for n := range mostSets {
			get(t, b, "acme", fmt.Sprint("x", n), fmt.Sprint("x", n))
		}
		if _, err := b.Refresh(t.Context(), "acme", []string{"x1"}, ""); err != nil {
			t.Errorf("Refresh: %v", err)
		}
		if _, err := b.Refresh(t.Context(), "acme", []string{"another"}, ""); !errors.Is(err, broker.ErrTooManyScopeSets) {
			t.Errorf("Refresh of another set = %v", err)
		}
		// It is the tenant's own bound, and each replica's.
		if had := invent(t, b, "globex", "x", mostSets+1); had != mostSets {
			t.Errorf("another tenant had %d tokens", had)
		}
		before := fleet.Issuer.Asked("client of acme")
		if had := invent(t, fleet.Replicas[1], "acme", "x", 1000); had != mostSets || fleet.Issuer.Asked("client of acme") != before {
			t.Errorf("another replica has %d tokens, and bought %d", had, fleet.Issuer.Asked("client of acme")-before)
		}
	})
}

func TestSetsOfScopesThatAreAskedForAtOnceAreBoundedToo(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		fleet := brokertest.NewFleet(t, 1)
		fleet.Issuer.Took = time.Second
		fleet.Register(t, "acme", nil)
		get(t, fleet.Replicas[0], "acme")
		var callers sync.WaitGroup
		var had atomic.Int32
		for n := range 1000 {
			callers.Go(func() {
				// The impatient leave their flight behind, which goes on.
				ctx, cancel := context.WithTimeout(t.Context(), time.Duration(n%3+1)*400*time.Millisecond)
				defer cancel()
				if _, err := fleet.Replicas[0].Get(ctx, "acme", []string{fmt.Sprint("x", n)}, 0); !errors.Is(err, broker.ErrTooManyScopeSets) {
					had.Add(1)
				}
			})
		}
		callers.Wait()
		time.Sleep(time.Minute)
		if asked := fleet.Issuer.Asked("client of acme"); asked != 1+mostSets || had.Load() != mostSets {
			t.Errorf("%d exchanges for %d callers, want %d", asked, had.Load(), mostSets)
		}
	})
}

func TestASetOfScopesCountsWhileItsTokenLives(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		fleet := brokertest.NewFleet(t, 1)
		fleet.Register(t, "acme", nil)
		b := fleet.Replicas[0]
		if had := invent(t, b, "acme", "x", mostSets); had != mostSets {
			t.Fatalf("%d tokens", had)
		}
		for range 6 { // One that is used stays, and is bought again.
			time.Sleep(9 * time.Minute)
			get(t, b, "acme", "x0")
			if had := invent(t, b, "acme", "y", 1); had != 0 {
				t.Fatal("there are more sets than tokens may be held for")
			}
		}
		time.Sleep(9 * time.Minute) // The tokens of an hour that nobody used have expired.
		if had := invent(t, b, "acme", "y", mostSets); had != mostSets-1 {
			t.Errorf("%d tokens after the others have expired, want %d", had, mostSets-1)
		}
		get(t, b, "acme", "x0")
	})
}

func TestARefusedSetOfScopesCountsUntilTheRefusalIsForgotten(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		fleet := brokertest.NewFleet(t, 1)
		fleet.Register(t, "acme", nil)
		fleet.Issuer.Answer = func(c token.Credential) *token.Failure {
			if len(c.Scopes) > 0 {
				return &token.Failure{Class: token.ScopeRejected, Message: "as the test wants it"}
			}
			return nil
		}
		b := fleet.Replicas[0]
		ask := func() (refused int) {
			for n := range 100 {
				if _, err := b.Get(t.Context(), "acme", []string{fmt.Sprint("x", n)}, 0); !errors.Is(err, broker.ErrTooManyScopeSets) {
					refused++
				}
			}
			return refused
		}
		for range 9 {
			if refused := ask(); refused != mostSets {
				t.Fatalf("%d sets were tried", refused)
			}
			time.Sleep(time.Minute)
		}
		if asked := fleet.Issuer.Asked("client of acme"); asked != mostSets {
			t.Errorf("%d exchanges in ten minutes, want %d", asked, mostSets)
		}
		time.Sleep(time.Hour)
		get(t, b, "acme")
		if entries := b.Entries(); entries != 1 {
			t.Errorf("%d keys in memory", entries)
		}
		fleet.Issuer.Set(func(i *brokertest.Issuer) { i.Answer = nil })
		if had := invent(t, b, "acme", "y", 100); had != mostSets {
			t.Errorf("%d tokens after that", had)
		}
	})
}

func TestSubsetsOfTheRegisteredScopesCountToo(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		fleet := brokertest.NewFleet(t, 1)
		scopes := []string{"a", "b", "c", "d", "e", "f", "g", "h"}
		fleet.Register(t, "acme", func(r *tenant.Tenant) { r.Scopes = scopes })
		had := 0
		for n := 1; n < 1<<len(scopes); n++ {
			var subset []string
			for i, s := range scopes {
				if n>>i&1 == 1 {
					subset = append(subset, s)
				}
			}
			if _, err := fleet.Replicas[0].Get(t.Context(), "acme", subset, 0); err == nil {
				had++
			}
		}
		// Among the subsets are the registered scopes themselves.
		if asked := fleet.Issuer.Asked("client of acme"); had != mostSets+1 || asked != had {
			t.Errorf("%d tokens with %d exchanges, want %d", had, asked, mostSets+1)
		}
	})
}

func TestSetsOfScopesOfAFormerSecretDoNotCount(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		fleet := brokertest.NewFleet(t, 1)
		fleet.Register(t, "acme", nil)
		b := fleet.Replicas[0]
		if had := invent(t, b, "acme", "x", mostSets); had != mostSets {
			t.Fatalf("%d tokens", had)
		}
		if _, err := fleet.Registry().Rotate(t.Context(), "acme", broker.Rotation{Secret: secret.New("new"), FallbackTTL: time.Hour}); err != nil {
			t.Fatal(err)
		}
		if had := invent(t, b, "acme", "x", 2*mostSets); had != mostSets {
			t.Errorf("%d tokens after the rotation, want %d", had, mostSets)
		}
		update(t, fleet, func(r *tenant.Tenant) { r.Scopes = []string{"x0", "x1", "y0"} })
		if had := invent(t, b, "acme", "y", 1); had != 1 {
			t.Error("sets that are not admitted any more count")
		}
	})
}

func TestTenantsThatShareACredentialEachHaveTheirSets(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		fleet := brokertest.NewFleet(t, 1)
		shared := func(r *tenant.Tenant) { r.ClientID = "shared" }
		fleet.Register(t, "one", shared)
		fleet.Register(t, "two", shared)
		b := fleet.Replicas[0]
		for range 3 { // In turns: the tokens are the same.
			for _, id := range []string{"one", "two"} {
				if had := invent(t, b, id, "x", mostSets+1); had != mostSets {
					t.Errorf("%s has %d tokens", id, had)
				}
			}
		}
		if asked := fleet.Issuer.Asked("shared"); asked != mostSets {
			t.Errorf("%d exchanges", asked)
		}
		if had := invent(t, b, "two", "y", 1); had != 0 {
			t.Error("what another tenant asks for does not count")
		}
		time.Sleep(2 * time.Hour)
		if two, one := invent(t, b, "two", "x", mostSets), invent(t, b, "one", "y", mostSets); two != mostSets || one != mostSets {
			t.Errorf("%d and %d tokens: what another has asked for again counts", two, one)
		}
	})
}

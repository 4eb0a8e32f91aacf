package broker_test

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"smokeball.internal/tokenbroker/internal/broker"
	"smokeball.internal/tokenbroker/internal/broker/brokertest"
	"smokeball.internal/tokenbroker/internal/tenant"
	"smokeball.internal/tokenbroker/internal/token"
)

// get asks for a token that must be had.
func get(t *testing.T, b *broker.Broker, id string, scopes ...string) *token.Token {
	t.Helper()
	a, err := b.Get(t.Context(), id, scopes, 0)
	if err != nil {
		t.Fatalf("Get(%s): %v", id, err)
	}
	return a.Token
}

// failure asks for a token that must not be had.
func failure(t *testing.T, b *broker.Broker, id string) token.Failure {
	t.Helper()
	_, err := b.Get(t.Context(), id, nil, 0)
	var f *token.Failure
	if !errors.As(err, &f) {
		t.Fatalf("Get(%s) = %v, want a failure", id, err)
	}
	return *f
}

// disable switches the tenant acme off, or on again.
func disable(t *testing.T, fleet *brokertest.Fleet, disabled bool) {
	t.Helper()
	update(t, fleet, func(r *tenant.Tenant) { r.Disabled = disabled })
}

// update changes the tenant acme.
func update(t *testing.T, fleet *brokertest.Fleet, change func(*tenant.Tenant)) {
	t.Helper()
	_, err := fleet.Registry().Update(t.Context(), "acme", "", false, func(r *tenant.Tenant) error {
		change(r)
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
}

func TestAFleetBuysOneTokenForAllWhoAsk(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		fleet := brokertest.NewFleet(t, 3)
		fleet.Issuer.Took = time.Second
		for n := range 20 {
			fleet.Register(t, fmt.Sprint("t", n), nil)
		}
		var callers sync.WaitGroup
		for _, replica := range fleet.Replicas {
			for n := range 1000 {
				callers.Go(func() {
					id := fmt.Sprint("t", n%20)
					a, err := replica.Get(t.Context(), id, nil, 0)
					if err != nil || a.APIBaseURL != "api.us" || a.APIKey.Reveal() != "key of "+id ||
						a.Token.AccessToken.Reveal() != fmt.Sprintf("token 1 of client of %s for []", id) {
						t.Errorf("Get(%s) = %+v, %v", id, a, err)
					}
				})
			}
		}
		callers.Wait()
		for n := range 20 {
			if got := fleet.Issuer.Asked(fmt.Sprint("client of t", n)); got != 1 {
				t.Errorf("%d exchanges for t%d", got, n)
			}
		}
	})
}

func TestACallerThatGivesUpDoesNotFailTheOthers(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		fleet := brokertest.NewFleet(t, 1)
		fleet.Issuer.Took = 5 * time.Second
		fleet.Register(t, "acme", nil)
		impatient, cancel := context.WithTimeout(t.Context(), time.Second)
		defer cancel()
		var callers sync.WaitGroup
		callers.Go(func() { // The first caller, whose flight it is.
			if _, err := fleet.Replicas[0].Get(impatient, "acme", nil, 0); !errors.Is(err, context.DeadlineExceeded) {
				t.Errorf("the impatient caller got %v", err)
			}
		})
		time.Sleep(100 * time.Millisecond)
		callers.Go(func() { get(t, fleet.Replicas[0], "acme") })
		callers.Wait()
		if got := fleet.Issuer.Asked("client of acme"); got != 1 {
			t.Errorf("%d exchanges", got)
		}
	})
}

func TestATokenBoughtForNobodyIsKept(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		fleet := brokertest.NewFleet(t, 1)
		fleet.Issuer.Took = 5 * time.Second
		fleet.Register(t, "acme", nil)
		ctx, cancel := context.WithTimeout(t.Context(), time.Second)
		defer cancel()
		_, _ = fleet.Replicas[0].Get(ctx, "acme", nil, 0)
		time.Sleep(10 * time.Second)
		before := time.Now()
		get(t, fleet.Replicas[0], "acme")
		if waited := time.Since(before); waited != 0 || fleet.Issuer.Asked("client of acme") != 1 {
			t.Errorf("waited %v, %d exchanges", waited, fleet.Issuer.Asked("client of acme"))
		}
	})
}

func TestATokenInUseIsReplacedBehindItsCallers(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		fleet := brokertest.NewFleet(t, 3)
		fleet.Issuer.Took = time.Second
		fleet.Register(t, "acme", nil)
		get(t, fleet.Replicas[0], "acme")
		for minute := range 24 * 60 {
			time.Sleep(time.Minute)
			before := time.Now()
			tok := get(t, fleet.Replicas[minute%3], "acme")
			if waited := time.Since(before); waited != 0 && minute > 3 {
				t.Fatalf("minute %d: waited %v", minute, waited)
			}
			if left := time.Until(tok.Expires); left < time.Minute {
				t.Fatalf("minute %d: %v left", minute, left)
			}
		}
		// 24 hours at 75 % of an hour each are 32, at 70 % 35.
		if got := fleet.Issuer.Asked("client of acme"); got < 30 || got > 35 {
			t.Errorf("%d exchanges in 24 hours", got)
		}
	})
}

func TestAnIdleTokenIsLeftToExpireAndForgotten(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		fleet := brokertest.NewFleet(t, 1)
		fleet.Register(t, "acme", nil)
		get(t, fleet.Replicas[0], "acme")
		time.Sleep(24 * time.Hour)
		if got := fleet.Issuer.Asked("client of acme"); got != 1 {
			t.Errorf("%d exchanges", got)
		}
		if n := fleet.Replicas[0].Entries(); n != 0 {
			t.Errorf("%d entries in memory", n)
		}
	})
}

func TestATokenAskedForNowAndThenIsReplacedWhenItIsDue(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		fleet := brokertest.NewFleet(t, 1)
		fleet.Issuer.Took = time.Second
		fleet.Register(t, "acme", nil)
		first := get(t, fleet.Replicas[0], "acme")
		for range 20 {
			time.Sleep(50 * time.Minute) // After the refresh point, before the end.
			before := time.Now()
			get(t, fleet.Replicas[0], "acme")
			if waited := time.Since(before); waited != 0 {
				t.Fatalf("waited %v", waited)
			}
		}
		if now := get(t, fleet.Replicas[0], "acme"); now.ID == first.ID {
			t.Error("the token is the first one still")
		}
	})
}

func TestAWarmTenantIsKeptFreshThoughNobodyAsks(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		fleet := brokertest.NewFleet(t, 1)
		fleet.Register(t, "acme", func(r *tenant.Tenant) { r.KeepWarm = true })
		get(t, fleet.Replicas[0], "acme")
		time.Sleep(24 * time.Hour)
		if got := fleet.Issuer.Asked("client of acme"); got < 30 || got > 35 {
			t.Errorf("%d exchanges in 24 hours", got)
		}
		// It is not kept warm against its administrator's will.
		disable(t, fleet, true)
		before := fleet.Issuer.Asked("client of acme")
		time.Sleep(24 * time.Hour)
		if got := fleet.Issuer.Asked("client of acme"); got != before {
			t.Errorf("%d exchanges for a disabled tenant", got-before)
		}
	})
}

func TestAMinimumOfRemainingLifeIsKept(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		fleet := brokertest.NewFleet(t, 1)
		fleet.Register(t, "acme", nil)
		b := fleet.Replicas[0]
		first := get(t, b, "acme")
		time.Sleep(10 * time.Minute)
		for _, test := range []struct {
			atLeast time.Duration
			asked   int // exchanges by then
			err     error
		}{
			{49 * time.Minute, 1, nil},
			{55 * time.Minute, 2, nil},                      // The one in hand is too short: another is bought.
			{2 * time.Hour, 2, broker.ErrMinRemaining},      // No token lives that long, and this one is new.
			{59 * time.Minute, 2, nil},                      // It is for all.
			{3601 * time.Second, 2, broker.ErrMinRemaining}, // Not even at the start.
		} {
			a, err := b.Get(t.Context(), "acme", nil, test.atLeast)
			if !errors.Is(err, test.err) || fleet.Issuer.Asked("client of acme") != test.asked {
				t.Errorf("%v: %v after %d exchanges", test.atLeast, err, fleet.Issuer.Asked("client of acme"))
			}
			if err == nil && time.Until(a.Token.Expires) < test.atLeast {
				t.Errorf("%v: %v left", test.atLeast, time.Until(a.Token.Expires))
			}
		}
		if get(t, b, "acme").ID == first.ID {
			t.Error("the replaced token is handed out")
		}
		// Who asks for too much again and again pays no more than once a minute.
		before := fleet.Issuer.Asked("client of acme")
		for range 600 {
			time.Sleep(time.Second)
			_, _ = b.Get(t.Context(), "acme", nil, 2*time.Hour)
		}
		if got := fleet.Issuer.Asked("client of acme") - before; got > 10 {
			t.Errorf("%d exchanges in ten minutes", got)
		}
	})
}

func TestTokensAreSharedByCredentialAndScopesOnly(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		fleet := brokertest.NewFleet(t, 1)
		shared := func(r *tenant.Tenant) { r.ClientID = "shared" }
		fleet.Register(t, "one", shared)
		fleet.Register(t, "two", shared)
		fleet.Register(t, "australian", func(r *tenant.Tenant) { r.ClientID, r.Region = "shared", tenant.AU })
		fleet.Register(t, "bounded", func(r *tenant.Tenant) { r.Scopes = []string{"a", "b"} })
		b := fleet.Replicas[0]
		if get(t, b, "one").ID != get(t, b, "two").ID {
			t.Error("two tenants with one credential have two tokens")
		}
		if before := fleet.Issuer.Asked("shared"); get(t, b, "australian") == nil || fleet.Issuer.Asked("shared") != before+1 {
			t.Error("two issuers have one token")
		}
		ab, a := get(t, b, "bounded"), get(t, b, "bounded", "a")
		if ab.ID == a.ID || get(t, b, "bounded", "b", "a", "b").ID != ab.ID {
			t.Error("scopes do not tell tokens apart, or their order does")
		}
		if _, err := b.Get(t.Context(), "bounded", []string{"a", "c"}, 0); !errors.Is(err, broker.ErrScopeNotRegistered) {
			t.Errorf("a scope that is not registered: %v", err)
		}
	})
}

func TestChangesOfATenantAreSeenByAllReplicas(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		fleet := brokertest.NewFleet(t, 3)
		fleet.Register(t, "acme", nil)
		all := func(want error) {
			t.Helper()
			synctest.Wait()
			for n, replica := range fleet.Replicas {
				if _, err := replica.Get(t.Context(), "acme", nil, 0); !errors.Is(err, want) {
					t.Errorf("replica %d: %v, want %v", n, err, want)
				}
			}
		}
		all(nil)
		disable(t, fleet, true)
		all(broker.ErrDisabled)
		disable(t, fleet, false)
		all(nil)
		if err := fleet.Registry().Delete(t.Context(), "acme", "", false); err != nil {
			t.Fatal(err)
		}
		all(tenant.ErrNotFound)
		if got := fleet.Issuer.Asked("client of acme"); got != 1 {
			t.Errorf("%d exchanges", got)
		}
	})
}

package broker_test

import (
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

func TestTokensThatEndBeforeTheyCanBeUsedAreNotBoughtForEveryCall(t *testing.T) {
	tooShort := func(i *brokertest.Issuer) { i.Lifetime, i.Took = 100*time.Millisecond, 100*time.Millisecond }
	t.Run("asked for", func(t *testing.T) {
		synctest.Test(t, func(t *testing.T) {
			fleet := brokertest.NewFleet(t, 3)
			fleet.Issuer.Set(tooShort)
			fleet.Register(t, "acme", nil)
			for range 600 {
				for _, replica := range fleet.Replicas {
					_, _ = replica.Get(t.Context(), "acme", nil, 0)
				}
				time.Sleep(100 * time.Millisecond)
			}
			if got := fleet.Issuer.Asked("client of acme"); got > 15 {
				t.Errorf("%d exchanges in a minute", got)
			}
		})
	})
	t.Run("kept warm", func(t *testing.T) {
		synctest.Test(t, func(t *testing.T) {
			fleet := brokertest.NewFleet(t, 1)
			fleet.Issuer.Set(tooShort)
			fleet.Register(t, "acme", warm)
			_, _ = fleet.Replicas[0].Get(t.Context(), "acme", nil, 0)
			time.Sleep(time.Minute)
			if got := fleet.Issuer.Asked("client of acme"); got > 15 {
				t.Errorf("%d exchanges in a minute", got)
			}
		})
	})
	t.Run("in place of one that is held", func(t *testing.T) {
		synctest.Test(t, func(t *testing.T) {
			fleet := brokertest.NewFleet(t, 3)
			fleet.Register(t, "acme", nil)
			held := get(t, fleet.Replicas[0], "acme")
			fleet.Issuer.Set(func(i *brokertest.Issuer) { i.Lifetime = -1 })
			for time.Now().Before(held.SafeEnd().Add(-time.Second)) {
				time.Sleep(time.Second)
				for _, replica := range fleet.Replicas {
					if get(t, replica, "acme").ID != held.ID {
						t.Fatal("a token without a lifetime in place of a good one")
					}
				}
			}
			if got, most := fleet.Issuer.Asked("client of acme"), tries(held); got > most {
				t.Errorf("%d exchanges between the refresh point and the safe end, want at most %d", got, most)
			}
		})
	})
}

func TestWhatIsKeptWarmIsTheTokenOfTheRegisteredScopes(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		fleet := brokertest.NewFleet(t, 1)
		fleet.Register(t, "acme", func(r *tenant.Tenant) { r.KeepWarm, r.Scopes = true, []string{"a", "b", "c"} })
		b := fleet.Replicas[0]
		get(t, b, "acme")
		get(t, b, "acme", "c")
		update(t, fleet, func(r *tenant.Tenant) { r.Scopes = []string{"a", "b"} })
		synctest.Wait()
		get(t, b, "acme")
		get(t, b, "acme", "a") // Which the registration admits.
		var bought, others atomic.Int64
		fleet.Issuer.Set(func(i *brokertest.Issuer) {
			i.Answer = func(c token.Credential) *token.Failure {
				if token.ScopeParam(c.Scopes) == "a b" {
					bought.Add(1)
				} else {
					others.Add(1)
				}
				return nil
			}
		})
		time.Sleep(24 * time.Hour)
		if bought.Load() < 30 || others.Load() != 0 {
			t.Errorf("%d exchanges in 24 hours for the scopes that are registered, %d for others", bought.Load(), others.Load())
		}
	})
}

func TestATenantIsKeptWarmThoughAnotherSharesItsCredential(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		fleet := brokertest.NewFleet(t, 1)
		fleet.Register(t, "one", func(r *tenant.Tenant) { r.ClientID, r.KeepWarm = "shared", true })
		fleet.Register(t, "two", func(r *tenant.Tenant) { r.ClientID = "shared" })
		get(t, fleet.Replicas[0], "one")
		get(t, fleet.Replicas[0], "two")
		time.Sleep(24 * time.Hour)
		if got := fleet.Issuer.Asked("shared"); got < 30 {
			t.Errorf("%d exchanges in 24 hours", got)
		}
	})
}

func TestAnEntryIsNotDroppedWhileSomebodyWaitsForIt(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		fleet := brokertest.NewFleet(t, 1)
		fleet.Register(t, "acme", nil)
		synctest.Wait()
		b := fleet.Replicas[0]
		first := get(t, b, "acme")
		fleet.Store.SetAway(true) // So that memory is all there is.
		fleet.Issuer.Set(func(i *brokertest.Issuer) { i.Took = time.Second })
		time.Sleep(time.Until(first.Expires) - 500*time.Millisecond)
		get(t, b, "acme")
		before := time.Now()
		get(t, b, "acme")
		if got := fleet.Issuer.Asked("client of acme"); got != 2 || time.Since(before) != 0 {
			t.Errorf("%d exchanges, the second call waited %v", got, time.Since(before))
		}
	})
}

func TestTheLastTokenAnnouncedIsTheOneThatIsHeld(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b, h, fleet := newHooked(t)
		get(t, b, "acme")
		time.Sleep(2 * time.Minute)
		k := key(t, fleet, "acme")
		h.Put(k, stored("second", time.Now()))
		h.afterLoad = func() { time.Sleep(time.Second) }
		b.TokenChanged(k.Digest(), "second") // It has been read, and is on its way ...
		time.Sleep(100 * time.Millisecond)
		h.Put(k, stored("third", time.Now()))
		b.TokenChanged(k.Digest(), "third") // ... when there is another.
		time.Sleep(10 * time.Second)
		if got := get(t, b, "acme"); got.ID != "third" {
			t.Errorf("holds %q", got.ID)
		}
	})
}

func TestAnswersDuringARefreshLeaveNothingBehind(t *testing.T) {
	store, issuer := &brokertest.Store{}, &brokertest.Issuer{}
	b := broker.New(broker.Config{Issuer: issuer, Store: store, Tenants: store, Logger: discard})
	defer b.Close()
	_, err := broker.NewRegistry(b, store).Create(t.Context(), tenant.Tenant{ID: "acme", Region: tenant.US, Environment: tenant.Production,
		ClientID: "c", Secret: tenant.Secret{Value: secret.New("s")}}, false)
	if err != nil {
		t.Fatal(err)
	}
	now := time.Now()
	store.Put(token.Credential{Endpoint: "issuer.us", ClientID: "c", SecretID: "id of s"}.Key(),
		token.Token{ID: "due", Issued: now.Add(-50 * time.Minute), Expires: now.Add(10 * time.Minute), RefreshAt: now.Add(-time.Minute)})
	issuer.Set(func(i *brokertest.Issuer) { i.Took = time.Minute })
	ask := func() {
		if _, err := b.Get(t.Context(), "acme", nil, 0); err != nil {
			t.Error(err)
		}
	}
	ask()
	ask() // Has started the flight, if the timer had not.
	if n := testing.AllocsPerRun(1000, ask); n > 3 {
		t.Errorf("%v allocations for each answer", n)
	}
}

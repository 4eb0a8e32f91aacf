package broker_test

import (
	"errors"
	"testing"
	"testing/synctest"
	"time"

	"smokeball.internal/tokenbroker/internal/broker"
	"smokeball.internal/tokenbroker/internal/broker/brokertest"
	"smokeball.internal/tokenbroker/internal/tenant"
)

func TestATenantInMemoryIsServedForSoLongOnlyWhileNothingIsHeard(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		fleet := &brokertest.Fleet{Store: &brokertest.Store{}, Issuer: &brokertest.Issuer{Lifetime: 24 * time.Hour}, MaxStaleness: time.Hour}
		b := fleet.Add(t)
		fleet.Register(t, "acme", nil)
		synctest.Wait()
		get(t, b, "acme")
		time.Sleep(50 * time.Minute)
		b.Heard()
		fleet.Store.SetAway(true)
		time.Sleep(59 * time.Minute)
		get(t, b, "acme")
		time.Sleep(2 * time.Minute)
		if _, err := b.Get(t.Context(), "acme", nil, 0); !errors.Is(err, broker.ErrStore) || !b.Stats().Deaf {
			t.Errorf("an hour and a minute later: %v", err)
		}
		// A store that answers is asked each time.
		fleet.Store.SetAway(false)
		get(t, b, "acme")
		fleet.Store.SetAway(true)
		if _, err := b.Get(t.Context(), "acme", nil, 0); !errors.Is(err, broker.ErrStore) {
			t.Errorf("away again: %v", err)
		}
		fleet.Store.SetAway(false)
		b.Heard()
		get(t, b, "acme")
		fleet.Store.SetAway(true)
		get(t, b, "acme")
		if got := fleet.Issuer.Asked("client of acme"); got != 1 {
			t.Errorf("%d exchanges", got)
		}
	})
}

func TestNothingIsBoughtForATenantThatMayHaveBeenDisabledLongAgo(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		fleet := &brokertest.Fleet{Store: &brokertest.Store{}, Issuer: &brokertest.Issuer{}, MaxStaleness: 30 * time.Minute}
		b := fleet.Add(t)
		fleet.Register(t, "acme", warm)
		synctest.Wait()
		get(t, b, "acme")
		fleet.Store.SetAway(true)
		time.Sleep(6 * time.Hour)
		if got := fleet.Issuer.Asked("client of acme"); got != 1 {
			t.Errorf("%d exchanges", got)
		}
		fleet.Store.SetAway(false)
		b.Heard()
		time.Sleep(time.Minute)
		heldWarm(t, fleet, "acme") // Again.
	})
}

func TestALostRegistryIsNoReasonToServeNobody(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		fleet := &brokertest.Fleet{Store: &brokertest.Store{}, Issuer: &brokertest.Issuer{}, MaxStaleness: 5 * time.Hour}
		for range 2 {
			fleet.Add(t)
		}
		fleet.Register(t, "acme", nil)
		fleet.Register(t, "other", nil)
		synctest.Wait()
		a, b := fleet.Replicas[0], fleet.Replicas[1]
		get(t, a, "acme")
		restore := fleet.Store.Lose()
		hear := func() {
			for _, replica := range fleet.Replicas {
				replica.Heard()
			}
		}
		for minute := range 4 * 60 { // Its token is replaced meanwhile.
			hear()
			before := time.Now()
			get(t, a, "acme")
			if waited := time.Since(before); waited != 0 && minute > 0 {
				t.Fatalf("minute %d: waited %v", minute, waited)
			}
			if _, err := b.Get(t.Context(), "acme", nil, 0); !errors.Is(err, tenant.ErrLost) {
				t.Fatalf("a replica that never asked for it: %v", err)
			}
			time.Sleep(time.Minute)
		}
		held := get(t, a, "acme")
		restore()
		restore = fleet.Store.Lose() // This time with the token that was bought meanwhile.
		restore()
		time.Sleep(2 * time.Second) // It looks once a second.
		// The replica that holds the token gives it back to the store, once it is asked.
		get(t, a, "acme")
		synctest.Wait()
		before := fleet.Issuer.Asked("client of acme")
		if got := get(t, b, "acme"); got.ID != held.ID || fleet.Issuer.Asked("client of acme") != before {
			t.Errorf("after the restore another replica has %s, want %s", got.ID, held.ID)
		}

		fleet.Store.Lose()
		synctest.Wait()
		get(t, a, "acme")
		for range 6 * 60 {
			hear()
			time.Sleep(time.Minute)
			_, _ = a.Get(t.Context(), "acme", nil, 0)
		}
		if _, err := a.Get(t.Context(), "acme", nil, 0); !errors.Is(err, tenant.ErrLost) {
			t.Errorf("six hours after the loss: %v", err)
		}
	})
}

func TestATokenThatWasReplacedUnheardIsNoticedAfterAResync(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		fleet := brokertest.NewFleet(t, 1)
		fleet.Register(t, "acme", nil)
		deaf := fleet.Deaf(t)
		synctest.Wait()
		rejected := get(t, deaf, "acme")
		time.Sleep(2 * time.Minute)
		answer, err := fleet.Replicas[0].Refresh(t.Context(), "acme", nil, rejected.ID)
		if err != nil {
			t.Fatal(err)
		}
		if get(t, deaf, "acme").ID != rejected.ID {
			t.Fatal("it has heard of it")
		}
		deaf.Resync()
		get(t, deaf, "acme")
		synctest.Wait()
		if got := get(t, deaf, "acme"); got.ID != answer.Token.ID {
			t.Errorf("holds %s, want %s", got.ID, answer.Token.ID)
		}
	})
}

func TestTheBoundHoldsAlsoIfNothingWasEverHeard(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		fleet := &brokertest.Fleet{Store: &brokertest.Store{}, Issuer: &brokertest.Issuer{}, MaxStaleness: time.Hour}
		fleet.Add(t)
		deaf := fleet.Deaf(t)
		fleet.Register(t, "acme", nil)
		get(t, deaf, "acme")
		disable(t, fleet, true)
		time.Sleep(2 * time.Hour)
		if _, err := deaf.Get(t.Context(), "acme", nil, 0); !errors.Is(err, broker.ErrDisabled) || !deaf.Stats().Deaf {
			t.Errorf("two hours after it was disabled: %v", err)
		}
	})
}

func TestTheBoundCountsFromTheLossOfTheRegistry(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		fleet := &brokertest.Fleet{Store: &brokertest.Store{}, Issuer: &brokertest.Issuer{Lifetime: 24 * time.Hour}, MaxStaleness: 5 * time.Hour}
		b := fleet.Add(t)
		fleet.Register(t, "acme", nil)
		synctest.Wait()
		get(t, b, "acme")
		fleet.Store.Lose()
		for range 9 * 60 { // In which nobody asks.
			b.Heard()
			time.Sleep(time.Minute)
		}
		if _, err := b.Get(t.Context(), "acme", nil, 0); !errors.Is(err, tenant.ErrLost) {
			t.Errorf("nine hours after the loss: %v", err)
		}
	})
}

func TestWhoIsDeafWaitsForAStoreThatIsSlow(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		fleet := brokertest.NewFleet(t, 1)
		fleet.Register(t, "acme", nil)
		fleet.MaxStaleness = 10 * time.Minute
		s := &slow{Store: fleet.Store}
		b := newReplica(t, fleet, s)
		b.Heard()
		get(t, b, "acme")
		time.Sleep(11 * time.Minute)
		s.hang.Store(true)
		if _, err := b.Get(t.Context(), "acme", nil, 0); !errors.Is(err, broker.ErrStore) {
			t.Errorf("a store that hangs: %v", err)
		}
		s.hang.Store(false)
		s.took = 150 * time.Millisecond
		if _, err := b.Get(t.Context(), "acme", nil, 0); err != nil {
			t.Errorf("a store that answers in 150 ms: %v", err)
		}
	})
}

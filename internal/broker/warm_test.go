package broker_test

import (
	"context"
	"fmt"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"smokeball.internal/tokenbroker/internal/broker/brokertest"
	"smokeball.internal/tokenbroker/internal/tenant"
	"smokeball.internal/tokenbroker/internal/token"
)

// heldWarm wants each replica to answer from memory.
func heldWarm(t *testing.T, fleet *brokertest.Fleet, id string) {
	t.Helper()
	fleet.Store.SetAway(true)
	defer fleet.Store.SetAway(false)
	for n, replica := range fleet.Replicas {
		before := fleet.Issuer.Asked("client of " + id)
		if _, err := replica.Get(t.Context(), id, nil, 0); err != nil || fleet.Issuer.Asked("client of "+id) != before {
			t.Errorf("replica %d does not hold a token of %s: %v", n, id, err)
		}
	}
}

func TestAWarmTenantHasATokenBeforeAnybodyAsks(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		fleet := brokertest.NewFleet(t, 2)
		for n := range 1200 { // More than a page.
			fleet.Register(t, fmt.Sprintf("t%04d", n), func(r *tenant.Tenant) { r.KeepWarm = n >= 600 })
		}
		time.Sleep(time.Minute)
		heldWarm(t, fleet, "t0600")
		heldWarm(t, fleet, "t1199")
		// A replica that is started later finds them too, and buys nothing.
		fleet.Add(t)
		time.Sleep(time.Minute)
		heldWarm(t, fleet, "t0600")
		heldWarm(t, fleet, "t1199")
		if got := fleet.Replicas[2].Entries(); got != 600 {
			t.Errorf("%d keys in memory", got)
		}
		bought := 0
		for n := range 1200 {
			bought += fleet.Issuer.Asked(fmt.Sprintf("client of t%04d", n))
		}
		if bought != 600 {
			t.Errorf("%d exchanges", bought)
		}
	})
}

func TestATenantIsKeptWarmFromTheMomentThatThisIsAskedFor(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		fleet := brokertest.NewFleet(t, 2)
		fleet.Register(t, "acme", nil)
		synctest.Wait() // The store in memory does not announce changes in their order.
		update(t, fleet, warm)
		time.Sleep(time.Second)
		heldWarm(t, fleet, "acme")
		time.Sleep(24 * time.Hour)
		heldWarm(t, fleet, "acme")
		if got := fleet.Issuer.Asked("client of acme"); got < 31 || got > 34 {
			t.Errorf("%d exchanges in a day", got)
		}
		update(t, fleet, func(r *tenant.Tenant) { r.KeepWarm = false })
		time.Sleep(2 * time.Hour)
		before := fleet.Issuer.Asked("client of acme")
		time.Sleep(24 * time.Hour)
		if got := fleet.Issuer.Asked("client of acme"); got != before {
			t.Errorf("%d exchanges in the day after", got-before)
		}
	})
}

func TestWarmTenantsAreFoundOnceTheStoreIsBack(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		fleet := brokertest.NewFleet(t, 1)
		fleet.Register(t, "acme", warm)
		time.Sleep(time.Minute)
		fleet.Store.SetAway(true)
		late := fleet.Add(t)
		time.Sleep(time.Hour)
		fleet.Store.SetAway(false)
		time.Sleep(time.Minute)
		if late.Entries() != 1 {
			t.Error("not found")
		}
		heldWarm(t, fleet, "acme")
	})
}

// blip is a store that does not answer the next look-ups of tenants.
type blip struct {
	*brokertest.Store
	fails atomic.Int32
}

func (s *blip) Tenant(ctx context.Context, id string) (*tenant.Tenant, error) {
	if s.fails.Add(-1) >= 0 {
		return nil, brokertest.ErrAway
	}
	return s.Store.Tenant(ctx, id)
}

func TestATenantIsKeptWarmThoughTheStoreBlinksWhenThisIsHeard(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		fleet := brokertest.NewFleet(t, 1)
		s := &blip{Store: fleet.Store}
		b := newReplica(t, fleet, s)
		fleet.Store.Listen(b)
		time.Sleep(time.Minute)
		s.fails.Store(1)
		fleet.Register(t, "acme", warm)
		time.Sleep(time.Minute)
		if b.Entries() != 1 {
			t.Error("not found")
		}
	})
}

func TestWarmthThatFailsIsNotTriedForEverAsIfSomebodyWaited(t *testing.T) {
	for name, change := range map[string]func(*brokertest.Issuer){
		"credentials rejected": func(i *brokertest.Issuer) { i.Answer = always(token.CredentialsRejected) },
		"malformed":            func(i *brokertest.Issuer) { i.Answer = always(token.Malformed) },
		"blocked":              func(i *brokertest.Issuer) { i.Answer = always(token.Blocked) },
		"tokens without life":  func(i *brokertest.Issuer) { i.Lifetime = -1 }, // Each of which is billed.
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				fleet := brokertest.NewFleet(t, 3)
				fleet.Issuer.Set(change)
				fleet.Register(t, "acme", warm)
				time.Sleep(24 * time.Hour)
				if got := fleet.Issuer.Asked("client of acme"); got < 24 || got > 160 {
					t.Errorf("%d exchanges in a day that nobody asked for", got)
				}
				fleet.Issuer.Set(func(i *brokertest.Issuer) { i.Answer, i.Lifetime = nil, 0 })
				time.Sleep(25 * time.Minute)
				heldWarm(t, fleet, "acme")
			})
		})
	}
}

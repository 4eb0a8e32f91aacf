package broker_test

import (
	"context"
	"errors"
	"testing"
	"testing/synctest"
	"time"

	"smokeball.internal/tokenbroker/internal/broker"
	"smokeball.internal/tokenbroker/internal/broker/brokertest"
	"smokeball.internal/tokenbroker/internal/tenant"
	"smokeball.internal/tokenbroker/internal/token"
)

// hooked is a store in which something happens before a call is answered, as it
// may between two commands.
type hooked struct {
	*brokertest.Store
	beforeLease func(k token.Key)
	beforeLoad  func(k token.Key)
	inRelease   func()
	afterLoad   func()
	tenantTook  time.Duration // from reading a tenant to the answer
}

func (h *hooked) Lease(ctx context.Context, k token.Key, owner string, ttl time.Duration) (bool, error) {
	if f := h.beforeLease; f != nil {
		h.beforeLease = nil
		f(k)
	}
	return h.Store.Lease(ctx, k, owner, ttl)
}

func (h *hooked) Load(ctx context.Context, k token.Key) (*token.Token, *token.Failure, error) {
	if f := h.beforeLoad; f != nil {
		h.beforeLoad = nil
		f(k)
	}
	if f := h.afterLoad; f != nil {
		h.afterLoad = nil
		defer f()
	}
	return h.Store.Load(ctx, k)
}

func (h *hooked) Release(ctx context.Context, k token.Key, owner string) error {
	if f := h.inRelease; f != nil {
		h.inRelease = nil
		f()
	}
	return h.Store.Release(ctx, k, owner)
}

// stored returns a token that another replica may have saved.
func stored(id string, issued time.Time) token.Token {
	return token.Token{ID: id, Issued: issued, Expires: issued.Add(time.Hour), RefreshAt: issued.Add(45 * time.Minute)}
}

func newHooked(t *testing.T) (*broker.Broker, *hooked, *brokertest.Fleet) {
	fleet := brokertest.NewFleet(t, 1)
	fleet.Register(t, "acme", nil)
	h := &hooked{Store: fleet.Store}
	b := newReplica(t, fleet, h)
	fleet.Store.Listen(b)
	return b, h, fleet
}

func TestATokenSavedJustBeforeTheLeaseIsTakenIsNotBoughtAgain(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b, h, fleet := newHooked(t)
		h.beforeLease = func(k token.Key) { h.Put(k, stored("another's", time.Now())) }
		if got := get(t, b, "acme"); got.ID != "another's" || fleet.Issuer.Asked("client of acme") != 0 {
			t.Errorf("token %q, %d exchanges", got.ID, fleet.Issuer.Asked("client of acme"))
		}
	})
}

func TestAForcedRefreshDoesNotJoinAFlightForJustAnyToken(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b, h, _ := newHooked(t)
		issued := time.Now()
		time.Sleep(2 * time.Minute)
		h.beforeLoad = func(k token.Key) {
			// While this flight looks for just any token, the replica is told of one ...
			h.Put(k, stored("rejected", issued))
			b.TokenChanged(k.Digest(), "rejected")
			time.Sleep(time.Second)
		}
		go func() { _, _ = b.Get(t.Context(), "acme", nil, 0) }()
		time.Sleep(100 * time.Millisecond)
		// ... which a caller has been rejected with.
		answer, err := b.Refresh(t.Context(), "acme", nil, "rejected")
		if err != nil || answer.Token.ID == "rejected" {
			t.Errorf("Refresh = %+v, %v", answer, err)
		}
		time.Sleep(time.Minute)
	})
}

func TestAnOlderTokenInTheStoreDoesNotReplaceTheOneInHand(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		fleet := brokertest.NewFleet(t, 1)
		fleet.Register(t, "acme", nil)
		synctest.Wait()
		b := fleet.Replicas[0]
		first := get(t, b, "acme")
		time.Sleep(2 * time.Minute)
		fleet.Store.SetAway(true) // So the second one cannot be saved.
		second, err := b.Refresh(t.Context(), "acme", nil, first.ID)
		if err != nil {
			t.Fatal(err)
		}
		fleet.Store.SetAway(false)
		b.TokenChanged(key(t, fleet, "acme").Digest(), first.ID)
		synctest.Wait()
		if got := get(t, b, "acme"); got.ID != second.Token.ID {
			t.Error("the older token is handed out")
		}
		time.Sleep(2 * time.Minute)
		third, err := b.Refresh(t.Context(), "acme", nil, second.Token.ID)
		if err != nil || third.Token.ID == first.ID || third.Token.ID == second.Token.ID {
			t.Errorf("the second one is replaced by %+v, %v", third, err)
		}
	})
}

// Tenant answers late with what was there when it was asked.
func (h *hooked) Tenant(ctx context.Context, id string) (*tenant.Tenant, error) {
	r, err := h.Store.Tenant(ctx, id)
	time.Sleep(h.tenantTook)
	return r, err
}

func TestWhatWasReadBeforeAChangeIsNotKept(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		fleet := brokertest.NewFleet(t, 1)
		fleet.Register(t, "acme", nil)
		synctest.Wait()
		h := &hooked{Store: fleet.Store, tenantTook: time.Second}
		b := newReplica(t, fleet, h)
		fleet.Store.Listen(b)
		go func() { _, _ = b.Get(t.Context(), "acme", nil, 0) }()
		time.Sleep(500 * time.Millisecond)
		disable(t, fleet, true)
		time.Sleep(time.Minute)
		if _, err := b.Get(t.Context(), "acme", nil, 0); !errors.Is(err, broker.ErrDisabled) {
			t.Errorf("Get = %v", err)
		}
	})
}

func TestAfterMissedChangesTenantsAreReadAgain(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		fleet := brokertest.NewFleet(t, 1)
		fleet.Register(t, "acme", nil)
		deaf := newReplica(t, fleet, fleet.Store)
		get(t, deaf, "acme")
		disable(t, fleet, true)
		// With the store away once more, what is in memory does.
		deaf.Resync()
		fleet.Store.SetAway(true)
		get(t, deaf, "acme")
		fleet.Store.SetAway(false)
		time.Sleep(2 * time.Second) // It does not ask again at once.
		if _, err := deaf.Get(t.Context(), "acme", nil, 0); !errors.Is(err, broker.ErrDisabled) {
			t.Errorf("Get = %v", err)
		}
	})
}

package broker_test

import (
	"context"
	"errors"
	"log/slog"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"smokeball.internal/tokenbroker/internal/broker"
	"smokeball.internal/tokenbroker/internal/broker/brokertest"
	"smokeball.internal/tokenbroker/internal/token"
)

var discard = slog.New(slog.DiscardHandler)

// newReplica returns a replica that has the fleet's store by way of s, and is told
// of nothing.
func newReplica(t *testing.T, fleet *brokertest.Fleet, s brokertest.Replica) *broker.Broker {
	b := broker.New(broker.Config{Issuer: fleet.Issuer, Store: s, Tenants: s, Logger: discard,
		ExchangeRate: fleet.ExchangeRate, MaxStaleness: fleet.MaxStaleness})
	t.Cleanup(b.Close)
	return b
}

// key returns the key of a tenant's registered scopes.
func key(t *testing.T, fleet *brokertest.Fleet, id string) token.Key {
	t.Helper()
	r, err := fleet.Store.Tenant(t.Context(), id)
	if err != nil {
		t.Fatal(err)
	}
	return token.Credential{Endpoint: fleet.Issuer.TokenEndpoint(r), ClientID: r.ClientID, SecretID: r.Secret.ID, Scopes: r.Scopes}.Key()
}

func TestWithoutTheStoreEachReplicaServesAndBuysOnce(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		fleet := brokertest.NewFleet(t, 3)
		fleet.Register(t, "known", nil)
		fleet.Register(t, "unknown", nil)
		synctest.Wait()
		for _, replica := range fleet.Replicas {
			get(t, replica, "known")
		}
		fleet.Store.SetAway(true)
		for range 120 {
			time.Sleep(time.Minute)
			for _, replica := range fleet.Replicas {
				get(t, replica, "known")
				if _, err := replica.Get(t.Context(), "unknown", nil, 0); !errors.Is(err, broker.ErrStore) {
					t.Fatalf("a tenant that was never looked up: %v", err)
				}
			}
		}
		// Two hours are three tokens at most, for each replica.
		if got := fleet.Issuer.Asked("client of known"); got > 1+3*3 {
			t.Errorf("%d exchanges", got)
		}
		fleet.Store.SetAway(false)
		for _, replica := range fleet.Replicas {
			get(t, replica, "unknown")
		}
		if got := fleet.Issuer.Asked("client of unknown"); got != 1 {
			t.Errorf("%d exchanges once the store was back", got)
		}
	})
}

func TestAReplicaThatDiesWithTheLeaseIsWaitedForAsLongAsTheLeaseOnly(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		fleet := brokertest.NewFleet(t, 1)
		fleet.Register(t, "acme", nil)
		const ttl = 14 * time.Second
		if acquired, err := fleet.Store.Lease(t.Context(), key(t, fleet, "acme"), "dead", ttl); !acquired || err != nil {
			t.Fatal(acquired, err)
		}
		before := time.Now()
		get(t, fleet.Replicas[0], "acme")
		if waited := time.Since(before); waited < ttl-time.Second || waited > ttl+time.Second {
			t.Errorf("waited %v", waited)
		}
	})
}

func TestATokenInTheStoreIsNotBoughtAgain(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		fleet := brokertest.NewFleet(t, 1)
		fleet.Register(t, "acme", nil)
		bought := get(t, fleet.Replicas[0], "acme")
		for range 10 { // As many restarts.
			if got := get(t, fleet.Add(t), "acme"); got.ID != bought.ID {
				t.Error("another token")
			}
		}
		if got := fleet.Issuer.Asked("client of acme"); got != 1 {
			t.Errorf("%d exchanges", got)
		}
	})
}

func TestAnExpiredTokenInTheStoreIsNotHandedOut(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		fleet := brokertest.NewFleet(t, 1)
		fleet.Register(t, "acme", nil)
		now := time.Now()
		fleet.Store.Put(key(t, fleet, "acme"), token.Token{ID: "old", Issued: now.Add(-time.Hour), Expires: now.Add(30 * time.Second)})
		if got := get(t, fleet.Replicas[0], "acme"); got.ID == "old" {
			t.Error("handed out half a minute before its end")
		}
	})
}

func TestRefreshNamesTheTokenItIsNotContentWith(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		fleet := brokertest.NewFleet(t, 2)
		fleet.Issuer.Took = time.Second
		fleet.Register(t, "acme", nil)
		a, b := fleet.Replicas[0], fleet.Replicas[1]
		first := get(t, a, "acme")
		get(t, b, "acme")
		refresh := func(replica *broker.Broker, rejected string) (*token.Token, error) {
			answer, err := replica.Refresh(t.Context(), "acme", nil, rejected)
			if err != nil {
				return nil, err
			}
			return answer.Token, nil
		}
		var callers sync.WaitGroup
		for range 100 { // All of them were rejected with the same token.
			for _, replica := range fleet.Replicas {
				callers.Go(func() {
					if tok, err := refresh(replica, first.ID); err != nil || tok.ID == first.ID {
						t.Errorf("Refresh = %v, %v", tok, err)
					}
				})
			}
		}
		callers.Wait()
		if got := fleet.Issuer.Asked("client of acme"); got != 2 {
			t.Errorf("%d exchanges, want one more", got)
		}
		second := get(t, a, "acme")
		for _, replica := range fleet.Replicas {
			// If the new one is rejected too, another will not help.
			var tooSoon *broker.TooSoonError
			if _, err := refresh(replica, second.ID); !errors.As(err, &tooSoon) || tooSoon.After > time.Minute {
				t.Errorf("right after the refresh: %v", err)
			}
		}
		if get(t, b, "acme").ID != second.ID {
			t.Error("the replicas do not agree")
		}
		time.Sleep(2 * time.Minute)
		if tok, err := refresh(b, first.ID); err != nil || tok.ID != second.ID || fleet.Issuer.Asked("client of acme") != 2 {
			t.Errorf("the token rejected was replaced already: %v, %v", tok, err)
		}
		if tok, err := refresh(b, ""); err != nil || tok.ID == second.ID {
			t.Errorf("whichever is held: %v, %v", tok, err)
		}
		// A caller who is rejected for another reason does not drain the account.
		before := fleet.Issuer.Asked("client of acme")
		for range 600 {
			_, _ = refresh(a, get(t, a, "acme").ID)
			time.Sleep(time.Second)
		}
		if got := fleet.Issuer.Asked("client of acme") - before; got > 10 {
			t.Errorf("%d exchanges in ten minutes", got)
		}
	})
}

func TestAForcedRefreshIsNotAnsweredByAnUnforcedOne(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		fleet := brokertest.NewFleet(t, 2)
		fleet.Register(t, "acme", nil)
		old := get(t, fleet.Replicas[0], "acme")
		time.Sleep(2 * time.Minute)
		// The second replica holds nothing, and finds the rejected token in the store.
		answer, err := fleet.Replicas[1].Refresh(t.Context(), "acme", nil, old.ID)
		if err != nil || answer.Token.ID == old.ID {
			t.Errorf("Refresh = %+v, %v", answer, err)
		}
	})
}

func TestAfterALossOfTheStoreTheFleetBuysOnce(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		fleet := brokertest.NewFleet(t, 3)
		fleet.Register(t, "acme", nil)
		get(t, fleet.Replicas[0], "acme")
		fleet.Store.Clear()
		get(t, fleet.Replicas[1], "acme")
		get(t, fleet.Replicas[2], "acme")
		if got := fleet.Issuer.Asked("client of acme"); got != 2 {
			t.Errorf("%d exchanges", got)
		}
	})
}

func TestCloseEndsWhatIsUnderWayAndWaits(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		fleet := brokertest.NewFleet(t, 1)
		fleet.Issuer.Took = 5 * time.Second
		fleet.Register(t, "acme", nil)
		b := fleet.Replicas[0]
		var caller sync.WaitGroup
		caller.Go(func() {
			if _, err := b.Get(t.Context(), "acme", nil, 0); !errors.Is(err, broker.ErrClosed) {
				t.Errorf("Get = %v", err)
			}
		})
		time.Sleep(time.Second)
		b.Close()
		caller.Wait()
		if _, err := b.Get(context.Background(), "acme", nil, 0); !errors.Is(err, broker.ErrClosed) {
			t.Errorf("Get after Close = %v", err)
		}
		// The lease was given back, and another replica need not wait for its end.
		before := time.Now()
		get(t, fleet.Add(t), "acme")
		if waited := time.Since(before); waited > 6*time.Second {
			t.Errorf("waited %v", waited)
		}
	})
}

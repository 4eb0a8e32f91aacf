package broker_test

import (
	"context"
	"fmt"
	"log/slog"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"smokeball.internal/tokenbroker/internal/broker"
	"smokeball.internal/tokenbroker/internal/broker/brokertest"
	"smokeball.internal/tokenbroker/internal/token"
)

// admitting is a store that counts the turns it gives.
type admitting struct {
	*brokertest.Store
	given   atomic.Int64
	inAdmit func()
}

func (s *admitting) Admit(ctx context.Context, endpoint string, r token.TurnRequest) (token.Turn, error) {
	t, err := s.Store.Admit(ctx, endpoint, r)
	if t.Given {
		s.given.Add(1)
	}
	if f := s.inAdmit; f != nil {
		s.inAdmit = nil
		f()
	}
	return t, err
}

func newAdmitting(t *testing.T, rate float64) (*broker.Broker, *admitting, *brokertest.Fleet) {
	fleet := brokertest.NewFleet(t, 1)
	s := &admitting{Store: fleet.Store}
	fleet.ExchangeRate = rate
	return newReplica(t, fleet, s), s, fleet
}

// exhaust takes all turns that are given to somebody with that much patience.
func exhaust(t *testing.T, s *brokertest.Store, endpoint string, patience time.Duration) {
	for {
		turn, err := s.Admit(t.Context(), endpoint, token.TurnRequest{Cost: time.Second, Burst: 2, Patience: patience})
		if err != nil {
			t.Fatal(err)
		}
		if !turn.Given {
			return
		}
	}
}

func TestWhoComesWhileATurnIsAskedForWithoutPatienceGetsOneAllTheSame(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b, s, fleet := newAdmitting(t, 1)
		fleet.Register(t, "acme", nil)
		k := key(t, fleet, "acme")
		s.Put(k, stored("due", time.Now().Add(-46*time.Minute)))
		exhaust(t, s.Store, k.Endpoint, time.Second)
		joined := make(chan error)
		s.inAdmit = func() {
			go func() {
				_, err := b.Get(t.Context(), "acme", nil, 30*time.Minute)
				joined <- err
			}()
			time.Sleep(10 * time.Millisecond)
		}
		get(t, b, "acme")
		get(t, b, "acme") // Starts the flight.
		if err := <-joined; err != nil {
			t.Errorf("Get = %v", err)
		}
	})
}

// Another replica took the lease, waited for its turn as long as anybody does, and
// died; and others are as urgent. It may take long, but it goes on.
func TestAWarmTenantIsKeptWarmThoughItWaitsForLeaseAndTurn(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		fleet := &brokertest.Fleet{Store: &brokertest.Store{}, Issuer: &brokertest.Issuer{}, ExchangeRate: 1}
		fleet.Deaf(t)
		fleet.Register(t, "acme", warm)
		k := key(t, fleet, "acme")
		now := time.Now()
		fleet.Store.Put(k, token.Token{ID: "t", Issued: now.Add(-19 * time.Minute), Expires: now.Add(5 * time.Minute), RefreshAt: now.Add(-6 * time.Minute)})
		h := &hooked{Store: fleet.Store}
		h.beforeLease = func(k token.Key) { _, _ = fleet.Store.Lease(t.Context(), k, "dying", 35*time.Second) }
		b := newReplica(t, fleet, h)
		fleet.Store.Listen(b)
		for end := now.Add(90 * time.Second); time.Now().Before(end); time.Sleep(100 * time.Millisecond) {
			exhaust(t, fleet.Store, k.Endpoint, 19*time.Second)
		}
		time.Sleep(24 * time.Hour)
		if got := fleet.Issuer.Asked("client of acme"); got < 30 {
			t.Errorf("%d exchanges in a day", got)
		}
	})
}

func TestNoTurnIsTakenForAnIssuerThatIsGivenARest(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b, s, fleet := newAdmitting(t, 10)
		for n := range 300 {
			fleet.Register(t, fmt.Sprint("t", n), nil)
		}
		fleet.Issuer.Set(func(i *brokertest.Issuer) { i.Took = time.Minute }) // It hangs.
		var callers sync.WaitGroup
		for n := range 300 {
			callers.Go(func() { persist(t, b, fmt.Sprint("t", n)) })
		}
		time.Sleep(5 * time.Minute)
		tried := 0
		for n := range 300 {
			tried += fleet.Issuer.Asked(fmt.Sprint("client of t", n))
		}
		t.Logf("an issuer that hangs for 5 minutes: %d turns for %d exchanges", s.given.Load(), tried)
		if int(s.given.Load()) > 2*tried {
			t.Errorf("%d turns for %d exchanges", s.given.Load(), tried)
		}
		fleet.Issuer.Set(func(i *brokertest.Issuer) { i.Took = 0 })
		callers.Wait()
	})
}

// loud counts the records that operators see.
type loud struct {
	slog.Handler
	count *atomic.Int64
}

func (l loud) Handle(_ context.Context, r slog.Record) error {
	if r.Level >= slog.LevelWarn {
		l.count.Add(1)
	}
	return nil
}

func (l loud) Enabled(context.Context, slog.Level) bool { return true }

func TestAStoreThatIsAwayIsNotLoggedForEachTenant(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var count atomic.Int64
		fleet := &brokertest.Fleet{Store: &brokertest.Store{}, Issuer: &brokertest.Issuer{Lifetime: 10 * time.Minute},
			Logger: slog.New(loud{slog.DiscardHandler, &count})}
		b := fleet.Add(t)
		const tenants = 500
		for n := range tenants {
			fleet.Register(t, fmt.Sprint("t", n), nil)
		}
		synctest.Wait()
		for n := range tenants {
			get(t, b, fmt.Sprint("t", n))
		}
		time.Sleep(time.Hour)
		fleet.Store.SetAway(true)
		for n := range tenants { // Each is bought, and not saved.
			get(t, b, fmt.Sprint("t", n))
			time.Sleep(100 * time.Millisecond)
		}
		if got := count.Load(); got < 1 || got > 10 {
			t.Errorf("%d records in 50 seconds", got)
		}
	})
}

func TestAWarmCrowdAsksTheStoreLessAndLess(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		const tenants = 4000 // For which the budget needs seven minutes.
		fleet := &brokertest.Fleet{Store: &brokertest.Store{}, Issuer: &brokertest.Issuer{Lifetime: 24 * time.Hour}, Logger: discard, ExchangeRate: 10}
		fleet.Deaf(t)
		for n := range tenants {
			fleet.Register(t, fmt.Sprintf("t%04d", n), warm)
		}
		fleet.Add(t)
		time.Sleep(4 * time.Minute)
		before := fleet.Store.Calls()
		time.Sleep(time.Minute)
		if got := (fleet.Store.Calls() - before) / 60; got > 400 {
			t.Errorf("the store is asked %d times a second after 4 minutes", got)
		}
		time.Sleep(10 * time.Minute)
		bought := 0
		for n := range tenants {
			bought += fleet.Issuer.Asked(fmt.Sprintf("client of t%04d", n))
		}
		if bought != tenants {
			t.Errorf("%d exchanges in a quarter of an hour", bought)
		}
	})
}

package broker_test

import (
	"errors"
	"fmt"
	"slices"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"smokeball.internal/tokenbroker/internal/broker"
	"smokeball.internal/tokenbroker/internal/broker/brokertest"
	"smokeball.internal/tokenbroker/internal/tenant"
	"smokeball.internal/tokenbroker/internal/token"
)

// ledger notes when exchanges are made.
type ledger struct {
	mu    sync.Mutex
	times []time.Time
}

func (l *ledger) note(token.Credential) *token.Failure {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.times = append(l.times, time.Now())
	return nil
}

// most returns the largest number of exchanges within a span of time.
func (l *ledger) most(within time.Duration) int {
	l.mu.Lock()
	defer l.mu.Unlock()
	slices.SortFunc(l.times, time.Time.Compare)
	most, first := 0, 0
	for last := range l.times {
		for l.times[last].Sub(l.times[first]) >= within {
			first++
		}
		most = max(most, last-first+1)
	}
	return most
}

// persist asks until there is a token, as a caller does who comes back when told.
func persist(t *testing.T, b *broker.Broker, id string) {
	for {
		_, err := b.Get(t.Context(), id, nil, 0)
		var f *token.Failure
		switch {
		case err == nil:
			return
		case !errors.As(err, &f) || f.Class.Permanent() || !f.Holds(time.Now()):
			t.Errorf("%s: %v", id, err)
			return
		}
		time.Sleep(time.Until(f.RetryAt))
	}
}

// storm has each replica asked for all tenants at once, until all have theirs.
func storm(t *testing.T, tenants int, replicas ...*broker.Broker) {
	var callers sync.WaitGroup
	for n := range tenants {
		for _, replica := range replicas {
			callers.Go(func() { persist(t, replica, fmt.Sprint("t", n)) })
		}
	}
	callers.Wait()
}

func TestAColdFleetKeepsToItsBudget(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		const tenants, rate = 2000, 10
		fleet := &brokertest.Fleet{Store: &brokertest.Store{}, Issuer: &brokertest.Issuer{Took: 200 * time.Millisecond}, Logger: discard, ExchangeRate: rate}
		for range 3 {
			fleet.Add(t)
		}
		for n := range tenants {
			fleet.Register(t, fmt.Sprint("t", n), nil)
		}
		synctest.Wait()
		exchanges := &ledger{}
		fleet.Issuer.Answer = exchanges.note
		begun, asked := time.Now(), fleet.Store.Calls()
		storm(t, tenants, fleet.Replicas...)
		took := time.Since(begun)
		const burst = 2 * rate
		ideal := time.Second * (tenants - burst) / rate
		t.Logf("%d cold tenants on 3 replicas: %d exchanges, all warm after %v (the budget alone takes %v); %d exchanges in the busiest second, %d in the busiest 10 s; the store was asked %d times a second",
			tenants, len(exchanges.times), took, ideal, exchanges.most(time.Second), exchanges.most(10*time.Second),
			(fleet.Store.Calls()-asked)/int(took.Seconds()))
		if len(exchanges.times) != tenants {
			t.Errorf("%d exchanges", len(exchanges.times))
		}
		if got := exchanges.most(10 * time.Second); got > burst+10*rate+1 {
			t.Errorf("%d exchanges within 10 s", got)
		}
		if took > ideal*12/10 {
			t.Errorf("took %v: the budget was not used", took)
		}
		// Some six commands each time that a caller comes back, every ten seconds or so.
		if got := (fleet.Store.Calls() - asked) / int(took.Seconds()); got > 3*tenants {
			t.Errorf("the store was asked %d times a second", got)
		}
	})
}

func TestRefreshesAheadLeaveTheBudgetToThoseWhoWait(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		const due, cold = 200, 1500
		fleet := &brokertest.Fleet{Store: &brokertest.Store{}, Issuer: &brokertest.Issuer{}, Logger: discard, ExchangeRate: 1}
		b := fleet.Add(t)
		for n := range due {
			fleet.Register(t, fmt.Sprint("warm", n), nil)
		}
		for n := range cold {
			fleet.Register(t, fmt.Sprint("cold", n), nil)
		}
		synctest.Wait()
		// Tokens that are all due at once, and have some minutes left.
		now := time.Now()
		for n := range due {
			fleet.Store.Put(key(t, fleet, fmt.Sprint("warm", n)), token.Token{ID: fmt.Sprint("old", n),
				Issued: now, Expires: now.Add(20 * time.Minute), RefreshAt: now.Add(time.Minute)})
			get(t, b, fmt.Sprint("warm", n))
			get(t, b, fmt.Sprint("warm", n))
		}
		time.Sleep(2 * time.Minute)
		before := time.Now()
		persist(t, b, "cold0")
		if waited := time.Since(before); waited != 0 {
			t.Errorf("a caller waited %v while refreshes ahead were due", waited)
		}
		// From now on more callers wait than there are turns for, and yet nobody has to
		// wait for a tenant that is in use.
		callers, end := sync.WaitGroup{}, now.Add(25*time.Minute)
		for n := range cold {
			callers.Go(func() { persist(t, b, fmt.Sprint("cold", n)) })
		}
		for ; time.Now().Before(end); time.Sleep(10 * time.Second) {
			for n := range due {
				before := time.Now()
				if get(t, b, fmt.Sprint("warm", n)); time.Since(before) != 0 {
					t.Fatalf("warm%d waited %v", n, time.Since(before))
				}
			}
		}
		callers.Wait()
		if got := fleet.Issuer.Asked("client of warm199"); got != 1 {
			t.Errorf("%d exchanges for a token that was due", got)
		}
	})
}

func TestWithoutTheStoreAReplicaKeepsToItsShareOfTheBudget(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		const rate = 10
		fleet := &brokertest.Fleet{Store: &brokertest.Store{}, Issuer: &brokertest.Issuer{}, Logger: discard, ExchangeRate: rate}
		for range 3 {
			fleet.Add(t)
		}
		for n := range 600 {
			fleet.Register(t, fmt.Sprint("t", n), nil)
		}
		synctest.Wait()
		// Each replica knows the tenants, and that there are three replicas, but has no
		// token left.
		fleet.Issuer.Set(func(i *brokertest.Issuer) { i.Lifetime = 5 * time.Minute })
		storm(t, 600, fleet.Replicas...)
		time.Sleep(time.Hour)
		exchanges := &ledger{}
		fleet.Issuer.Set(func(i *brokertest.Issuer) { i.Lifetime, i.Answer = time.Hour, exchanges.note })
		fleet.Store.SetAway(true)
		storm(t, 600, fleet.Replicas...)
		if got := exchanges.most(10 * time.Second); got > 15*rate+3 {
			t.Errorf("%d exchanges within 10 s by three replicas", got)
		}
		if len(exchanges.times) != 3*600 {
			t.Errorf("%d exchanges", len(exchanges.times))
		}
	})
}

func TestAnIssuerThatFailsForManyIsGivenARest(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		fleet := brokertest.NewFleet(t, 1)
		b := fleet.Replicas[0]
		for n := range 200 {
			fleet.Register(t, fmt.Sprint("t", n), nil)
		}
		fleet.Register(t, "elsewhere", func(r *tenant.Tenant) { r.Region = tenant.AU })
		exchanges := &ledger{}
		fleet.Issuer.Answer = func(c token.Credential) *token.Failure {
			if strings.Contains(c.Endpoint, "au") {
				return nil
			}
			_ = exchanges.note(c)
			return &token.Failure{Class: token.Unavailable, Message: "as the test wants it"}
		}
		before := fleet.Store.Calls()
		for range 600 {
			for n := range 200 {
				failure(t, b, fmt.Sprint("t", n))
			}
			time.Sleep(100 * time.Millisecond)
		}
		get(t, b, "elsewhere")
		asked := fleet.Store.Calls() - before
		t.Logf("200 tenants whose issuer is down for a minute: %d exchanges tried, at most %d in a second; the store was asked %d times",
			len(exchanges.times), exchanges.most(time.Second), asked)
		if asked > 200*60/5 {
			t.Errorf("the store was asked %d times", asked)
		}
		if got := len(exchanges.times); got > 10+60/5+1 {
			t.Errorf("%d exchanges in a minute", got)
		}
		fleet.Issuer.Set(func(i *brokertest.Issuer) { i.Answer = nil })
		back := time.Now()
		storm(t, 200, b)
		if took := time.Since(back); took > 40*time.Second {
			t.Errorf("all are served %v after the issuer is back", took)
		}
	})
}

func TestATenantThatFailsSpeaksForNoOther(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		fleet := brokertest.NewFleet(t, 1)
		fleet.Register(t, "broken", nil)
		fleet.Register(t, "good", nil)
		fleet.Issuer.Answer = func(c token.Credential) *token.Failure {
			if c.ClientID == "client of broken" {
				return &token.Failure{Class: token.Malformed, Message: "as the test wants it"}
			}
			return nil
		}
		for n := range 16 { // As many sets of scopes as it may have, each with a failure of its own.
			_, _ = fleet.Replicas[0].Get(t.Context(), "broken", []string{fmt.Sprint("scope", n)}, 0)
		}
		get(t, fleet.Replicas[0], "good")
	})
}

func TestAPanicDoesNotLeaveAnIssuerAtRestForEver(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		fleet := brokertest.NewFleet(t, 1)
		for n := range 10 {
			fleet.Register(t, fmt.Sprint("t", n), nil)
		}
		fleet.Issuer.Answer = always(token.Unavailable) // Until it is given a rest.
		ask := func() {
			for n := range 10 {
				_, _ = fleet.Replicas[0].Get(t.Context(), fmt.Sprint("t", n), nil, 0)
			}
		}
		ask()
		fleet.Issuer.Set(func(i *brokertest.Issuer) {
			i.Answer = func(token.Credential) *token.Failure { panic("at the issuer's") }
		})
		for range 100 {
			time.Sleep(time.Second)
			ask()
		}
		fleet.Issuer.Set(func(i *brokertest.Issuer) { i.Answer = nil })
		time.Sleep(30 * time.Second)
		get(t, fleet.Replicas[0], "t0")
	})
}

// A flight that nobody waits for may have been put off already when somebody comes
// to wait for it.
func TestWhoJoinsAFlightThatWasPutOffGetsATokenAllTheSame(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		fleet := brokertest.NewFleet(t, 1)
		fleet.Register(t, "acme", nil)
		h := &hooked{Store: fleet.Store}
		fleet.ExchangeRate = 1
		b := newReplica(t, fleet, h)
		k := key(t, fleet, "acme")
		h.Put(k, stored("due", time.Now().Add(-46*time.Minute)))
		// So much of the budget is used that there is a turn for those who wait only.
		used := token.TurnRequest{Cost: time.Second, Burst: 5, Patience: time.Second}
		for range 5 {
			if _, err := h.Admit(t.Context(), k.Endpoint, used); err != nil {
				t.Fatal(err)
			}
		}
		joined := make(chan error)
		h.inRelease = func() {
			go func() {
				_, err := b.Get(t.Context(), "acme", nil, 30*time.Minute)
				joined <- err
			}()
			time.Sleep(time.Second)
		}
		get(t, b, "acme")
		get(t, b, "acme") // Starts the flight.
		if err := <-joined; err != nil {
			t.Errorf("Get = %v", err)
		}
	})
}

func TestARefreshCostsTheStoreLittleHoweverManyReplicasThereAre(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		fleet := brokertest.NewFleet(t, 10)
		fleet.Issuer.Took = time.Second
		fleet.Register(t, "acme", nil)
		synctest.Wait()
		ask := func() {
			for _, replica := range fleet.Replicas {
				get(t, replica, "acme")
			}
		}
		ask()
		before, bought := fleet.Store.Calls(), fleet.Issuer.Asked("client of acme")
		for range 24 * 60 {
			time.Sleep(time.Minute)
			ask()
		}
		refreshes := fleet.Issuer.Asked("client of acme") - bought
		calls := float64(fleet.Store.Calls()-before) / float64(refreshes)
		t.Logf("%d refreshes, the store was asked %.1f times for each", refreshes, calls)
		// One replica looks, takes the lease, looks again, takes its turn, saves and
		// releases; nine are told and take what was saved.
		if calls > 20 {
			t.Errorf("the store was asked %.1f times for each refresh", calls)
		}
	})
}

func TestTheLeaseIsHeldWhileATurnIsWaitedFor(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		fleet := &brokertest.Fleet{Store: &brokertest.Store{}, Issuer: &brokertest.Issuer{Took: 9 * time.Second}, ExchangeRate: 1}
		for range 2 {
			fleet.Add(t)
		}
		fleet.Register(t, "acme", nil)
		synctest.Wait()
		k := key(t, fleet, "acme")
		for range 11 { // The next turn is in nine seconds and a half.
			if _, err := fleet.Store.Admit(t.Context(), k.Endpoint, token.TurnRequest{Cost: time.Second, Burst: 5, Patience: 30 * time.Second}); err != nil {
				t.Fatal(err)
			}
		}
		time.Sleep(500 * time.Millisecond)
		var callers sync.WaitGroup
		for _, replica := range fleet.Replicas {
			callers.Go(func() { get(t, replica, "acme") })
		}
		callers.Wait()
		if got := fleet.Issuer.Asked("client of acme"); got != 1 {
			t.Errorf("%d exchanges", got)
		}
	})
}

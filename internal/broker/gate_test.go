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
		begun := time.Now()
		var callers sync.WaitGroup
		for n := range tenants {
			for _, replica := range fleet.Replicas {
				callers.Go(func() { persist(t, replica, fmt.Sprint("t", n)) })
			}
		}
		callers.Wait()
		took := time.Since(begun)
		const burst = 5 * rate
		ideal := time.Second * (tenants - burst) / rate
		t.Logf("%d cold tenants on 3 replicas: %d exchanges, all warm after %v (the budget alone takes %v); %d exchanges in the busiest second, %d in the busiest 10 s",
			tenants, len(exchanges.times), took, ideal, exchanges.most(time.Second), exchanges.most(10*time.Second))
		if len(exchanges.times) != tenants {
			t.Errorf("%d exchanges", len(exchanges.times))
		}
		if got := exchanges.most(10 * time.Second); got > burst+10*rate+1 {
			t.Errorf("%d exchanges within 10 s", got)
		}
		if took > ideal*12/10 {
			t.Errorf("took %v: the budget was not used", took)
		}
	})
}

func TestRefreshesAheadLeaveTheBudgetToThoseWhoWait(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		fleet := &brokertest.Fleet{Store: &brokertest.Store{}, Issuer: &brokertest.Issuer{}, Logger: discard, ExchangeRate: 1}
		b := fleet.Add(t)
		for n := range 100 {
			fleet.Register(t, fmt.Sprint("warm", n), nil)
			fleet.Register(t, fmt.Sprint("cold", n), nil)
		}
		synctest.Wait()
		// A hundred tokens that are all due at once, and have some minutes left.
		now := time.Now()
		for n := range 100 {
			fleet.Store.Put(key(t, fleet, fmt.Sprint("warm", n)), token.Token{ID: fmt.Sprint("old", n),
				Issued: now, Expires: now.Add(20 * time.Minute), RefreshAt: now.Add(time.Minute)})
			get(t, b, fmt.Sprint("warm", n))
			get(t, b, fmt.Sprint("warm", n))
		}
		time.Sleep(2 * time.Minute)
		var waits []time.Duration
		for n := range 5 {
			before := time.Now()
			persist(t, b, fmt.Sprint("cold", n))
			waits = append(waits, time.Since(before))
		}
		if slices.Max(waits) > 0 {
			t.Errorf("callers waited %v while refreshes ahead were due", waits)
		}
		// Those that are near their end by now go first too, so nobody waits for them.
		for end := now.Add(19 * time.Minute); time.Now().Before(end); time.Sleep(10 * time.Second) {
			for n := range 100 {
				before := time.Now()
				if get(t, b, fmt.Sprint("warm", n)); time.Since(before) != 0 {
					t.Fatalf("warm%d waited %v", n, time.Since(before))
				}
			}
		}
		if got := fleet.Issuer.Asked("client of warm99"); got != 1 {
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
		var callers sync.WaitGroup
		for n := range 600 {
			for _, replica := range fleet.Replicas {
				callers.Go(func() { persist(t, replica, fmt.Sprint("t", n)) })
			}
		}
		callers.Wait()
		time.Sleep(time.Hour)
		exchanges := &ledger{}
		fleet.Issuer.Set(func(i *brokertest.Issuer) { i.Lifetime, i.Answer = time.Hour, exchanges.note })
		fleet.Store.SetAway(true)
		for n := range 600 {
			for _, replica := range fleet.Replicas {
				callers.Go(func() { persist(t, replica, fmt.Sprint("t", n)) })
			}
		}
		callers.Wait()
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
		for range 600 {
			for n := range 200 {
				failure(t, b, fmt.Sprint("t", n))
			}
			time.Sleep(100 * time.Millisecond)
		}
		get(t, b, "elsewhere")
		t.Logf("200 tenants whose issuer is down for a minute: %d exchanges tried, at most %d in a second", len(exchanges.times), exchanges.most(time.Second))
		if got := len(exchanges.times); got > 5+60/5+1 {
			t.Errorf("%d exchanges in a minute", got)
		}
		fleet.Issuer.Set(func(i *brokertest.Issuer) { i.Answer = nil })
		back := time.Now()
		var callers sync.WaitGroup
		for n := range 200 {
			callers.Go(func() { persist(t, b, fmt.Sprint("t", n)) })
		}
		callers.Wait()
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
		for n := range 100 { // As many scopes, each with a failure of its own.
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
		fleet.Issuer.Answer = func(token.Credential) *token.Failure { panic("at the issuer's") }
		for range 100 {
			for n := range 10 {
				_, _ = fleet.Replicas[0].Get(t.Context(), fmt.Sprint("t", n), nil, 0)
			}
			time.Sleep(time.Second)
		}
		fleet.Issuer.Set(func(i *brokertest.Issuer) { i.Answer = nil })
		time.Sleep(30 * time.Second)
		get(t, fleet.Replicas[0], "t0")
	})
}

package broker_test

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"testing"
	"testing/synctest"
	"time"

	"smokeball.internal/tokenbroker/internal/broker"
	"smokeball.internal/tokenbroker/internal/broker/brokertest"
	"smokeball.internal/tokenbroker/internal/token"
)

// faltering is a store of which some turns that are asked for are not heard of.
type faltering struct {
	*brokertest.Store
	unheard func() (asked, answered bool)
}

func (s *faltering) Admit(ctx context.Context, endpoint string, r token.TurnRequest) (turn token.Turn, err error) {
	asked, answered := s.unheard()
	if asked {
		turn, err = s.Store.Admit(ctx, endpoint, r)
	}
	if !answered {
		<-ctx.Done()
		return token.Turn{}, errors.Join(broker.ErrStore, ctx.Err())
	}
	return turn, err
}

func TestAReplicaThatHearsTheStoreNowAndThenKeepsToTheBudget(t *testing.T) {
	const tenants, rate = 800, 10
	for name, unheard := range map[string]func() (asked, answered bool){
		"half of the questions are lost": func() (bool, bool) { heard := rand.N(2) == 0; return heard, heard },
		"half of the answers are lost":   func() (bool, bool) { return true, rand.N(2) == 0 },
		"it hangs now and then": func() (bool, bool) {
			heard := time.Now().Second()%20 < 10
			return heard, heard
		},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				fleet := &brokertest.Fleet{Store: &brokertest.Store{}, Issuer: &brokertest.Issuer{}, Logger: discard, ExchangeRate: rate}
				fleet.Deaf(t) // By which tenants are registered.
				for n := range tenants {
					fleet.Register(t, fmt.Sprint("t", n), nil)
				}
				exchanges := &ledger{}
				fleet.Issuer.Answer = exchanges.note
				b := newReplica(t, fleet, &faltering{fleet.Store, unheard})
				fleet.Store.Listen(b)
				begun := time.Now()
				storm(t, tenants, b)
				took := time.Since(begun)
				const burst = 2 * rate
				ideal := time.Second * (tenants - burst) / rate
				t.Logf("%d exchanges in %v (the budget alone takes %v), %d in the busiest 10 s", len(exchanges.times), took, ideal, exchanges.most(10*time.Second))
				if got := exchanges.most(10 * time.Second); got > burst+10*rate+1 {
					t.Errorf("%d exchanges within 10 s", got)
				}
				if len(exchanges.times) != tenants {
					t.Errorf("%d exchanges", len(exchanges.times))
				}
			})
		})
	}
}

// What the store gives when it is back comes behind what replicas have taken without it.
func TestAStoreThatComesBackInAStormDoesNotGiveTheBudgetOnceMore(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		const tenants, rate = 800, 10
		fleet := &brokertest.Fleet{Store: &brokertest.Store{}, Issuer: &brokertest.Issuer{}, Logger: discard, ExchangeRate: rate}
		fleet.Deaf(t) // By which tenants are registered.
		begun := time.Now()
		there := func() (bool, bool) {
			now := time.Since(begun)/(15*time.Second)%2 == 0
			return now, now
		}
		replicas := make([]*broker.Broker, 3)
		for n := range replicas {
			replicas[n] = newReplica(t, fleet, &faltering{fleet.Store, there})
			fleet.Store.Listen(replicas[n])
		}
		for n := range tenants {
			fleet.Register(t, fmt.Sprint("t", n), nil)
		}
		synctest.Wait()
		exchanges := &ledger{}
		fleet.Issuer.Answer = exchanges.note
		storm(t, tenants, replicas...)
		t.Logf("%d exchanges in %v, %d in the busiest 10 s", len(exchanges.times), time.Since(begun), exchanges.most(10*time.Second))
		// Each replica has some turns in a moment when it knows of its own only.
		if got := exchanges.most(10 * time.Second); got > (2*rate+10*rate)*5/4 {
			t.Errorf("%d exchanges within 10 s", got)
		}
	})
}

func TestATurnThatWasTakenWithoutTheStoreHoldsNobodyUpForLong(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		const replicas = 12
		fleet := &brokertest.Fleet{Store: &brokertest.Store{}, Issuer: &brokertest.Issuer{}, Logger: discard, ExchangeRate: 1}
		for range replicas - 1 {
			fleet.Add(t)
		}
		lost := false
		b := newReplica(t, fleet, &faltering{fleet.Store, func() (bool, bool) { return !lost, !lost }})
		fleet.Store.Listen(b)
		for n := range 4 {
			fleet.Register(t, fmt.Sprint("t", n), nil)
		}
		get(t, b, "t0") // It hears how many share the budget.
		time.Sleep(time.Minute)
		lost = true
		get(t, b, "t1")
		lost = false
		before := time.Now()
		_, err := b.Get(t.Context(), "t2", nil, 0)
		if waited := time.Since(before); waited > 10*time.Second {
			t.Errorf("waited %v, and %v", waited, err)
		}
		// That has paid it back.
		before = time.Now()
		get(t, b, "t3")
		if waited := time.Since(before); waited > time.Second {
			t.Errorf("the next waited %v", waited)
		}
		persist(t, b, "t2")
		if waited := time.Since(before); waited > 30*time.Second {
			t.Errorf("it took %v until it had its token", waited)
		}
	})
}

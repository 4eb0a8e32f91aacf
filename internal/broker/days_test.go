package broker_test

import (
	"errors"
	"fmt"
	"slices"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"smokeball.internal/tokenbroker/internal/broker"
	"smokeball.internal/tokenbroker/internal/broker/brokertest"
	"smokeball.internal/tokenbroker/internal/token"
)

// day is 24 hours of a fleet of ten with a thousand tenants, whose tokens live an
// hour.
type day struct {
	*brokertest.Fleet
	begun time.Time

	mu     sync.Mutex
	bought map[string][]time.Duration // :: client id → when exchanges were made
}

const dayTenants = 1000

func newDay(t *testing.T) *day {
	d := &day{
		Fleet: &brokertest.Fleet{Store: &brokertest.Store{}, Issuer: &brokertest.Issuer{Took: 300 * time.Millisecond}, Logger: discard, ExchangeRate: 10},
		begun: time.Now(), bought: map[string][]time.Duration{},
	}
	d.Issuer.Answer = func(c token.Credential) *token.Failure {
		d.mu.Lock()
		defer d.mu.Unlock()
		d.bought[c.ClientID] = append(d.bought[c.ClientID], time.Since(d.begun))
		return nil
	}
	for range 10 {
		d.Add(t)
	}
	for n := range dayTenants {
		d.Register(t, tenantName(n), nil)
	}
	synctest.Wait()
	return d
}

func tenantName(n int) string { return fmt.Sprintf("t%03d", n) }

// warmUp asks for each tenant on each replica until there is a token, as callers
// do who come back when they are told to.
func (d *day) warmUp(t *testing.T, replicas []*broker.Broker) {
	var callers sync.WaitGroup
	for n := range dayTenants {
		for _, replica := range replicas {
			callers.Go(func() {
				for {
					_, err := replica.Get(t.Context(), tenantName(n), nil, 0)
					var f *token.Failure
					if err == nil {
						return
					}
					if !errors.As(err, &f) || f.Class != token.Throttled {
						t.Errorf("%s: %v", tenantName(n), err)
						return
					}
					time.Sleep(time.Until(f.RetryAt))
				}
			})
		}
	}
	callers.Wait()
}

// busiest returns the largest number of exchanges within 10 seconds, after since.
func (d *day) busiest(since time.Duration) int {
	d.mu.Lock()
	defer d.mu.Unlock()
	var all []time.Duration
	for _, times := range d.bought {
		for _, at := range times {
			if at >= since {
				all = append(all, at)
			}
		}
	}
	slices.Sort(all)
	most, first := 0, 0
	for last := range all {
		for all[last]-all[first] >= 10*time.Second {
			first++
		}
		most = max(most, last-first+1)
	}
	return most
}

// exchanges returns the smallest and largest number of exchanges of a tenant, and
// the mean.
func (d *day) exchanges() (least, most int, mean float64) {
	d.mu.Lock()
	defer d.mu.Unlock()
	least = 1 << 30
	for n := range dayTenants {
		count := len(d.bought["client of "+tenantName(n)])
		least, most, mean = min(least, count), max(most, count), mean+float64(count)/dayTenants
	}
	return least, most, mean
}

func TestADayOfSteadyUseIsOneColdStartAndNoWaitAfterIt(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		d := newDay(t)
		d.warmUp(t, d.Replicas)
		warm := time.Since(d.begun)
		calls, waited := 0, 0
		// Each tenant every minute, on one replica after the other.
		for tick := 0; time.Since(d.begun) < 24*time.Hour; tick++ {
			time.Sleep(time.Second)
			for n := tick % 60; n < dayTenants; n += 60 {
				calls++
				before := time.Now()
				a, err := d.Replicas[(n+tick/60)%10].Get(t.Context(), tenantName(n), nil, 0)
				if err != nil {
					t.Fatalf("%s: %v", tenantName(n), err)
				}
				if time.Since(before) != 0 {
					waited++
				}
				if !a.Token.Usable(before, 0) {
					t.Fatalf("%s: handed out past its safe end", tenantName(n))
				}
			}
		}
		least, most, mean := d.exchanges()
		busiest := d.busiest(3 * time.Hour)
		t.Logf("%d tenants on 10 replicas, all warm after %v, then %d calls, of which %d waited; exchanges per tenant: %d to %d, mean %.2f; busiest 10 s after 3 h: %d exchanges (%.1f %% of the tenants)",
			dayTenants, warm.Round(time.Second), calls, waited, least, most, mean, busiest, 100*float64(busiest)/dayTenants)
		if waited != 0 {
			t.Errorf("%d calls waited", waited)
		}
		if most > 34 || least < 30 {
			t.Errorf("%d to %d exchanges per tenant, want 32 or so and 34 at most", least, most)
		}
		if busiest > dayTenants*2/100 {
			t.Errorf("%d exchanges within 10 s, want 2 %% of the tenants at most", busiest)
		}
	})
}

func TestATenantThatIsAskedForOnceCostsOneToken(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		d := newDay(t)
		d.warmUp(t, d.Replicas[:1])
		time.Sleep(24 * time.Hour)
		_, most, mean := d.exchanges()
		t.Logf("%d tenants asked for once in 24 h: %.2f exchanges each, %d at most", dayTenants, mean, most)
		if most != 1 {
			t.Errorf("%d exchanges", most)
		}
		for n, replica := range d.Replicas {
			if left := replica.Entries(); left != 0 {
				t.Errorf("replica %d has %d keys in memory", n, left)
			}
		}
	})
}

func TestATenantThatIsAskedForEveryFiftyMinutesNeverWaits(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		d := newDay(t)
		d.warmUp(t, d.Replicas[:1])
		calls := 0
		for time.Since(d.begun) < 24*time.Hour {
			time.Sleep(50 * time.Minute)
			for n := range dayTenants {
				calls++
				before := time.Now()
				get(t, d.Replicas[0], tenantName(n))
				if waited := time.Since(before); waited != 0 {
					t.Fatalf("%s after %v: waited %v", tenantName(n), time.Since(d.begun), waited)
				}
			}
		}
		_, most, mean := d.exchanges()
		t.Logf("%d calls of %d tenants, none waited; %.2f exchanges per tenant, %d at most", calls, dayTenants, mean, most)
	})
}

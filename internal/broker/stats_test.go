package broker_test

import (
	"fmt"
	"maps"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"smokeball.internal/tokenbroker/internal/broker"
	"smokeball.internal/tokenbroker/internal/broker/brokertest"
	"smokeball.internal/tokenbroker/internal/token"
)

// notes is an observer that writes down what it is told.
type notes struct {
	mu        sync.Mutex
	exchanges []string
	left      []time.Duration
}

func (n *notes) Exchanged(endpoint string, class token.Class, took time.Duration) {
	n.mu.Lock()
	defer n.mu.Unlock()
	n.exchanges = append(n.exchanges, fmt.Sprintf("%s %s %v", endpoint, class, took))
}

func (n *notes) Replaced(left time.Duration) {
	n.mu.Lock()
	defer n.mu.Unlock()
	n.left = append(n.left, left)
}

// A watch looks again and again, and passes on what is new.
func TestAnswersOfAWatchAreCountedWhenTheyAreNews(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		fleet := brokertest.NewFleet(t, 1)
		fleet.Register(t, "acme", nil)
		b := fleet.Replicas[0]
		get(t, b, "acme")
		w := b.Watch("acme", nil)
		defer w.Close()
		looks, news := 0, 0
		for begin := time.Now(); time.Since(begin) < 70*time.Minute; looks++ { // The token is replaced once.
			_, isNews, err := w.Next(t.Context())
			if err != nil {
				t.Fatal(err)
			}
			if isNews {
				news++
			}
		}
		if s := b.Stats(); s.FromMemory != uint64(news) || news != 2 || looks < 60 || s.FromExchange != 1 || s.Joined != 0 {
			t.Errorf("%d looks, %d news: %+v", looks, news, s)
		}
	})
}

func TestAnswersAreCountedByWhereTheyCameFrom(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		fleet := brokertest.NewFleet(t, 1)
		fleet.Issuer.Took = time.Second
		fleet.Register(t, "acme", nil)
		b := fleet.Replicas[0]
		var callers sync.WaitGroup
		for range 4 {
			callers.Go(func() { get(t, b, "acme") })
		}
		callers.Wait()
		held := get(t, b, "acme")
		get(t, b, "acme")
		if _, err := b.Refresh(t.Context(), "acme", nil, "another"); err != nil { // Which it is already.
			t.Fatal(err)
		}
		if s := b.Stats(); s.FromExchange != 1 || s.Joined != 3 || s.FromMemory != 3 || s.FromStore != 0 {
			t.Errorf("of the one that bought: %+v", s)
		}
		other := fleet.Add(t)
		get(t, other, "acme")
		get(t, other, "acme")
		if s := other.Stats(); s.FromExchange != 0 || s.Joined != 0 || s.FromMemory != 1 || s.FromStore != 1 {
			t.Errorf("of the one that found it in the store: %+v", s)
		}
		if _, err := other.Refresh(t.Context(), "acme", nil, held.ID); err != nil {
			t.Fatal(err)
		}
		if s := other.Stats(); s.FromExchange != 1 || s.FromStore != 1 {
			t.Errorf("after a forced refresh: %+v", s)
		}
	})
}

func TestExchangesAreObservedWithTheirOutcomeAndHowLongTheyTook(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		seen := &notes{}
		fleet := &brokertest.Fleet{Store: &brokertest.Store{}, Issuer: &brokertest.Issuer{Took: 2 * time.Second}, Observer: seen}
		b := fleet.Add(t)
		fleet.Register(t, "acme", nil)
		fleet.Register(t, "bolt", nil)
		get(t, b, "acme")
		fleet.Issuer.Set(func(i *brokertest.Issuer) {
			i.Took = 3 * time.Second
			i.Answer = func(token.Credential) *token.Failure { return &token.Failure{Class: token.Throttled} }
		})
		failure(t, b, "bolt")
		if got, want := fmt.Sprint(seen.exchanges), fmt.Sprintf("[issuer.us  2s issuer.us %s 3s]", token.Throttled); got != want {
			t.Errorf("observed %s, want %s", got, want)
		}
		if failed := b.Stats().AheadFailed; failed != 0 {
			t.Errorf("%d refreshes ahead have failed, though somebody waited", failed)
		}
		if len(seen.left) != 0 {
			t.Errorf("replaced with %v left, though nobody replaced any", seen.left)
		}
	})
}

func TestARefreshAheadIsObservedWithTheLifeThatWasLeft(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		seen := &notes{}
		fleet := &brokertest.Fleet{Store: &brokertest.Store{}, Issuer: &brokertest.Issuer{}, Observer: seen}
		b := fleet.Add(t)
		fleet.Add(t) // Which takes over what the other bought, or the other way round: it is one replacement.
		fleet.Register(t, "acme", warm)
		held := get(t, b, "acme")
		time.Sleep(time.Until(held.Expires))
		synctest.Wait()
		if len(seen.left) != 1 || seen.left[0] < 10*time.Minute || seen.left[0] > 18*time.Minute {
			t.Errorf("replaced with %v left, want 15 minutes, more or less", seen.left)
		}
		if failed := b.Stats().AheadFailed; failed != 0 {
			t.Errorf("%d have failed", failed)
		}
		fleet.Issuer.Set(func(i *brokertest.Issuer) {
			i.Answer = func(token.Credential) *token.Failure { return &token.Failure{Class: token.Unavailable} }
		})
		time.Sleep(40 * time.Minute)
		synctest.Wait()
		if failed := b.Stats().AheadFailed + fleet.Replicas[1].Stats().AheadFailed; int(failed) != len(seen.exchanges)-2 || failed == 0 {
			t.Errorf("%d of %d exchanges have failed ahead", failed, len(seen.exchanges)-2)
		}
		if len(seen.left) != 1 {
			t.Errorf("replaced with %v left, though the last were refused", seen.left)
		}
	})
}

func TestWaitsForAnotherReplicaAndTakeoversAreCounted(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		fleet := brokertest.NewFleet(t, 2)
		fleet.Issuer.Took = time.Second
		fleet.Register(t, "acme", nil)
		fleet.Register(t, "bolt", nil)
		var callers sync.WaitGroup
		for _, b := range fleet.Replicas {
			callers.Go(func() { get(t, b, "acme") })
		}
		callers.Wait()
		one, other := fleet.Replicas[0].Stats(), fleet.Replicas[1].Stats()
		if one.LeaseWaits+other.LeaseWaits != 1 || one.Takeovers+other.Takeovers != 0 {
			t.Errorf("two replicas at once: %+v, %+v", one, other)
		}
		if acquired, err := fleet.Store.Lease(t.Context(), key(t, fleet, "bolt"), "dead", 14*time.Second); !acquired || err != nil {
			t.Fatal(acquired, err)
		}
		get(t, fleet.Replicas[0], "bolt")
		if s := fleet.Replicas[0].Stats(); s.LeaseWaits != one.LeaseWaits+1 || s.Takeovers != 1 {
			t.Errorf("after one that died: %+v", s)
		}
	})
}

func TestStatsSayWhichIssuersAreGivenARest(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		fleet := brokertest.NewFleet(t, 1)
		b := fleet.Replicas[0]
		want := func(when string, states map[string]broker.IssuerState) {
			t.Helper()
			if got := b.Stats().Issuers; !maps.Equal(got, states) {
				t.Errorf("%s: %v, want %v", when, got, states)
			}
		}
		want("before anything", map[string]broker.IssuerState{})
		fleet.Issuer.Answer = func(token.Credential) *token.Failure { return &token.Failure{Class: token.Unavailable} }
		for n := range 20 {
			fleet.Register(t, fmt.Sprint("t", n), nil)
			failure(t, b, fmt.Sprint("t", n))
		}
		want("after failures", map[string]broker.IssuerState{"issuer.us": broker.Resting})
		fleet.Issuer.Set(func(i *brokertest.Issuer) { i.Answer, i.Took = nil, time.Second })
		time.Sleep(10 * time.Second)
		fleet.Register(t, "next", nil)
		var caller sync.WaitGroup
		caller.Go(func() { get(t, b, "next") })
		time.Sleep(500 * time.Millisecond)
		want("while one is tried", map[string]broker.IssuerState{"issuer.us": broker.Tried})
		caller.Wait()
		want("when it serves", map[string]broker.IssuerState{"issuer.us": broker.Serving})
	})
}

func TestStatsSayHowManyWatchesAreOpen(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := brokertest.NewFleet(t, 1).Replicas[0]
		one, two, other := b.Watch("acme", nil), b.Watch("acme", nil), b.Watch("bolt", nil)
		if got := b.Stats().Watches; got != 3 {
			t.Errorf("%d of 3", got)
		}
		one.Close()
		other.Close()
		if got := b.Stats().Watches; got != 1 {
			t.Errorf("%d of 1", got)
		}
		two.Close()
		if got := b.Stats().Watches; got != 0 {
			t.Errorf("%d of none", got)
		}
	})
}

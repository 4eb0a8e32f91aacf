package redisstore_test

import (
	"strconv"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"smokeball.internal/tokenbroker/internal/redisstore"
	"smokeball.internal/tokenbroker/internal/token"
)

// lease takes a lease that must be had, or not.
func lease(t *testing.T, s *redisstore.Store, k token.Key, owner string, want bool, when string) {
	t.Helper()
	if acquired, err := s.Lease(t.Context(), k, owner, time.Minute); acquired != want || err != nil {
		t.Errorf("%s: acquired %v, error %v", when, acquired, err)
	}
}

func release(t *testing.T, s *redisstore.Store, k token.Key, owner string) {
	t.Helper()
	if err := s.Release(t.Context(), k, owner); err != nil {
		t.Error(err)
	}
}

func TestLeaseHasOneHolder(t *testing.T) {
	onBoth(t, func(t *testing.T, f *fixture) {
		k, other := keyOf("acme"), f.open(t, f.keyset)
		lease(t, f.Store, k, "a", true, "first")
		lease(t, other, k, "b", false, "by another replica while held")
		// Two flights of one process are two owners.
		lease(t, f.Store, k, "c", false, "by the same replica while held")
		lease(t, other, keyOf("globex"), "b", true, "of another key")
		release(t, f.Store, k, "a")
		lease(t, other, k, "b", true, "after release")
	})
}

func TestLeaseEndsByItselfAndIsReleasedByItsOwnerOnly(t *testing.T) {
	onBoth(t, func(t *testing.T, f *fixture) {
		ctx, k, other := t.Context(), keyOf("acme"), f.open(t, f.keyset)
		if acquired, err := f.Lease(ctx, k, "a", 200*time.Millisecond); !acquired || err != nil {
			t.Fatalf("acquired %v, error %v", acquired, err)
		}
		eventually(t, "the lease has ended", func() bool {
			acquired, err := other.Lease(ctx, k, "b", time.Minute)
			return acquired && err == nil
		})
		release(t, f.Store, k, "a")
		lease(t, f.Store, k, "a", false, "the holder before released the holder's lease")
		release(t, other, k, "b")
		lease(t, f.Store, k, "c", true, "after release")
		release(t, f.Store, k, "c")
		release(t, f.Store, k, "c") // Once more does no harm.
	})
}

func TestLeaseIsProlongedByItsOwner(t *testing.T) {
	onBoth(t, func(t *testing.T, f *fixture) {
		k := keyOf("acme")
		lease(t, f.Store, k, "a", true, "first")
		if acquired, err := f.Lease(t.Context(), k, "a", time.Hour); !acquired || err != nil {
			t.Errorf("once more: acquired %v, error %v", acquired, err)
		}
		if left := f.pttl(t, prefix+"lease:{"+k.Digest()+"}"); !near(left, time.Hour) {
			t.Errorf("%v left", left)
		}
	})
}

func TestLeaseIsTakenByOneOfMany(t *testing.T) {
	onBoth(t, func(t *testing.T, f *fixture) {
		var holders atomic.Int32
		var takers sync.WaitGroup
		for n := range 16 {
			takers.Go(func() {
				acquired, err := f.Lease(t.Context(), keyOf("acme"), strconv.Itoa(n), time.Minute)
				if err != nil {
					t.Error(err)
				}
				if acquired {
					holders.Add(1)
				}
			})
		}
		takers.Wait()
		if n := holders.Load(); n != 1 {
			t.Errorf("%d holders", n)
		}
	})
}

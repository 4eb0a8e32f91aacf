package redisstore_test

import (
	"context"
	"sync"
	"sync/atomic"
	"testing"
	"time"
)

func TestLeaseHasOneHolder(t *testing.T) {
	onBoth(t, func(t *testing.T, f *fixture) {
		ctx, k, other := t.Context(), keyOf("acme"), f.open(t, f.keyset)
		release, acquired, err := f.Lease(ctx, k, time.Minute)
		if !acquired || err != nil {
			t.Fatalf("first: acquired %v, error %v", acquired, err)
		}
		if _, acquired, err := other.Lease(ctx, k, time.Minute); acquired || err != nil {
			t.Errorf("by another replica while held: acquired %v, error %v", acquired, err)
		}
		// Two flights of one process are two holders.
		if _, acquired, err := f.Lease(ctx, k, time.Minute); acquired || err != nil {
			t.Errorf("by the same replica while held: acquired %v, error %v", acquired, err)
		}
		if _, acquired, err := other.Lease(ctx, keyOf("globex"), time.Minute); !acquired || err != nil {
			t.Errorf("of another key: acquired %v, error %v", acquired, err)
		}
		release(ctx)
		if _, acquired, err := other.Lease(ctx, k, time.Minute); !acquired || err != nil {
			t.Errorf("after release: acquired %v, error %v", acquired, err)
		}
	})
}

func TestLeaseEndsByItselfAndIsReleasedByItsOwnerOnly(t *testing.T) {
	onBoth(t, func(t *testing.T, f *fixture) {
		ctx, k, other := t.Context(), keyOf("acme"), f.open(t, f.keyset)
		releaseFirst, acquired, err := f.Lease(ctx, k, 200*time.Millisecond)
		if !acquired || err != nil {
			t.Fatalf("acquired %v, error %v", acquired, err)
		}
		var releaseSecond func(context.Context)
		eventually(t, "the lease has ended", func() bool {
			releaseSecond, acquired, err = other.Lease(ctx, k, time.Minute)
			return acquired && err == nil
		})
		releaseFirst(ctx)
		if _, acquired, err := f.Lease(ctx, k, time.Minute); acquired || err != nil {
			t.Errorf("the holder before released the holder's lease: acquired %v, error %v", acquired, err)
		}
		releaseSecond(ctx)
		release, acquired, err := f.Lease(ctx, k, time.Minute)
		if !acquired || err != nil {
			t.Errorf("after release: acquired %v, error %v", acquired, err)
		}
		release(ctx)
		release(ctx) // Once more does no harm.
	})
}

func TestLeaseIsTakenByOneOfMany(t *testing.T) {
	onBoth(t, func(t *testing.T, f *fixture) {
		var holders atomic.Int32
		var takers sync.WaitGroup
		for range 16 {
			takers.Go(func() {
				_, acquired, err := f.Lease(t.Context(), keyOf("acme"), time.Minute)
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

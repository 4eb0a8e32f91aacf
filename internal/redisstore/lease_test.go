package redisstore_test

import (
	"testing"
	"time"
)

func TestLeaseIsProlongedByItsOwner(t *testing.T) {
	onBoth(t, func(t *testing.T, f *fixture) {
		k := keyOf("acme")
		for _, ttl := range []time.Duration{time.Minute, time.Hour} {
			if acquired, err := f.Lease(t.Context(), k, "a", ttl); !acquired || err != nil {
				t.Errorf("for %v: acquired %v, error %v", ttl, acquired, err)
			}
			if left := f.pttl(t, prefix+"lease:{"+k.Digest()+"}"); !near(left, ttl) {
				t.Errorf("%v left, want %v", left, ttl)
			}
		}
	})
}

package broker_test

import (
	"testing"
	"time"

	"smokeball.internal/tokenbroker/internal/broker"
	"smokeball.internal/tokenbroker/internal/broker/brokertest"
)

// holding returns a broker that holds a token of the tenant acme.
func holding(t testing.TB) *broker.Broker {
	fleet := brokertest.NewFleet(t, 1)
	fleet.Register(t, "acme", nil)
	b := fleet.Replicas[0]
	for _, scopes := range [][]string{nil, {"matters/read"}} {
		if _, err := b.Get(t.Context(), "acme", scopes, 0); err != nil {
			t.Fatal(err)
		}
	}
	return b
}

// An answer from memory leaves nothing for the collector of garbage.
func TestAHotGetAllocatesNothing(t *testing.T) {
	b := holding(t)
	for name, atLeast := range map[string]time.Duration{"any": 0, "for a while": time.Minute} {
		if n := testing.AllocsPerRun(1000, func() { _, _ = b.Get(t.Context(), "acme", nil, atLeast) }); n != 0 {
			t.Errorf("%s: %v allocations", name, n)
		}
	}
}

// BenchmarkGet is an answer from memory: for the registered scopes, and for scopes
// that the caller names.
func BenchmarkGet(b *testing.B) {
	held := holding(b)
	for name, scopes := range map[string][]string{"registered": nil, "named": {"matters/read"}} {
		b.Run(name, func(b *testing.B) {
			b.ReportAllocs()
			for b.Loop() {
				if _, err := held.Get(b.Context(), "acme", scopes, time.Minute); err != nil {
					b.Fatal(err)
				}
			}
		})
		b.Run(name+"/parallel", func(b *testing.B) {
			b.ReportAllocs()
			b.RunParallel(func(pb *testing.PB) {
				for pb.Next() {
					_, _ = held.Get(b.Context(), "acme", scopes, time.Minute)
				}
			})
		})
	}
}

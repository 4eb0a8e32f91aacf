package broker_test

import (
	"fmt"
	"log/slog"
	"testing"

	"smokeball.internal/tokenbroker/internal/broker"
)

// BenchmarkGetOverTenants is an answer from memory to callers who go through so many
// tenants: what is more than for one is what the processor's caches have not kept.
func BenchmarkGetOverTenants(b *testing.B) {
	for _, tenants := range []int{1, 100, 10_000, 100_000} {
		b.Run(fmt.Sprint(tenants), func(b *testing.B) {
			all := broker.New(broker.Config{Issuer: elsewhere{}, Store: elsewhere{}, Tenants: elsewhere{}, Logger: slog.New(slog.DiscardHandler)})
			defer all.Close()
			ids := make([]string, tenants)
			for n := range ids {
				ids[n] = fmt.Sprintf("firm-%d", n)
				if _, err := all.Get(b.Context(), ids[n], nil, 0); err != nil {
					b.Fatal(err)
				}
			}
			b.ReportAllocs()
			for n := 0; b.Loop(); n += 7919 { // In no order that a cache could foresee.
				if _, err := all.Get(b.Context(), ids[n%tenants], nil, 0); err != nil {
					b.Fatal(err)
				}
			}
		})
	}
}

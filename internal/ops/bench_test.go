package ops_test

import (
	"fmt"
	"log/slog"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"smokeball.internal/tokenbroker/internal/broker/brokertest"
	"smokeball.internal/tokenbroker/internal/ops"
	"smokeball.internal/tokenbroker/internal/redisstore"
)

// BenchmarkScrape is what a broker that holds the tokens of 100,000 tenants, all in
// use, does for /metrics to say how long they live.
func BenchmarkScrape(b *testing.B) {
	const tenants = 100_000
	fleet := &brokertest.Fleet{Store: &brokertest.Store{}, Issuer: &brokertest.Issuer{}, Logger: slog.New(slog.DiscardHandler), ExchangeRate: 1e6}
	tokens := fleet.Add(b)
	for n := range tenants {
		id := fmt.Sprintf("firm-%d", n)
		fleet.Issuer.Lifetime = time.Hour + time.Duration(n%3600)*time.Second
		fleet.Register(b, id, nil)
		for range 2 { // The second has it in use.
			if _, err := tokens.Get(b.Context(), id, nil, 0); err != nil {
				b.Fatal(err)
			}
		}
	}
	r := prometheus.NewRegistry()
	r.MustRegister(ops.HeldMetrics(tokens.Held))
	b.ReportAllocs()
	for b.Loop() {
		families, err := r.Gather()
		if err != nil {
			b.Fatal(err)
		}
		if n := families[0].GetMetric()[0].GetHistogram().GetSampleCount(); n != tenants {
			b.Fatalf("%d tokens are shown", n)
		}
	}
}

// BenchmarkRedisObserver is what it costs to measure a command of Redis.
func BenchmarkRedisObserver(b *testing.B) {
	o, commands := ops.NewRedisObserver(), redisstore.Commands()
	b.ReportAllocs()
	for n := 0; b.Loop(); n++ {
		o.Answered(commands[n%len(commands)], time.Millisecond, false)
	}
}

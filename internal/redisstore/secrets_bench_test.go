package redisstore_test

import (
	"fmt"
	"log/slog"
	"regexp"
	"strconv"
	"testing"
	"time"

	"smokeball.internal/tokenbroker/internal/redisstore"
	"smokeball.internal/tokenbroker/internal/redisstore/redistest"
	"smokeball.internal/tokenbroker/internal/seal"
)

// What it costs to see how old the secrets of 100,000 tenants are: as it is read each
// minute, and with an index that is to be made first, as after an upgrade.
func BenchmarkSecretAges(b *testing.B) {
	const tenants = 100_000
	keyset, err := seal.Ephemeral()
	if err != nil {
		b.Fatal(err)
	}
	server := redistest.Start(b)
	s, err := redisstore.Open(redisstore.Config{URL: server.URL(), Prefix: prefix, Keyset: keyset, Logger: slog.New(slog.DiscardHandler)})
	if err != nil {
		b.Fatal(err)
	}
	b.Cleanup(func() { _ = s.Close() })
	f := &fixture{Store: s, raw: server.Client(), keyset: keyset}
	pipe := f.raw.Pipeline()
	for n := range tenants {
		f.put(b, pipe, fmt.Sprintf("firm-%d", n), time.Now().Add(-time.Duration(n)*time.Minute), nil)
		if n%1000 == 999 {
			if _, err := pipe.Exec(b.Context()); err != nil {
				b.Fatal(err)
			}
		}
	}
	ages := make([]time.Duration, 8)
	for i := range ages {
		ages[i] = time.Duration(i) * 10 * day
	}
	read := func(b *testing.B) {
		b.Helper()
		if found, err := f.SecretAges(b.Context(), ages, 10); err != nil || found.Count != tenants {
			b.Fatalf("%d, %v", found.Count, err)
		}
	}
	b.Run("incomplete", func(b *testing.B) {
		b.ReportAllocs()
		for b.Loop() {
			f.raw.Del(b.Context(), secretsKey)
			read(b)
		}
	})
	b.Run("complete", func(b *testing.B) {
		b.ReportAllocs()
		f.raw.ConfigResetStat(b.Context())
		for b.Loop() {
			read(b)
		}
		b.StopTimer()
		// All is in one transaction.
		if match := regexp.MustCompile(`cmdstat_exec:calls=\d+,usec=(\d+)`).FindStringSubmatch(f.raw.Info(b.Context(), "commandstats").Val()); match != nil {
			usec, _ := strconv.Atoi(match[1])
			b.ReportMetric(float64(usec)/float64(b.N), "redis-µs/op")
		}
	})
}

package redisstore_test

import (
	"log/slog"
	"testing"
	"time"

	"smokeball.internal/tokenbroker/internal/redisstore"
	"smokeball.internal/tokenbroker/internal/redisstore/redistest"
	"smokeball.internal/tokenbroker/internal/seal"
)

// deaf is an observer that does nothing with what it is told.
type deaf struct{}

func (deaf) Answered(string, time.Duration, bool) {}

// BenchmarkCommand is a script on a Redis of this machine, with nobody and with
// somebody who is told how long it took.
func BenchmarkCommand(b *testing.B) {
	keyset, err := seal.Ephemeral()
	if err != nil {
		b.Fatal(err)
	}
	url := redistest.Start(b).URL()
	for name, observer := range map[string]redisstore.Observer{"unobserved": nil, "observed": deaf{}} {
		b.Run(name, func(b *testing.B) {
			s, err := redisstore.Open(redisstore.Config{URL: url, Prefix: prefix, Keyset: keyset, Logger: slog.New(slog.DiscardHandler), Observer: observer})
			if err != nil {
				b.Fatal(err)
			}
			defer func() { _ = s.Close() }()
			b.ReportAllocs()
			for b.Loop() {
				if _, _, err := s.Load(b.Context(), keyOf("acme")); err != nil {
					b.Fatal(err)
				}
			}
		})
	}
}

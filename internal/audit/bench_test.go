package audit_test

import (
	"context"
	"io"
	"strings"
	"testing"
	"time"

	"smokeball.internal/tokenbroker/internal/audit"
)

// BenchmarkDecision measures what a caller pays while Run writes. Records that do
// not fit would be cheaper, so none are dropped.
func BenchmarkDecision(b *testing.B) {
	for name, sink := range map[string]string{"stdout": "stdout", "none": "none"} {
		b.Run(name, func(b *testing.B) {
			l, err := audit.Open(audit.Config{Sink: sink, Stdout: io.Discard})
			if err != nil {
				b.Fatal(err)
			}
			ctx, stop := context.WithCancel(b.Context())
			ended := make(chan struct{})
			go func() { defer close(ended); l.Run(ctx) }()
			r := decision()
			b.ReportAllocs()
			for n := 0; b.Loop(); n++ {
				if n%8192 == 8191 {
					b.StopTimer()
					for l.Stats().Queued > 0 {
						time.Sleep(time.Millisecond)
					}
					b.StartTimer()
				}
				_ = l.Decision(r)
			}
			stop()
			<-ended
			if dropped := l.Stats().Dropped; dropped > 0 {
				b.Errorf("%d were dropped", dropped)
			}
		})
	}
}

// BenchmarkRun measures how fast decisions are written.
func BenchmarkRun(b *testing.B) {
	l, err := audit.Open(audit.Config{Sink: "stdout", Stdout: io.Discard})
	if err != nil {
		b.Fatal(err)
	}
	ctx, stop := context.WithCancel(b.Context())
	ended := make(chan struct{})
	go func() { defer close(ended); l.Run(ctx) }()
	r := decision()
	for b.Loop() {
		for l.Stats().Queued > 8192 {
			time.Sleep(100 * time.Microsecond)
		}
		_ = l.Decision(r)
	}
	stop()
	<-ended
}

func decision() audit.Record {
	return audit.Record{
		Event: "token", RequestID: "0123456789abcdef01234567", Principal: "spiffe://firm.example/ns/billing/sa/invoices", Peer: "10.20.30.40:51234",
		Method: "/tokenbroker.v1.TokenService/GetToken", Tenant: "tenants/acme", Scopes: []string{"matters/read", "matters/write"},
		TokenID: strings.Repeat("a", 16), Rule: "billing may read acme", Outcome: "allowed", Code: "OK",
	}
}

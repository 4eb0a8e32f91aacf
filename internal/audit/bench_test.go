package audit_test

import (
	"io"
	"strings"
	"syscall"
	"testing"
	"time"

	"smokeball.internal/tokenbroker/internal/audit"
)

// BenchmarkDecision measures what a caller pays while Run writes. Records that do
// not fit would be cheaper, so none are dropped.
func BenchmarkDecision(b *testing.B) {
	for name, sink := range map[string]string{"stdout": "stdout", "none": "none"} {
		b.Run(name, func(b *testing.B) {
			l := run(b, audit.Config{Sink: sink, Stdout: io.Discard})
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
			l.stop()
			if dropped := l.Stats().Dropped; dropped > 0 {
				b.Errorf("%d were dropped", dropped)
			}
		})
	}
}

// BenchmarkAppend measures what Run does for a record before it is handed over.
func BenchmarkAppend(b *testing.B) {
	c, r, at := audit.NewChain(), decision(), time.Now().UnixNano()
	var buf []byte
	b.ReportAllocs()
	for b.Loop() {
		at += 50_000 // 20,000 a second
		buf = c.Append(buf[:0], &r, audit.Own{}, at)
	}
	b.SetBytes(int64(len(buf)))
}

// BenchmarkRun measures what processors work for a record from Decision to the sink:
// cpu-ns/op. ns/op is how long it takes until there is room for the next, or the pace.
// What keeping the pace takes by itself, with a log of nothing, is to be subtracted.
func BenchmarkRun(b *testing.B) {
	const pace = 20_000 // records a second
	for _, c := range []struct {
		name, sink string
		paced      bool
	}{
		{"discard", "stdout", false},
		{"file", "file:", false},
		{"file-paced", "file:", true},
		{"none-paced", "none", true},
	} {
		b.Run(c.name, func(b *testing.B) {
			sink := c.sink
			if sink == "file:" {
				sink += logPath(b)
			}
			l := run(b, audit.Config{Sink: sink, Stdout: io.Discard})
			r := decision()
			began, worked := time.Now(), processorTime(b)
			b.ReportAllocs()
			n := 0
			for ; b.Loop(); n++ {
				switch {
				case n%100 != 0:
				case c.paced:
					time.Sleep(time.Until(began.Add(time.Duration(n) * time.Second / pace)))
				default:
					for l.Stats().Queued > 8192 {
						time.Sleep(100 * time.Microsecond)
					}
				}
				_ = l.Decision(r)
			}
			l.stop()
			b.ReportMetric(float64(processorTime(b)-worked)/float64(n), "cpu-ns/op")
			if stats := l.Stats(); stats.Written != uint64(n) && c.sink != "none" {
				b.Errorf("%+v of %d", stats, n)
			}
		})
	}
}

// processorTime returns how long processors have worked for this process.
func processorTime(b *testing.B) time.Duration {
	b.Helper()
	var used syscall.Rusage
	if err := syscall.Getrusage(syscall.RUSAGE_SELF, &used); err != nil {
		b.Fatal(err)
	}
	return time.Duration(used.Utime.Nano() + used.Stime.Nano())
}

func decision() audit.Record {
	return audit.Record{
		Event: "token", RequestID: "0123456789abcdef01234567", Principal: "spiffe://firm.example/ns/billing/sa/invoices", Peer: "10.20.30.40:51234",
		Method: "/tokenbroker.v1.TokenService/GetToken", Tenant: "tenants/acme", Scopes: []string{"matters/read", "matters/write"},
		TokenID: strings.Repeat("a", 16), Rule: "billing may read acme", Outcome: "allowed", Code: "OK",
	}
}

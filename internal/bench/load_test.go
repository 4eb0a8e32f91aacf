package bench_test

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"math/bits"
	"os"
	"sync"
	"time"

	"google.golang.org/grpc"

	pb "smokeball.internal/tokenbroker/gen/tokenbroker/v1"
)

// order is what a process of callers is told to do.
type order struct {
	Address     string
	Files       files
	Tenants     int // asked for in turn; 0: acme alone
	Connections int
	Callers     int           // who ask without pause, each for one answer after the other
	Rate        float64       // calls per second of all of them; 0: as many as there are answers
	Warmup      time.Duration // before it counts
	Period      time.Duration
}

// outcome is what it comes to.
type outcome struct {
	Calls   uint64
	Failed  uint64
	Failure string // of the first
	Took    time.Duration
	Counts  []uint64 // of the histogram
}

// runLoad asks as the order on standard input says. It writes a line when it begins to
// count, one when it has ended counting, and then the outcome.
func runLoad() error {
	var o order
	if err := json.NewDecoder(os.Stdin).Decode(&o); err != nil {
		return err
	}
	conns := make([]*grpc.ClientConn, o.Connections)
	for n := range conns {
		conn, err := o.Files.dial(o.Address)
		if err != nil {
			return err
		}
		defer func() { _ = conn.Close() }()
		conns[n] = conn
	}
	l := &loadRun{order: o, histograms: make([]histogram, o.Callers), failures: make([]error, o.Callers)}
	ctx, cancel := context.WithTimeout(context.Background(), o.Warmup+o.Period+30*time.Second)
	defer cancel()
	l.from = time.Now().Add(o.Warmup)
	l.to = l.from.Add(o.Period)
	var callers sync.WaitGroup
	for n := range o.Callers {
		callers.Go(func() { l.call(ctx, n, conns[n%len(conns)]) })
	}
	time.Sleep(time.Until(l.from))
	fmt.Println("begin")
	time.Sleep(time.Until(l.to))
	fmt.Println("end")
	callers.Wait()
	out := outcome{Took: o.Period, Counts: make([]uint64, buckets)}
	for n := range l.histograms {
		for b, count := range l.histograms[n].counts {
			out.Counts[b] += count
			out.Calls += count
		}
		out.Failed += l.histograms[n].failed
		if err := l.failures[n]; err != nil && out.Failure == "" {
			out.Failure = err.Error()
		}
	}
	return json.NewEncoder(os.Stdout).Encode(out)
}

type loadRun struct {
	order
	from, to   time.Time
	histograms []histogram // of each caller
	failures   []error
}

// call asks until the time is over. At a fixed rate, a call takes from when it was to
// be made: who is late because the one before was slow has waited, too.
func (l *loadRun) call(ctx context.Context, n int, conn *grpc.ClientConn) {
	service := pb.NewTokenServiceClient(conn)
	pause := time.Duration(0)
	if l.Rate > 0 {
		pause = time.Duration(float64(time.Second) * float64(l.Callers) / l.Rate)
	}
	due := l.from.Add(-l.Warmup + pause*time.Duration(n)/time.Duration(l.Callers))
	for i := 0; ; i++ {
		begun := time.Now()
		if pause > 0 {
			time.Sleep(time.Until(due))
			begun = due
			due = due.Add(pause)
		}
		if !begun.Before(l.to) {
			return
		}
		_, err := service.GetToken(ctx, &pb.GetTokenRequest{Tenant: l.tenant(n, i)})
		if errors.Is(ctx.Err(), context.DeadlineExceeded) {
			l.failures[n] = ctx.Err()
			return
		}
		switch ended := time.Now(); {
		case begun.Before(l.from) || ended.After(l.to) && pause == 0:
		case err != nil:
			l.histograms[n].failed++
			l.failures[n] = err
		default:
			l.histograms[n].add(ended.Sub(begun))
		}
	}
}

func (l *loadRun) tenant(n, i int) string {
	if l.Tenants == 0 {
		return "tenants/acme"
	}
	// Each caller goes through all of them in an order of its own.
	const prime = 2_654_435_761
	return fmt.Sprintf("tenants/t%06d", (uint64(n)*7919+uint64(i)*prime)%uint64(l.Tenants))
}

// A histogram of durations from a microsecond to a minute, right to 3 %.
const (
	parts   = 32 // of a doubling
	buckets = 27 * parts
)

type histogram struct {
	counts [buckets]uint64
	failed uint64
}

func (h *histogram) add(d time.Duration) { h.counts[bucketOf(d)]++ }

func bucketOf(d time.Duration) int {
	us := uint64(max(1, d.Nanoseconds()*parts/1000)) // in parts of a microsecond
	if us < parts {
		return 0
	}
	exponent := bits.Len64(us) - bits.Len64(parts)
	return min(buckets-1, exponent*parts+int(us>>exponent)-parts)
}

// lowerEnd is the least duration of a bucket.
func lowerEnd(bucket int) time.Duration {
	return time.Duration(uint64(parts+bucket%parts)<<(bucket/parts)) * time.Microsecond / parts
}

// quantile returns the duration that this part of all does not exceed.
func quantile(counts []uint64, q float64) time.Duration {
	var all, seen uint64
	for _, n := range counts {
		all += n
	}
	for b, n := range counts {
		if seen += n; float64(seen) >= q*float64(all) && all > 0 {
			return lowerEnd(b + 1)
		}
	}
	return 0
}

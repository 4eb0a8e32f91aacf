package bench_test

import (
	"context"
	"encoding/json"
	"fmt"
	"os"
	"runtime"
	"sync"
	"syscall"
	"time"
)

// order is what a process of callers is told to do.
type order struct {
	Address     string
	Files       files
	Way         way // in which they come by tokens
	Issuer      account
	Tenants     int  // asked for in turn; 0: acme alone
	Once        bool // Each tenant from First on is asked for once, by one of the callers.
	First       int
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
	Counts  []uint64      // of the histogram
	CPU     time.Duration // of the callers
	Mallocs uint64        // of the callers
}

// runLoad asks as the order on standard input says. It connects, writes a line when it
// begins to count, one when it has ended counting, and then the outcome.
func runLoad() error {
	var o order
	if err := json.NewDecoder(os.Stdin).Decode(&o); err != nil {
		return err
	}
	ctx, cancel := context.WithTimeout(context.Background(), o.Warmup+o.Period+time.Minute)
	defer cancel()
	asks, leave, err := o.open(ctx)
	if err != nil {
		return err
	}
	defer leave()
	l := &loadRun{order: o, histograms: make([]histogram, o.Callers), failures: make([]error, o.Callers)}
	l.from = time.Now().Add(o.Warmup)
	l.to = l.from.Add(o.Period)
	var callers sync.WaitGroup
	for n := range o.Callers {
		callers.Go(func() { l.call(ctx, n, asks[n%len(asks)]) })
	}
	time.Sleep(time.Until(l.from))
	cpu, mallocs := ownUsage()
	fmt.Println("begin")
	time.Sleep(time.Until(l.to))
	out := outcome{Took: o.Period, Counts: make([]uint64, buckets)}
	if o.Rate > 0 { // Those who are late are waited for.
		callers.Wait()
		out.Took = max(o.Period, time.Since(l.from))
	}
	out.CPU, out.Mallocs = ownUsage()
	fmt.Println("end")
	callers.Wait()
	out.CPU, out.Mallocs = out.CPU-cpu, out.Mallocs-mallocs
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

// ownUsage returns what this process has used of processors, and how often it has
// allocated.
func ownUsage() (time.Duration, uint64) {
	var used syscall.Rusage
	_ = syscall.Getrusage(syscall.RUSAGE_SELF, &used) // It fails for other processes only.
	var memory runtime.MemStats
	runtime.ReadMemStats(&memory)
	return time.Duration(used.Utime.Nano() + used.Stime.Nano()), memory.Mallocs
}

type loadRun struct {
	order
	from, to   time.Time
	histograms []histogram // of each caller
	failures   []error
}

// call asks until the time is over. At a fixed rate, a call that its caller is late for,
// since the one before was slow, takes from when it was to be made. One that its caller
// has slept before takes from when it is made: timers of Go are late by half a
// millisecond, which is several times what a call takes.
func (l *loadRun) call(ctx context.Context, n int, ask ask) {
	pause := time.Duration(0)
	if l.Rate > 0 {
		pause = time.Duration(float64(time.Second) * float64(l.Callers) / l.Rate)
	}
	due := l.from.Add(-l.Warmup + pause*time.Duration(n)/time.Duration(l.Callers))
	for i := 0; ; i++ {
		tenant, is := l.tenant(n, i)
		begun := time.Now()
		if pause == 0 {
			due = begun
		}
		if !is || !due.Before(l.to) {
			return
		}
		if early := due.Sub(begun); early > 0 {
			time.Sleep(early)
			begun = time.Now()
		} else {
			begun = due
		}
		due = due.Add(pause)
		err := ask(ctx, tenant)
		switch ended := time.Now(); {
		case err != nil:
			l.histograms[n].failed++
			l.failures[n] = err
			if ctx.Err() != nil {
				return
			}
		case begun.Before(l.from) || ended.After(l.to) && pause == 0:
		default:
			l.histograms[n].add(ended.Sub(begun))
		}
	}
}

// tenant returns whom caller n asks for the ith time; not is: there is nobody any more.
func (l *loadRun) tenant(n, i int) (name string, is bool) {
	const prime = 2_654_435_761
	of := (uint64(n)*7919 + uint64(i)*prime) % uint64(max(1, l.Tenants)) // Each goes through all in an order of its own.
	switch {
	case l.Tenants == 0:
		return "tenants/acme", true
	case l.Once:
		of = uint64(l.First + n + i*l.Callers)
	}
	return fmt.Sprintf("tenants/t%06d", of), !l.Once || of < uint64(l.First+l.Tenants)
}

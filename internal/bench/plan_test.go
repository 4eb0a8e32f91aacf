package bench_test

import (
	"bufio"
	"bytes"
	"encoding/json"
	"os"
	"os/exec"
	"slices"
	"strings"
	"testing"
	"time"
)

// plan says how each contender is measured.
type plan struct {
	rounds      int
	period      time.Duration
	connections int
	callers     int
	tenants     int     // see order.Tenants
	rate        float64 // calls per second; 0: as many as there are answers
}

// sample is one measurement of one contender.
type sample struct {
	rate           float64 // answers per second
	p50, p99, p999 time.Duration
	cpu            time.Duration // of the server, per call
	callers        time.Duration // of processors, per call
	redisCPU       time.Duration // per call
	allocs         float64       // of the server, or of the callers if there is none, per call
	redis          float64       // commands that Redis was sent, per call
}

// result is all measurements of a contender.
type result struct {
	name    string
	samples []sample
}

type results []result

// run measures the contenders in turn, each round in another order, so that what comes
// over the machine comes over all of them.
func (p plan) run(t *testing.T, s *scene, contenders []contender) results {
	t.Helper()
	all := make(results, len(contenders))
	for i, c := range contenders {
		all[i].name = c.name
	}
	for round := range p.rounds {
		for i := range contenders {
			i = (i + round) % len(contenders)
			all[i].samples = append(all[i].samples, p.once(t, s, contenders[i]))
		}
	}
	return all
}

// once measures a contender once.
func (p plan) once(t *testing.T, s *scene, c contender) sample {
	t.Helper()
	var before, after usage
	out := load(t, p.order(c), func() { before = s.usage(t, c) }, func() { after = s.usage(t, c) })
	if out.Failed > 0 || out.Calls == 0 {
		t.Fatalf("%s: %d calls, %d failed: %s", c.name, out.Calls, out.Failed, out.Failure)
	}
	calls := float64(out.Calls)
	each := func(d time.Duration) time.Duration { return time.Duration(float64(d) / calls) }
	allocs := after.mallocs - before.mallocs
	if c.process == nil {
		allocs = float64(out.Mallocs)
	}
	return sample{
		rate: calls / out.Took.Seconds(), p50: quantile(out.Counts, .5), p99: quantile(out.Counts, .99), p999: quantile(out.Counts, .999),
		cpu: each(after.cpu - before.cpu), callers: each(out.CPU), redisCPU: each(after.redisCPU - before.redisCPU),
		allocs: allocs / calls, redis: (after.redis - before.redis) / calls,
	}
}

// order is what the callers of a contender are told to do.
func (p plan) order(c contender) order {
	return order{Address: c.api, Files: c.user, Way: c.way, Issuer: c.issuer, Tenants: p.tenants, Connections: p.connections, Callers: p.callers, Rate: p.rate,
		Warmup: p.period / 5, Period: p.period}
}

// load has a process of callers do what o says, and calls begun when they begin to
// count, and ended when they have ended.
func load(t *testing.T, o order, begun, ended func()) outcome {
	t.Helper()
	given, err := json.Marshal(o)
	if err != nil {
		t.Fatal(err)
	}
	self, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	cmd := exec.CommandContext(t.Context(), self)
	cmd.Env = append(os.Environ(), role+"=load", noGrace)
	cmd.Stdin, cmd.Stderr = bytes.NewReader(given), os.Stderr
	pipe, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	var out outcome
	for lines := bufio.NewReader(pipe); ; {
		line, err := lines.ReadString('\n')
		if err != nil {
			break
		}
		switch line = strings.TrimSpace(line); line {
		case "begin":
			begun()
		case "end":
			ended()
		default:
			if err := json.Unmarshal([]byte(line), &out); err != nil {
				t.Fatal(err)
			}
		}
	}
	if err := cmd.Wait(); err != nil {
		t.Fatal(err)
	}
	return out
}

// median returns the median of something of all samples, the least and the most.
func (r result) median(of func(sample) float64) (median, least, most float64) {
	values := make([]float64, len(r.samples))
	for i, s := range r.samples {
		values[i] = of(s)
	}
	slices.Sort(values)
	return values[len(values)/2], values[0], values[len(values)-1]
}

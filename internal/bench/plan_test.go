package bench_test

import (
	"bufio"
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"net/http"
	"os"
	"os/exec"
	"slices"
	"strconv"
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
	allocs         float64       // of the server, per call
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
	given, err := json.Marshal(order{Address: c.api, Files: c.user, Tenants: p.tenants, Connections: p.connections, Callers: p.callers, Rate: p.rate,
		Warmup: p.period / 5, Period: p.period})
	if err != nil {
		t.Fatal(err)
	}
	self, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	cmd := exec.CommandContext(t.Context(), self)
	cmd.Env = append(os.Environ(), role+"=load")
	cmd.Stdin, cmd.Stderr = bytes.NewReader(given), os.Stderr
	pipe, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	var before, after usage
	var out outcome
	for lines := bufio.NewReader(pipe); ; {
		line, err := lines.ReadString('\n')
		if err != nil {
			break
		}
		switch line = strings.TrimSpace(line); line {
		case "begin":
			before = s.usage(t, c)
		case "end":
			after = s.usage(t, c)
		default:
			if err := json.Unmarshal([]byte(line), &out); err != nil {
				t.Fatal(err)
			}
		}
	}
	if err := cmd.Wait(); err != nil {
		t.Fatal(err)
	}
	if out.Failed > 0 || out.Calls == 0 {
		t.Fatalf("%s: %d calls, %d failed: %s", c.name, out.Calls, out.Failed, out.Failure)
	}
	calls := float64(out.Calls)
	return sample{
		rate: calls / out.Took.Seconds(), p50: quantile(out.Counts, .5), p99: quantile(out.Counts, .99), p999: quantile(out.Counts, .999),
		cpu: time.Duration(float64(after.cpu-before.cpu) / calls), allocs: (after.mallocs - before.mallocs) / calls, redis: (after.redis - before.redis) / calls,
	}
}

// usage is what a server has used since it began.
type usage struct {
	cpu     time.Duration
	mallocs float64
	redis   float64 // commands, of whomever
}

func (s *scene) usage(t *testing.T, c contender) usage {
	t.Helper()
	return usage{cpu: cpuOf(t, c.process.Pid), mallocs: metric(t, c.metrics, "go_memstats_mallocs_total"), redis: s.commands(t)}
}

// cpuOf returns the time that a process has had of processors.
func cpuOf(t *testing.T, pid int) time.Duration {
	t.Helper()
	stat, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", pid))
	if err != nil {
		t.Fatal(err)
	}
	// proc(5): utime and stime are the 14th and 15th, and the second, in parentheses,
	// may have spaces. A tick is 10 ms on every Linux there is.
	fields := strings.Fields(string(stat[bytes.LastIndexByte(stat, ')')+1:]))
	var ticks time.Duration
	for _, f := range fields[11:13] {
		n, err := strconv.Atoi(f)
		if err != nil {
			t.Fatal(err)
		}
		ticks += time.Duration(n)
	}
	return ticks * 10 * time.Millisecond
}

// metric returns the value of a metric without labels.
func metric(t *testing.T, address, name string) float64 {
	t.Helper()
	req, err := http.NewRequestWithContext(t.Context(), http.MethodGet, "http://"+address+"/metrics", nil)
	if err != nil {
		t.Fatal(err)
	}
	resp, err := http.DefaultClient.Do(req)
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = resp.Body.Close() }()
	for lines := bufio.NewScanner(resp.Body); lines.Scan(); {
		if value, ok := strings.CutPrefix(lines.Text(), name+" "); ok {
			n, err := strconv.ParseFloat(value, 64)
			if err != nil {
				t.Fatal(err)
			}
			return n
		}
	}
	t.Fatalf("%s has no metric %s", address, name)
	return 0
}

// commands returns how many commands Redis was sent that are of data.
func (s *scene) commands(t *testing.T) float64 {
	t.Helper()
	stats, err := s.redis.Client().Info(context.Background(), "commandstats").Result()
	if err != nil {
		t.Fatal(err)
	}
	var all float64
	for line := range strings.Lines(stats) {
		var name string
		var calls float64
		name, rest, ok := strings.Cut(strings.TrimPrefix(strings.TrimSpace(line), "cmdstat_"), ":calls=")
		if !ok || name == "info" {
			continue
		}
		if _, err := fmt.Sscanf(rest, "%f,", &calls); err != nil {
			t.Fatal(err)
		}
		all += calls
	}
	return all
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

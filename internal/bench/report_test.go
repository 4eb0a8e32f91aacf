package bench_test

import (
	"encoding/csv"
	"encoding/xml"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"
)

// report is what was measured, and on what.
type report struct {
	machine string
	plan
	closed    results // as many calls as there are answers: the broker, and other servers
	inProcess results // the same without a server
	fixed     results // at plan.rate: the servers
}

// The places of contenders: of the one that others are compared with, and of the one that
// reads Redis for each call.
const (
	bareMTLS   = 1
	getPerCall = 3
)

func rateOf(s sample) float64   { return s.rate }
func p50Of(s sample) float64    { return float64(s.p50) }
func p99Of(s sample) float64    { return float64(s.p99) }
func p999Of(s sample) float64   { return float64(s.p999) }
func cpuPer(s sample) float64   { return float64(s.cpu) }
func allCPU(s sample) float64   { return float64(s.cpu + s.callers + s.redisCPU) }
func allocsOf(s sample) float64 { return s.allocs }
func redisOf(s sample) float64  { return s.redis }

// of returns the median.
func (r result) of(f func(sample) float64) float64 { m, _, _ := r.median(f); return m }

// time returns the median of a duration as it is shown.
func (r result) time(f func(sample) float64) time.Duration { return short(r.of(f)) }

// ratio compares r with another: the median over the rounds, of which each has both.
func (r result) ratio(to result, of func(sample) float64) float64 {
	i := -1
	return r.of(func(s sample) float64 { i++; return of(s) / of(to.samples[i]) })
}

// short rounds a duration to three digits.
func short(ns float64) time.Duration {
	unit := time.Duration(1)
	for ns >= 1000*float64(unit) {
		unit *= 10
	}
	return time.Duration(ns).Round(unit)
}

// markdown returns what was measured, as tables.
func (r report) markdown() string {
	var b strings.Builder
	fmt.Fprintf(&b, "Measured on %s.\n\n%d callers on %d connections, %d rounds of %v; medians of the rounds, and the least and the most of them.\n",
		r.machine, r.callers, r.connections, r.rounds, r.period)
	fmt.Fprintf(&b, "\n## As many calls as there are answers\n\n%s\nWhat a call takes here is mostly waiting for its turn: callers and servers share the cores, which are all busy.\n", r.closed.table())
	fmt.Fprintf(&b, "\n## At %.0f calls a second\n\n%s\nThat is half of what bare gRPC with mTLS answers at most. A call that is late because the one before it was slow takes from when it was to be made.\n", r.rate, r.fixed.table())
	fmt.Fprintf(&b, "\n## In the process of the callers\n\n%s", r.inProcessTable())
	return b.String()
}

// table returns results of servers.
func (all results) table() string {
	var b strings.Builder
	b.WriteString("| | calls/s | of bare mTLS | p50 | p99 | of bare mTLS | p99.9 | CPU/call: server | with callers and Redis | allocations/call | Redis commands/call |\n|---|" + strings.Repeat("---:|", 10) + "\n")
	for _, r := range all {
		_, least, most := r.median(rateOf)
		_, quick, slow := r.median(p99Of)
		fmt.Fprintf(&b, "| %s | %.0f (%.0f–%.0f) | %.2f | %v | %v (%v–%v) | %.2f | %v | %v | %v | %.1f | %.4f |\n", r.name,
			r.of(rateOf), least, most, r.ratio(all[bareMTLS], rateOf), r.time(p50Of), r.time(p99Of), short(quick), short(slow), r.ratio(all[bareMTLS], p99Of), r.time(p999Of),
			r.time(cpuPer), r.time(allCPU), r.of(allocsOf), r.of(redisOf))
	}
	return b.String()
}

// inProcessTable says what it is to have tokens in the process of the callers, and what
// it is not.
func (r report) inProcessTable() string {
	var b strings.Builder
	b.WriteString("| | millions of tokens/s | p50 | p99 | CPU/token | allocations/token | the client secret is | who buys | a token that is due |\n|---|---:|---:|---:|---:|---:|---|---|---|\n")
	is := []string{
		"in the broker alone | the broker, once for all services and their replicas | is replaced behind its users",
		"in every service, of every tenant | every replica of every service, for itself | is waited for by all its users, when it ends",
	}
	for n, c := range r.inProcess {
		_, least, most := c.median(rateOf)
		fmt.Fprintf(&b, "| %s | %.1f (%.1f–%.1f) | %v | %v | %v | %.1f | %s |\n", c.name, c.of(rateOf)/1e6, least/1e6, most/1e6, c.time(p50Of), c.time(p99Of), c.time(allCPU), c.of(allocsOf), is[n])
	}
	b.WriteString("\nThis is what a token costs most of the time, since there is no network: `client` of this repository, which asks the broker once for each token's life, and `golang.org/x/oauth2/clientcredentials`, which has no broker. " +
		"It is no yardstick for a server. Most of the time shown is reading the clock, twice for each token; `make microbench` has them without.\n")
	return b.String()
}

// inShort returns what the README says.
func (r report) inShort() string {
	var b strings.Builder
	broker, naive := r.closed[0], r.closed[getPerCall]
	fmt.Fprintf(&b, "A call that is answered from memory, with identity, rules, limits, metrics and audit on, over mTLS, reaches **%.0f %%** of the calls per second of a gRPC server that does nothing but answer with the same bytes, and %.1f times those of a broker that reads Redis for each call:\n\n",
		100*broker.ratio(r.closed[bareMTLS], rateOf), broker.ratio(naive, rateOf))
	fmt.Fprintf(&b, "| | calls/s | p50 and p99 at %.0f calls/s | CPU of the server per call | Redis commands per call |\n|---|---:|---:|---:|---:|\n", r.rate)
	for n, c := range r.closed {
		fixed := r.fixed[n]
		fmt.Fprintf(&b, "| %s | %.0f | %v, %v | %v | %.4f |\n", c.name, c.of(rateOf), fixed.time(p50Of), fixed.time(p99Of), c.time(cpuPer), c.of(redisOf))
	}
	fmt.Fprintf(&b, "\n(%s. Callers and all servers share its cores.)\n", r.machine)
	return b.String()
}

// The results stand between these in the README.
const resultsBegin, resultsEnd = "<!-- written by make bench -->\n", "<!-- to here -->\n"

// write writes the tables, the samples and the plot to dir, and the README's section.
func (r report) write(t *testing.T, dir, readme string) {
	t.Helper()
	for name, content := range map[string]string{"hot.md": "# A token from memory\n\nWritten by `make bench`.\n\n" + r.markdown(), "hot.csv": r.csv(), "hot.svg": r.svg()} {
		if err := os.WriteFile(filepath.Join(dir, name), []byte(content), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	if readme == "" {
		return
	}
	page, err := os.ReadFile(readme)
	if err != nil {
		t.Fatal(err)
	}
	before, rest, begins := strings.Cut(string(page), resultsBegin)
	_, after, ends := strings.Cut(rest, resultsEnd)
	if !begins || !ends {
		t.Fatalf("%s has no place for the results", readme)
	}
	if err := os.WriteFile(readme, []byte(before+resultsBegin+r.inShort()+resultsEnd+after), 0o644); err != nil {
		t.Fatal(err)
	}
}

// csv returns each measurement.
func (r report) csv() string {
	var b strings.Builder
	b.WriteString("load,contender,round,calls_per_second,p50_us,p99_us,p999_us,server_cpu_us,callers_cpu_us,redis_cpu_us,allocations,redis_commands\n")
	us := func(d time.Duration) float64 { return float64(d) / float64(time.Microsecond) }
	for _, load := range []struct {
		name string
		of   results
	}{{"closed", r.closed}, {"closed", r.inProcess}, {"fixed", r.fixed}} {
		for _, c := range load.of {
			for n, s := range c.samples {
				fmt.Fprintf(&b, "%s,%q,%d,%.0f,%.3f,%.3f,%.3f,%.3f,%.3f,%.3f,%.2f,%.4f\n", load.name, c.name, n+1,
					s.rate, us(s.p50), us(s.p99), us(s.p999), us(s.cpu), us(s.callers), us(s.redisCPU), s.allocs, s.redis)
			}
		}
	}
	return b.String()
}

// checkWritten looks at what write has written.
func (r report) checkWritten(t *testing.T, dir, readme string) {
	t.Helper()
	read := func(path string) string {
		content, err := os.ReadFile(path)
		if err != nil {
			t.Fatal(err)
		}
		return string(content)
	}
	if page := read(readme); !strings.HasPrefix(page, "before\n"+resultsBegin+"A call") || !strings.HasSuffix(page, "\n"+resultsEnd+"after\n") || strings.Contains(page, "old") {
		t.Errorf("the README is now:\n%s", page)
	}
	plot := xml.NewDecoder(strings.NewReader(read(filepath.Join(dir, "hot.svg"))))
	for {
		_, err := plot.Token()
		if errors.Is(err, io.EOF) {
			break
		}
		if err != nil {
			t.Fatalf("the plot: %v", err)
		}
	}
	samples, err := csv.NewReader(strings.NewReader(read(filepath.Join(dir, "hot.csv")))).ReadAll()
	if want := 1 + r.rounds*(len(r.closed)+len(r.inProcess)+len(r.fixed)); err != nil || len(samples) != want {
		t.Errorf("there are %d lines of samples, want %d: %v", len(samples), want, err)
	}
}

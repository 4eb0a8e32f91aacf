package bench_test

import (
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"
)

// scaleReport is all that TestScale measures.
type scaleReport struct {
	// Measured is the day; Period how long each point of the curves of calls was measured.
	Measured string      `json:"measured"`
	Period   string      `json:"period"`
	Tenants  []loadPoint `json:"over_tenants"`
	Bare     []loadPoint `json:"bare_over_tenants"`
	// Connections is with callers who ask without pause, Steady with calls at a fixed rate.
	Connections []loadPoint   `json:"over_connections"`
	Steady      []loadPoint   `json:"over_connections_at_a_steady_rate"`
	Memory      []memoryCurve `json:"memory"`
	Start       []startPoint  `json:"start"`
	Storm       storm         `json:"cold_storm"`
}

// readScale returns what was measured before, so that a part of it can be measured
// again.
func readScale(t *testing.T) *scaleReport {
	t.Helper()
	r := &scaleReport{}
	if *reports == "" {
		return r
	}
	raw, err := os.ReadFile(filepath.Join(*reports, "scale.json"))
	if errors.Is(err, fs.ErrNotExist) {
		return r
	}
	if err == nil {
		err = json.Unmarshal(raw, r)
	}
	if err != nil {
		t.Fatal(err)
	}
	return r
}

// write shows the tables and writes what is to be kept.
func (r *scaleReport) write(t *testing.T, z sizes) {
	t.Helper()
	r.Measured, r.Period = time.Now().UTC().Format(time.DateOnly), z.period.String()
	text := r.markdown(z)
	t.Logf("\n%s", text)
	if !*measure || *reports == "" {
		return
	}
	raw, err := json.MarshalIndent(r, "", " ")
	if err != nil {
		t.Fatal(err)
	}
	for name, content := range map[string]string{"scale.json": string(raw) + "\n", "scale.md": text, "scale.svg": r.svg()} {
		if err := os.WriteFile(filepath.Join(*reports, name), []byte(content), 0o600); err != nil {
			t.Fatal(err)
		}
	}
}

func (r *scaleReport) markdown(z sizes) string {
	var b strings.Builder
	line := func(format string, a ...any) { fmt.Fprintf(&b, format+"\n", a...) }
	line("# Scale\n\nWritten by `make bench-scale`, %s; the raw numbers are in [scale.json](scale.json). One replica, the release binary, with all that production has on: mTLS, identity,", r.Measured)
	line("authorization, limits, validation, metrics, an audit record for each call on disk. Callers are a process of their own on the same machine. Values are medians of rounds of %s; in each", r.Period)
	line("round all points are measured in turn, and ratios are medians over the rounds of each round's own.\n\n![curves](scale.svg)\n")

	line("## Tenants\n\nEach row is a replica that holds the tokens of so many tenants (%d bytes each), and whose 64 callers on 8 connections go through all of them. %d rounds. They are scraped\nbetween the rounds, while nobody calls: that walks over all tokens that a replica holds. On the right, a bare gRPC server with mTLS that has as many answers in a map: what so much memory costs anybody.\n", tokenSize, len(first(r.Tenants).Rate))
	line("| tenants | calls/s | of one tenant's | least–most | p50 | p99 | of one tenant's | CPU/call | of one tenant's | a scrape | bare: calls/s | of one's | CPU/call |\n|---:|---:|---:|---:|---:|---:|---:|---:|---:|---:|---:|---:|---:|")
	for i, p := range r.Tenants {
		rate, p99, cpu := ratios(p, first(r.Tenants))
		q := r.Bare[i]
		bare, _, _ := ratios(q, first(r.Bare))
		line("| %s | %.0f | %.3f | %.3f–%.3f | %.1f ms | %.1f ms | %.2f | %.1f µs | %.2f | %.0f ms | %.0f | %.3f | %.1f µs |", thousands(p.N), median(p.Rate), median(rate), slices.Min(rate), slices.Max(rate),
			median(p.P50), median(p.P99), median(p99), median(p.CPU), median(cpu), median(p.ScrapeMS), median(q.Rate), median(bare), median(q.CPU))
	}
	line("\n## Connections\n\nOne tenant, mTLS. %d rounds. Without pause: as many callers as connections, 64 at least, each with one call after the other, so that with 1,000 a call waits for its turn among 1,000.", len(first(r.Connections).Rate))
	line("Steady: %.0f calls a second by %d callers, however many connections they share.\n", z.steadyRate, last(z.connections))
	line("| connections | calls/s without pause | of one connection's | p99 | CPU/call | steady: p50 | p99 | CPU/call |\n|---:|---:|---:|---:|---:|---:|---:|---:|")
	for i, p := range r.Connections {
		rate, _, _ := ratios(p, first(r.Connections))
		q := r.Steady[i]
		line("| %s | %.0f | %.2f | %.1f ms | %.1f µs | %.2f ms | %.2f ms | %.1f µs |", thousands(p.N), median(p.Rate), median(rate), median(p.P99), median(p.CPU), median(q.P50), median(q.P99), median(q.CPU))
	}
	line("\n## Memory\n\nWhat one more takes, by least squares over the points. Held: the heap and stacks in use when the garbage has just been collected. Resident: what the process has of the machine's memory then, with")
	line("the room for garbage that the runtime has not given back (`GOGC`, `GOMEMLIMIT`).\n\n| for each | held | resident | held at each point |\n|---|---:|---:|---|")
	for _, c := range r.Memory {
		var points []string
		for _, p := range c.Points {
			points = append(points, fmt.Sprintf("%s: %.1f MiB", thousands(p.N), p.Held/(1<<20)))
		}
		line("| %s | %s | %s | %s |", c.Of, kib(c.slope(heldOf)), kib(c.slope(residentOf)), strings.Join(points, ", "))
	}
	line("\n## Start\n\nFrom the start of the process until `/readyz` says so.\n\n| tenants that are registered | median | least–most |\n|---:|---:|---:|")
	for _, p := range r.Start {
		line("| %s | %.0f ms | %.0f–%.0f ms |", thousands(p.N), median(p.MS), slices.Min(p.MS), slices.Max(p.MS))
	}
	s := r.Storm
	line("\n## Cold storm\n\n%s tenants, none of which has a token, are asked for at once, by callers who come back when they are told to. The fleet allows itself %d exchanges a second, and %d at once.\n", thousands(s.Tenants), s.Rate, s.Burst)
	line("| | |\n|---|---:|\n| all are warm after | %.1f s |\n| the limit alone: (%d − %d) / %d | %.1f s |", s.Took, s.Tenants, s.Burst, s.Rate, s.Arithmetic)
	line("| exchanges in the busiest ten seconds | %d |\n| that the limit allows in ten: %d + 10 × %d | %d |", s.Busiest, s.Burst, s.Rate, s.Allowed)
	line("| calls that failed for who was willing to wait | 0 |\n| tokens bought | %d |\n| requests that the issuer got | %d |\n| times a caller was told to come back | %d |", s.Bought, s.Asked, s.Retried)
	return b.String()
}

// ratios returns what p is of the other point, round by round.
func ratios(p, of loadPoint) (rate, p99, cpu []float64) {
	for i := range p.Rate {
		rate, p99, cpu = append(rate, p.Rate[i]/of.Rate[i]), append(p99, p.P99[i]/of.P99[i]), append(cpu, p.CPU[i]/of.CPU[i])
	}
	return rate, p99, cpu
}

func median(values []float64) float64 {
	if len(values) == 0 {
		return 0
	}
	return slices.Sorted(slices.Values(values))[len(values)/2]
}

func first(points []loadPoint) loadPoint {
	if len(points) == 0 {
		return loadPoint{}
	}
	return points[0]
}

func last(numbers []int) int { return numbers[len(numbers)-1] }

// kib shows bytes; what is less than a byte or two is a slope of nothing.
func kib(bytes float64) string {
	switch {
	case bytes < 100:
		return fmt.Sprintf("%.0f B", max(0, bytes))
	default:
		return fmt.Sprintf("%.2f KiB", bytes/1024)
	}
}

func thousands(n int) string {
	if n < 1000 {
		return fmt.Sprint(n)
	}
	return fmt.Sprintf("%s,%03d", thousands(n/1000), n%1000)
}

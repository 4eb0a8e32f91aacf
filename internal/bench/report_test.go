package bench_test

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"
)

func rateOf(s sample) float64   { return s.rate }
func p50Of(s sample) float64    { return float64(s.p50) }
func p99Of(s sample) float64    { return float64(s.p99) }
func p999Of(s sample) float64   { return float64(s.p999) }
func cpuPer(s sample) float64   { return float64(s.cpu) }
func allocsOf(s sample) float64 { return s.allocs }
func redisOf(s sample) float64  { return s.redis }

// table returns the results as Markdown: medians, and the least and the most of rates.
func (all results) table() string {
	var b strings.Builder
	b.WriteString("| | calls/s | least–most | of bare mTLS | p50 | p99 | p99.9 | CPU/call | allocations/call | Redis commands/call |\n|---|---:|---:|---:|---:|---:|---:|---:|---:|---:|\n")
	for _, r := range all {
		rate, least, most := r.median(rateOf)
		of := func(f func(sample) float64) float64 { m, _, _ := r.median(f); return m }
		fmt.Fprintf(&b, "| %s | %.0f | %.0f–%.0f | %.2f | %v | %v | %v | %v | %.1f | %.4f |\n", r.name, rate, least, most, all.ratio(r, rateOf),
			short(of(p50Of)), short(of(p99Of)), short(of(p999Of)), short(of(cpuPer)), of(allocsOf), of(redisOf))
	}
	return b.String()
}

// ratio compares r with the bare server with mTLS: the median over the rounds, of
// which each has both.
func (all results) ratio(r result, of func(sample) float64) float64 {
	bare := all[1]
	pairs := result{samples: r.samples}
	i := -1
	m, _, _ := pairs.median(func(s sample) float64 { i++; return of(s) / of(bare.samples[i]) })
	return m
}

func short(ns float64) time.Duration {
	d := time.Duration(ns)
	if d < time.Millisecond {
		return d.Round(100 * time.Nanosecond)
	}
	return d.Round(10 * time.Microsecond)
}

func (all results) write(t *testing.T, dir, table string) {
	t.Helper()
	if err := os.WriteFile(filepath.Join(dir, "hot.md"), []byte(table), 0o600); err != nil {
		t.Fatal(err)
	}
}

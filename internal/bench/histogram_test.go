package bench_test

import (
	"math/bits"
	"math/rand/v2"
	"testing"
	"time"
)

// A histogram of durations from a nanosecond to a minute, right to 3 %.
const (
	parts   = 32 // of a doubling
	buckets = 32 * parts
)

type histogram struct {
	counts [buckets]uint64
	failed uint64
}

func (h *histogram) add(d time.Duration) { h.counts[bucketOf(d)]++ }

// bucketOf returns the bucket of a duration: one for each nanosecond of the first, and
// then parts for each doubling.
func bucketOf(d time.Duration) int {
	ns := uint64(max(0, d))
	exponent := max(0, bits.Len64(ns)-bits.Len64(parts))
	return min(buckets-1, exponent*parts+int(ns>>exponent))
}

// lowerEnd is the least duration of a bucket.
func lowerEnd(bucket int) time.Duration {
	exponent := max(0, bucket/parts-1)
	return time.Duration(bucket-exponent*parts) << exponent
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

func TestHistogramIsRightToThreePerCent(t *testing.T) {
	for range 100_000 {
		d := time.Duration(rand.Int64N(1 << rand.IntN(36)))
		b := bucketOf(d)
		low, high := lowerEnd(b), lowerEnd(b+1)
		if d < low || d >= high || high-low > max(1, low/parts) {
			t.Fatalf("%v is in bucket %d, from %v to %v", d, b, low, high)
		}
	}
	var h histogram
	for n := range 1000 {
		h.add(time.Duration(n) * time.Microsecond)
	}
	for q, want := range map[float64]time.Duration{.5: 499 * time.Microsecond, .99: 989 * time.Microsecond, .999: 998 * time.Microsecond} {
		if got := quantile(h.counts[:], q); got < want || got > want+want/parts {
			t.Errorf("%v: %v, want %v", q, got, want)
		}
	}
}

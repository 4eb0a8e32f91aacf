package ops

import (
	"cmp"
	"iter"
	"slices"

	"github.com/prometheus/client_golang/prometheus"

	"smokeball.internal/tokenbroker/internal/broker"
)

// worstTenants is how many tenants are named: enough to begin with, and a bound to
// the number of time series.
const worstTenants = 10

// leftBuckets are bounds of the life that is left, in seconds: a token lives for
// five minutes to a day.
var leftBuckets = []float64{0, 30, 60, 120, 300, 600, 900, 1200, 1800, 3600, 7200, 14400, 28800, 86400}

var (
	heldDesc = prometheus.NewDesc("tokenbroker_held_token_left_seconds",
		"How long the tokens live that are in use or kept warm here, as it is now: unlike those of other histograms, the counts also go down, and are not for rate(). 0: ended, and not replaced.", nil, nil)
	worstDesc = prometheus.NewDesc("tokenbroker_tenant_token_left_seconds",
		"How long the token lives, as it is now, of each of the ten tenants whose tokens end first: as in tokenbroker_held_token_left_seconds.", []string{"tenant"}, nil)
)

// heldMetrics shows how long the tokens live that a broker holds.
type heldMetrics struct{ held func() iter.Seq[broker.Held] }

// HeldMetrics returns the metrics of the tokens that a broker holds, which are
// looked through for each collection.
func HeldMetrics(held func() iter.Seq[broker.Held]) prometheus.Collector { return heldMetrics{held} }

// Describe sends the descriptions of the metrics.
func (m heldMetrics) Describe(ch chan<- *prometheus.Desc) {
	ch <- heldDesc
	ch <- worstDesc
}

// Collect sends the metrics.
func (m heldMetrics) Collect(ch chan<- prometheus.Metric) {
	var sum float64
	within := make([]uint64, len(leftBuckets)+1) // how many have what is left in this bucket alone; the last: beyond them
	var worst []broker.Held                      // in order, each tenant once
	for h := range m.held() {
		left := h.Left.Seconds()
		sum += left
		bucket, _ := slices.BinarySearch(leftBuckets, left)
		within[bucket]++
		worst = insert(worst, h)
	}
	var count uint64
	buckets := make(map[float64]uint64, len(leftBuckets))
	for n, bound := range leftBuckets {
		count += within[n]
		buckets[bound] = count
	}
	count += within[len(leftBuckets)]
	ch <- prometheus.MustNewConstHistogram(heldDesc, count, sum, buckets)
	for _, h := range worst {
		ch <- prometheus.MustNewConstMetric(worstDesc, prometheus.GaugeValue, h.Left.Seconds(), h.Tenant)
	}
}

// insert puts h in its place among the worst. A tenant has one place, its worst.
func insert(worst []broker.Held, h broker.Held) []broker.Held {
	if len(worst) == worstTenants && h.Left >= worst[worstTenants-1].Left {
		return worst
	}
	same := slices.IndexFunc(worst, func(w broker.Held) bool { return w.Tenant == h.Tenant })
	switch {
	case same >= 0 && worst[same].Left <= h.Left:
		return worst
	case same >= 0:
		worst = slices.Delete(worst, same, same+1)
	case len(worst) == worstTenants:
		worst = worst[:worstTenants-1]
	}
	at, _ := slices.BinarySearchFunc(worst, h, func(a, b broker.Held) int { return cmp.Compare(a.Left, b.Left) })
	return slices.Insert(worst, at, h)
}

package ops_test

import (
	"fmt"
	"iter"
	"maps"
	"math/rand/v2"
	"slices"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"smokeball.internal/tokenbroker/internal/broker"
	"smokeball.internal/tokenbroker/internal/ops"
)

func TestTheLifeThatIsLeftIsShownOfAllTokensAndOfTheWorstTenantsByName(t *testing.T) {
	var all []broker.Held
	for n := range 1000 {
		all = append(all, broker.Held{Tenant: fmt.Sprint("t", n), Left: time.Duration(n) * time.Second})
	}
	// A tenant with several tokens counts with its worst.
	all = append(all, broker.Held{Tenant: "t3", Left: time.Hour}, broker.Held{Tenant: "t500", Left: time.Second / 2})
	rand.Shuffle(len(all), func(i, j int) { all[i], all[j] = all[j], all[i] })
	r := prometheus.NewPedanticRegistry()
	r.MustRegister(ops.HeldMetrics(func() iter.Seq[broker.Held] { return slices.Values(all) }))
	families, err := r.Gather()
	if err != nil {
		t.Fatal(err)
	}
	worst := map[string]float64{}
	var count, ended, soon uint64 // all, and those in the first two buckets
	for _, f := range families {
		for _, m := range f.GetMetric() {
			switch f.GetName() {
			case "tokenbroker_held_token_left_seconds":
				h := m.GetHistogram()
				count, ended, soon = h.GetSampleCount(), h.GetBucket()[0].GetCumulativeCount(), h.GetBucket()[1].GetCumulativeCount()
			case "tokenbroker_tenant_token_left_seconds":
				worst[m.GetLabel()[0].GetValue()] = m.GetGauge().GetValue()
			}
		}
	}
	want := map[string]float64{"t500": .5, "t0": 0, "t1": 1, "t2": 2, "t3": 3, "t4": 4, "t5": 5, "t6": 6, "t7": 7, "t8": 8}
	if !maps.Equal(worst, want) {
		t.Errorf("the worst are %v, want %v", worst, want)
	}
	if count != 1002 || ended != 1 || soon != 32 {
		t.Errorf("of 1002 tokens, %d are counted, %d as ended and %d as ending within half a minute", count, ended, soon)
	}
}

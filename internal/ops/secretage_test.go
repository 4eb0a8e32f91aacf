package ops_test

import (
	"bytes"
	"context"
	"errors"
	"log/slog"
	"maps"
	"math"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"smokeball.internal/tokenbroker/internal/ops"
	"smokeball.internal/tokenbroker/internal/tenant"
)

const day = 24 * time.Hour

// gathered is what the metrics of secrets show.
type gathered struct {
	count   uint64
	buckets map[float64]uint64 // by days
	oldest  map[string]float64 // in days
}

func gatherAges(t *testing.T, s *ops.SecretAges) (g gathered) {
	t.Helper()
	r := prometheus.NewPedanticRegistry()
	r.MustRegister(s)
	families, err := r.Gather()
	if err != nil {
		t.Fatal(err)
	}
	g.buckets, g.oldest = map[float64]uint64{}, map[string]float64{}
	for _, f := range families {
		for _, m := range f.GetMetric() {
			switch f.GetName() {
			case "tokenbroker_client_secret_age_seconds":
				h := m.GetHistogram()
				g.count = h.GetSampleCount()
				for _, b := range h.GetBucket() {
					g.buckets[b.GetUpperBound()/day.Seconds()] = b.GetCumulativeCount()
				}
				if !math.IsNaN(h.GetSampleSum()) {
					t.Errorf("the sum of all ages is %v, and nobody has added them", h.GetSampleSum())
				}
			case "tokenbroker_tenant_client_secret_age_seconds":
				g.oldest[m.GetLabel()[0].GetValue()] = m.GetGauge().GetValue() / day.Seconds()
			}
		}
	}
	return g
}

func TestAgesOfSecretsAreShownAsTheyWereLastRead(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		type answer struct {
			ages tenant.SecretAges
			err  error
		}
		answers := make(chan answer)
		var log bytes.Buffer
		s := ops.NewSecretAges(func(ctx context.Context, ages []time.Duration, oldest int) (tenant.SecretAges, error) {
			if _, bounded := ctx.Deadline(); !bounded || len(ages) != 8 || oldest != 10 {
				t.Errorf("asked for %v and %d, bounded %v", ages, oldest, bounded)
			}
			select {
			case a := <-answers:
				return a.ages, a.err
			case <-ctx.Done(): // Redis is away, and slow to say so.
				return tenant.SecretAges{}, ctx.Err()
			}
		}, slog.New(slog.NewTextHandler(&log, nil)))
		if g := gatherAges(t, s); g.count != 0 || len(g.buckets) != 0 || len(g.oldest) != 0 {
			t.Errorf("before it was read: %+v", g)
		}
		ctx, cancel := context.WithCancel(t.Context())
		ended := make(chan struct{})
		go func() { defer close(ended); s.Watch(ctx) }()

		read := time.Now()
		answers <- answer{ages: tenant.SecretAges{Count: 40, Within: []uint64{1, 2, 3, 4, 5, 6, 7, 8}, Oldest: []tenant.SecretAge{
			{Tenant: "acme", Since: read.Add(-800 * day)}, {Tenant: "ahead", Since: read.Add(time.Hour)},
		}}}
		synctest.Wait()
		buckets := map[float64]uint64{30: 1, 60: 2, 90: 3, 120: 4, 180: 5, 270: 6, 365: 7, 730: 8}
		if g := gatherAges(t, s); g.count != 40 || !maps.Equal(g.buckets, buckets) || !maps.Equal(g.oldest, map[string]float64{"acme": 800, "ahead": 0}) {
			t.Errorf("read: %+v", g)
		}

		// A day on which Redis does not answer.
		time.Sleep(day)
		if g := gatherAges(t, s); g.count != 40 || !maps.Equal(g.buckets, buckets) || g.oldest["acme"] != 801 {
			t.Errorf("a day later, without Redis: %+v", g)
		}
		if n := strings.Count(log.String(), "level=WARN"); n != 1 {
			t.Errorf("logged %d times:\n%s", n, log.String())
		}
		answers <- answer{err: errors.New("still away")}
		begun := time.Now()
		answers <- answer{ages: tenant.SecretAges{Count: 1, Within: make([]uint64, 8)}}
		if waited := time.Since(begun); waited > time.Minute {
			t.Errorf("read again after %v", waited)
		}
		synctest.Wait()
		if g := gatherAges(t, s); g.count != 1 || len(g.oldest) != 0 {
			t.Errorf("read again: %+v", g)
		}
		cancel()
		<-ended
		if n := strings.Count(log.String(), "level=WARN"); n != 1 {
			t.Errorf("logged %d times:\n%s", n, log.String())
		}
	})
}

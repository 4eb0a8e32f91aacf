package ops

import (
	"context"
	"log/slog"
	"math"
	"sync/atomic"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"smokeball.internal/tokenbroker/internal/tenant"
)

const (
	// How often the ages are read: they change by the day, and when somebody rotates.
	readAgesEvery = time.Minute
	// How long it may take. As a rule it is one command; after an upgrade Redis's
	// index is completed first.
	readAgesTimeout = 30 * time.Second
)

// ageBuckets are bounds of the age: what those who prescribe rotation prescribe.
var ageBuckets = days(30, 60, 90, 120, 180, 270, 365, 730)

func days(numbers ...int) (all []time.Duration) {
	for _, n := range numbers {
		all = append(all, time.Duration(n)*24*time.Hour)
	}
	return all
}

var (
	agesDesc = prometheus.NewDesc("tokenbroker_client_secret_age_seconds",
		"How old the client secrets are of the registered tenants that are not disabled, as it was a minute ago at most: unlike those of other histograms, the counts also go down, are not for rate(), and have no sum (NaN). A secret from before its time was noted is as old as its tenant. Each replica shows all.", nil, nil)
	oldestDesc = prometheus.NewDesc("tokenbroker_tenant_client_secret_age_seconds",
		"The same of the ten tenants whose client secrets are the oldest.", []string{"tenant"}, nil)
)

// ReadSecretAges says how many client secrets are no older than each of ages, and
// which are the oldest, up to a number.
type ReadSecretAges func(ctx context.Context, ages []time.Duration, oldest int) (tenant.SecretAges, error)

// SecretAges is how old the client secrets were when it was last read; nothing,
// before it was. It is safe for concurrent use.
type SecretAges struct {
	read ReadSecretAges
	log  *slog.Logger
	last atomic.Pointer[tenant.SecretAges]
}

// NewSecretAges returns the ages that are read with read.
func NewSecretAges(read ReadSecretAges, log *slog.Logger) *SecretAges {
	return &SecretAges{read: read, log: log}
}

// Watch reads the ages now and every minute, until ctx ends. When they cannot be
// read, what was read last stays; it is logged when that begins.
func (s *SecretAges) Watch(ctx context.Context) {
	ticker := time.NewTicker(readAgesEvery)
	defer ticker.Stop()
	for failing := false; ; {
		if err := s.readOnce(ctx); err != nil && !failing && ctx.Err() == nil {
			s.log.WarnContext(ctx, "the ages of client secrets are not known anew", "error", err)
			failing = true
		} else if err == nil {
			failing = false
		}
		select {
		case <-ticker.C:
		case <-ctx.Done():
			return
		}
	}
}

func (s *SecretAges) readOnce(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, readAgesTimeout)
	defer cancel()
	now, err := s.read(ctx, ageBuckets, worstTenants)
	if err == nil {
		s.last.Store(&now)
	}
	return err
}

// Describe sends the descriptions of the metrics.
func (s *SecretAges) Describe(ch chan<- *prometheus.Desc) {
	ch <- agesDesc
	ch <- oldestDesc
}

// Collect sends the metrics, from memory.
func (s *SecretAges) Collect(ch chan<- prometheus.Metric) {
	last := s.last.Load()
	if last == nil {
		return
	}
	buckets := make(map[float64]uint64, len(ageBuckets))
	for i, bound := range ageBuckets {
		buckets[bound.Seconds()] = last.Within[i]
	}
	ch <- prometheus.MustNewConstHistogram(agesDesc, last.Count, math.NaN(), buckets)
	for _, oldest := range last.Oldest {
		// The clock of who has set it may be ahead.
		age := max(0, time.Since(oldest.Since).Seconds())
		ch <- prometheus.MustNewConstMetric(oldestDesc, prometheus.GaugeValue, age, oldest.Tenant)
	}
}

package ops

import (
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"smokeball.internal/tokenbroker/internal/redisstore"
)

// RedisObserver measures what a store tells of. It is safe for concurrent use.
type RedisObserver struct{ commands *prometheus.HistogramVec }

var _ redisstore.Observer = (*RedisObserver)(nil)

// NewRedisObserver returns an observer that has seen nothing.
func NewRedisObserver() *RedisObserver {
	return &RedisObserver{prometheus.NewHistogramVec(prometheus.HistogramOpts{
		Name: "tokenbroker_redis_command_duration_seconds",
		Help: "How long Redis took to answer, with the wait for a connection and all attempts, by command (a script by its own name) and outcome: an error is no answer, or a refusal. " +
			"waitaof waits for the disk, for three seconds at most. The read that waits for changes is left out: see tokenbroker_change_stream_lag_seconds.",
		// A command is given a second, and sent twice at most.
		Buckets: []float64{.00025, .0005, .001, .0025, .005, .01, .025, .05, .1, .25, .5, 1, 2.5},
	}, []string{"command", "outcome"})}
}

// Answered implements redisstore.Observer.
func (o *RedisObserver) Answered(command string, took time.Duration, failed bool) {
	outcome := "ok"
	if failed {
		outcome = "error"
	}
	o.commands.WithLabelValues(command, outcome).Observe(took.Seconds())
}

// Describe sends the description of the metric.
func (o *RedisObserver) Describe(ch chan<- *prometheus.Desc) { o.commands.Describe(ch) }

// Collect sends the metric.
func (o *RedisObserver) Collect(ch chan<- prometheus.Metric) { o.commands.Collect(ch) }

var (
	connsDesc = prometheus.NewDesc("tokenbroker_redis_pool_connections",
		"Connections to Redis.", []string{"state"}, nil)
	poolTimeoutsDesc = prometheus.NewDesc("tokenbroker_redis_pool_timeouts_total",
		"Commands that were not sent since none of the connections to Redis was free within a second.", nil, nil)
	lagDesc = prometheus.NewDesc("tokenbroker_change_stream_lag_seconds",
		"How old a change may be that this replica has not heard of. While all is well it is half a second and a little more at most; it grows while Redis is away.", nil, nil)
	lostDesc = prometheus.NewDesc("tokenbroker_registry_lost",
		"Whether the registry of tenants is gone from Redis, or is another than before: 1 until it is restored, or this replica is restarted.", nil, nil)
	refusedDesc = prometheus.NewDesc("tokenbroker_sealed_records_refused_total",
		"How often a record was read from Redis that does not open with the keyset, or is not what its place says: it was edited, moved, or sealed with another keyset.", []string{"kind"}, nil)
)

// storeMetrics shows how a store is.
type storeMetrics struct{ stats func() redisstore.Stats }

// StoreMetrics returns the metrics of how a store is.
func StoreMetrics(stats func() redisstore.Stats) prometheus.Collector { return storeMetrics{stats} }

// Describe sends the descriptions of the metrics.
func (m storeMetrics) Describe(ch chan<- *prometheus.Desc) {
	for _, desc := range []*prometheus.Desc{connsDesc, poolTimeoutsDesc, lagDesc, lostDesc, refusedDesc} {
		ch <- desc
	}
}

// Collect sends the metrics.
func (m storeMetrics) Collect(ch chan<- prometheus.Metric) {
	stats := m.stats()
	gauge := func(desc *prometheus.Desc, value float64, labels ...string) {
		ch <- prometheus.MustNewConstMetric(desc, prometheus.GaugeValue, value, labels...)
	}
	gauge(connsDesc, float64(stats.IdleConns), "idle")
	gauge(connsDesc, float64(stats.InUseConns), "in_use")
	ch <- prometheus.MustNewConstMetric(poolTimeoutsDesc, prometheus.CounterValue, float64(stats.PoolTimeouts))
	gauge(lagDesc, stats.Lag.Seconds())
	gauge(lostDesc, truth(stats.RegistryLost))
	for kind, n := range stats.Refused {
		ch <- prometheus.MustNewConstMetric(refusedDesc, prometheus.CounterValue, float64(n), string(kind))
	}
}

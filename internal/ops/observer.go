package ops

import (
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"smokeball.internal/tokenbroker/internal/broker"
	"smokeball.internal/tokenbroker/internal/token"
)

// BrokerObserver measures what a broker tells of. It is safe for concurrent use.
type BrokerObserver struct {
	exchanges *prometheus.HistogramVec
	replaced  prometheus.Histogram
}

var _ broker.Observer = (*BrokerObserver)(nil)

// NewBrokerObserver returns an observer that has seen nothing.
func NewBrokerObserver() *BrokerObserver {
	return &BrokerObserver{
		exchanges: prometheus.NewHistogramVec(prometheus.HistogramOpts{
			Name: "tokenbroker_exchange_duration_seconds",
			Help: "How long exchanges took with all their attempts, by the issuer's host and the outcome.",
			// The issuer is given ten seconds.
			Buckets: []float64{.025, .05, .1, .2, .4, .8, 1.6, 3.2, 6.4, 10},
		}, []string{"issuer", "outcome"}),
		replaced: prometheus.NewHistogram(prometheus.HistogramOpts{
			Name:    "tokenbroker_refresh_ahead_left_seconds",
			Help:    "How much of its life a token had left when it was replaced behind its callers' backs.",
			Buckets: leftBuckets,
		}),
	}
}

// Exchanged implements broker.Observer.
func (o *BrokerObserver) Exchanged(endpoint string, class token.Class, took time.Duration) {
	outcome := string(class)
	if class == "" {
		outcome = "ok"
	}
	o.exchanges.WithLabelValues(hostOf(endpoint), outcome).Observe(took.Seconds())
}

// Replaced implements broker.Observer.
func (o *BrokerObserver) Replaced(left time.Duration) { o.replaced.Observe(left.Seconds()) }

// Describe sends the descriptions of the metrics.
func (o *BrokerObserver) Describe(ch chan<- *prometheus.Desc) {
	o.exchanges.Describe(ch)
	o.replaced.Describe(ch)
}

// Collect sends the metrics.
func (o *BrokerObserver) Collect(ch chan<- prometheus.Metric) {
	o.exchanges.Collect(ch)
	o.replaced.Collect(ch)
}

package ops

import (
	"github.com/prometheus/client_golang/prometheus"

	"smokeball.internal/tokenbroker/internal/broker"
)

// brokerMetrics shows a broker's counts.
type brokerMetrics struct {
	stats func() broker.Stats
}

var (
	answersDesc = prometheus.NewDesc("tokenbroker_answers_total",
		"Tokens handed out: from memory, or after the caller waited for the store, another replica or the issuer.", []string{"from"}, nil)
	exchangesDesc = prometheus.NewDesc("tokenbroker_exchanges_total",
		"Token requests made to the issuer, all attempts of one exchange counted once, by outcome. At least those with the outcome \"ok\" are billed.", []string{"outcome"}, nil)
)

// BrokerMetrics returns the metrics of a broker.
func BrokerMetrics(stats func() broker.Stats) prometheus.Collector { return brokerMetrics{stats} }

// Describe sends the descriptions of the metrics.
func (m brokerMetrics) Describe(ch chan<- *prometheus.Desc) {
	ch <- answersDesc
	ch <- exchangesDesc
}

// Collect sends the metrics.
func (m brokerMetrics) Collect(ch chan<- prometheus.Metric) {
	stats := m.stats()
	count := func(desc *prometheus.Desc, n uint64, label string) {
		ch <- prometheus.MustNewConstMetric(desc, prometheus.CounterValue, float64(n), label)
	}
	count(answersDesc, stats.FromMemory, "memory")
	count(answersDesc, stats.Waited, "waited")
	count(exchangesDesc, stats.Bought, "ok")
	for class, n := range stats.Failed {
		count(exchangesDesc, n, string(class))
	}
}

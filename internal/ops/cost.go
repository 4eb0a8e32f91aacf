package ops

import (
	"github.com/prometheus/client_golang/prometheus"

	"smokeball.internal/tokenbroker/internal/broker"
)

var (
	costDesc = prometheus.NewDesc("tokenbroker_token_cost_total",
		"What the tokens cost that this replica has bought: --token-price for each, in its currency.", nil, nil)
	savedDesc = prometheus.NewDesc("tokenbroker_token_cost_saved_total",
		"--token-price for each token that was handed out and for which no exchange was made: from memory, from the store, or waited for together with others. "+
			"An upper bound of what is saved: a caller that bought for itself, and kept each token for its life, would have bought fewer than it asks for here. "+
			"A watch counts with each token, and again when its stream is opened anew.", nil, nil)
)

// costMetrics shows what a broker's tokens cost.
type costMetrics struct {
	stats func() broker.Stats
	price float64
}

// CostMetrics returns the metrics of what a broker's tokens cost, at this price
// for each.
func CostMetrics(stats func() broker.Stats, price float64) prometheus.Collector {
	return costMetrics{stats, price}
}

// Describe sends the descriptions of the metrics.
func (m costMetrics) Describe(ch chan<- *prometheus.Desc) {
	ch <- costDesc
	ch <- savedDesc
}

// Collect sends the metrics.
func (m costMetrics) Collect(ch chan<- prometheus.Metric) {
	stats := m.stats()
	cost := func(desc *prometheus.Desc, tokens uint64) {
		ch <- prometheus.MustNewConstMetric(desc, prometheus.CounterValue, m.price*float64(tokens))
	}
	cost(costDesc, stats.Bought)
	cost(savedDesc, stats.FromMemory+stats.FromStore+stats.Joined)
}

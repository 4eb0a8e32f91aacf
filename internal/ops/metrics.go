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
	putOffDesc = prometheus.NewDesc("tokenbroker_exchanges_put_off_total",
		"Token requests that were not made for now: the fleet's budget for the issuer was used up, or the issuer is given a rest after failures for several tenants.", []string{"because"}, nil)
	hearingDesc = prometheus.NewDesc("tokenbroker_changes_heard",
		"Whether this replica hears of changes of tenants: 0 after --max-staleness without Redis, when tenants in memory are not served any more.", nil, nil)
)

// BrokerMetrics returns the metrics of a broker.
func BrokerMetrics(stats func() broker.Stats) prometheus.Collector { return brokerMetrics{stats} }

// Describe sends the descriptions of the metrics.
func (m brokerMetrics) Describe(ch chan<- *prometheus.Desc) {
	ch <- answersDesc
	ch <- exchangesDesc
	ch <- putOffDesc
	ch <- hearingDesc
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
	count(putOffDesc, stats.OverBudget, "budget")
	count(putOffDesc, stats.Rested, "rest")
	hears := 1.0
	if stats.Deaf {
		hears = 0
	}
	ch <- prometheus.MustNewConstMetric(hearingDesc, prometheus.GaugeValue, hears)
	for class, n := range stats.Failed {
		count(exchangesDesc, n, string(class))
	}
}

package ops

import (
	"net/url"

	"github.com/prometheus/client_golang/prometheus"

	"smokeball.internal/tokenbroker/internal/broker"
	"smokeball.internal/tokenbroker/internal/token"
)

// brokerMetrics shows a broker's counts.
type brokerMetrics struct {
	stats func() broker.Stats
}

var (
	answersDesc = prometheus.NewDesc("tokenbroker_answers_total",
		"Tokens handed out, by where they came from: memory, or, when the caller had to wait, the store, an exchange that was made for it, or what it waited for together with others (waited). A watch counts when the token is news.", []string{"from"}, nil)
	exchangesDesc = prometheus.NewDesc("tokenbroker_exchanges_total",
		"Token requests made to the issuer, all attempts of one exchange counted once, by outcome. At least those with the outcome \"ok\" are billed.", []string{"outcome"}, nil)
	limitDesc = prometheus.NewDesc("tokenbroker_exchange_rate_limit",
		"Exchanges per second that the whole fleet allows itself with one issuer (--exchange-rate).", nil, nil)
	putOffDesc = prometheus.NewDesc("tokenbroker_exchanges_put_off_total",
		"Token requests that were not made for now: the fleet's budget for the issuer was used up, or the issuer is given a rest after failures for several tenants.", []string{"because"}, nil)
	aheadFailedDesc = prometheus.NewDesc("tokenbroker_refreshes_ahead_failed_total",
		"Exchanges to replace a token behind its callers' backs that brought none. The token that is held goes on being handed out while it may.", nil, nil)
	leaseWaitsDesc = prometheus.NewDesc("tokenbroker_lease_waits_total",
		"How often another replica was waited for that was buying the token.", nil, nil)
	takeoversDesc = prometheus.NewDesc("tokenbroker_lease_takeovers_total",
		"How often a replica that was waited for brought no token, and this one went on to buy it.", nil, nil)
	issuerDesc = prometheus.NewDesc("tokenbroker_issuer_state",
		"Whether exchanges are made with an issuer (by host): 1 for the state it is in. It serves, rests after failures for several tenants, or is tried with one exchange.", []string{"issuer", "state"}, nil)
	watchesDesc = prometheus.NewDesc("tokenbroker_watches",
		"Watches of tokens that are open.", nil, nil)
	hearingDesc = prometheus.NewDesc("tokenbroker_changes_heard",
		"Whether this replica hears of changes of tenants: 0 after --max-staleness without Redis, when tenants in memory are not served any more.", nil, nil)
)

// BrokerMetrics returns the metrics of a broker's counts.
func BrokerMetrics(stats func() broker.Stats) prometheus.Collector { return brokerMetrics{stats} }

// Describe sends the descriptions of the metrics.
func (m brokerMetrics) Describe(ch chan<- *prometheus.Desc) {
	for _, desc := range []*prometheus.Desc{answersDesc, exchangesDesc, limitDesc, putOffDesc, aheadFailedDesc, leaseWaitsDesc, takeoversDesc, issuerDesc, watchesDesc, hearingDesc} {
		ch <- desc
	}
}

// Collect sends the metrics.
func (m brokerMetrics) Collect(ch chan<- prometheus.Metric) {
	stats := m.stats()
	count := func(desc *prometheus.Desc, n uint64, labels ...string) {
		ch <- prometheus.MustNewConstMetric(desc, prometheus.CounterValue, float64(n), labels...)
	}
	gauge := func(desc *prometheus.Desc, value float64, labels ...string) {
		ch <- prometheus.MustNewConstMetric(desc, prometheus.GaugeValue, value, labels...)
	}
	count(answersDesc, stats.FromMemory, "memory")
	count(answersDesc, stats.FromStore, "store")
	count(answersDesc, stats.FromExchange, "exchange")
	count(answersDesc, stats.Joined, "waited")
	count(exchangesDesc, stats.Bought, "ok")
	for _, class := range token.Classes() {
		count(exchangesDesc, stats.Failed[class], string(class))
	}
	gauge(limitDesc, stats.ExchangeRate)
	count(putOffDesc, stats.OverBudget, "budget")
	count(putOffDesc, stats.Rested, "rest")
	count(aheadFailedDesc, stats.AheadFailed)
	count(leaseWaitsDesc, stats.LeaseWaits)
	count(takeoversDesc, stats.Takeovers)
	for host, is := range byHost(stats.Issuers) {
		for _, state := range broker.IssuerStates() {
			gauge(issuerDesc, truth(is == state), host, string(state))
		}
	}
	gauge(watchesDesc, float64(stats.Watches))
	gauge(hearingDesc, truth(!stats.Deaf))
}

// byHost returns the state of each host: of several token endpoints on one, which
// only overrides have, that of the one that fares worst.
func byHost(endpoints map[string]broker.IssuerState) map[string]broker.IssuerState {
	worse := map[broker.IssuerState]int{broker.Serving: 0, broker.Tried: 1, broker.Resting: 2}
	hosts := map[string]broker.IssuerState{}
	for endpoint, is := range endpoints {
		host := hostOf(endpoint)
		if before, ok := hosts[host]; !ok || worse[is] > worse[before] {
			hosts[host] = is
		}
	}
	return hosts
}

// truth is a condition as a metric has it.
func truth(is bool) float64 {
	if is {
		return 1
	}
	return 0
}

// hostOf returns the host of a token endpoint, which is what operators know an
// issuer by.
func hostOf(endpoint string) string {
	if u, err := url.Parse(endpoint); err == nil && u.Host != "" {
		return u.Host
	}
	return endpoint
}

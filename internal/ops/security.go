package ops

import (
	"github.com/prometheus/client_golang/prometheus"

	"smokeball.internal/tokenbroker/internal/audit"
)

var (
	staleDesc = prometheus.NewDesc("tokenbroker_setting_stale",
		"Whether the files of a setting have changed and cannot be loaded, so that what was there before is still in force: 1; the log says why.", []string{"setting"}, nil)
	auditedDesc = prometheus.NewDesc("tokenbroker_audit_records_total",
		"Records of the audit log: written, or dropped because it could not be written fast enough or at all.", []string{"outcome"}, nil)
)

// settingMetrics shows which settings are stale.
type settingMetrics struct{ stale func() map[string]bool }

// SettingMetrics returns a metric of what a reload.Watcher says of settings.
func SettingMetrics(stale func() map[string]bool) prometheus.Collector { return settingMetrics{stale} }

// Describe sends the description of the metric.
func (m settingMetrics) Describe(ch chan<- *prometheus.Desc) { ch <- staleDesc }

// Collect sends the metric, of every setting.
func (m settingMetrics) Collect(ch chan<- prometheus.Metric) {
	for setting, stale := range m.stale() {
		value := 0.0
		if stale {
			value = 1
		}
		ch <- prometheus.MustNewConstMetric(staleDesc, prometheus.GaugeValue, value, setting)
	}
}

// auditMetrics shows an audit log's counts.
type auditMetrics struct{ stats func() audit.Stats }

// AuditMetrics returns the metrics of an audit log.
func AuditMetrics(stats func() audit.Stats) prometheus.Collector { return auditMetrics{stats} }

// Describe sends the description of the metric.
func (m auditMetrics) Describe(ch chan<- *prometheus.Desc) { ch <- auditedDesc }

// Collect sends the metric.
func (m auditMetrics) Collect(ch chan<- prometheus.Metric) {
	stats := m.stats()
	for outcome, n := range map[string]uint64{"written": stats.Written, "dropped": stats.Dropped} {
		ch <- prometheus.MustNewConstMetric(auditedDesc, prometheus.CounterValue, float64(n), outcome)
	}
}

package ops

import (
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"smokeball.internal/tokenbroker/internal/audit"
)

var (
	staleDesc = prometheus.NewDesc("tokenbroker_setting_stale",
		"Whether the files of a setting have changed and cannot be loaded, so that what was there before is still in force: 1; the log says why.", []string{"setting"}, nil)
	endsDesc = prometheus.NewDesc("tokenbroker_certificate_expiry_timestamp_seconds",
		"When the first certificate ends of those that are in force, as Unix time: of the server's chain (server), and of the authorities of callers (client_ca), of which others may still be good.", []string{"certificate"}, nil)
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
		ch <- prometheus.MustNewConstMetric(staleDesc, prometheus.GaugeValue, truth(stale), setting)
	}
}

// certificateMetrics shows when certificates end.
type certificateMetrics struct {
	ends func() (server, authorities time.Time)
}

// CertificateMetrics returns a metric of what access.Certificates says of their ends.
func CertificateMetrics(ends func() (server, authorities time.Time)) prometheus.Collector {
	return certificateMetrics{ends}
}

// Describe sends the description of the metric.
func (m certificateMetrics) Describe(ch chan<- *prometheus.Desc) { ch <- endsDesc }

// Collect sends the metric, of what there is.
func (m certificateMetrics) Collect(ch chan<- prometheus.Metric) {
	server, authorities := m.ends()
	for certificate, end := range map[string]time.Time{"server": server, "client_ca": authorities} {
		if !end.IsZero() {
			ch <- prometheus.MustNewConstMetric(endsDesc, prometheus.GaugeValue, float64(end.Unix()), certificate)
		}
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

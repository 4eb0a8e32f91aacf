package ops

import (
	"runtime"

	"github.com/prometheus/client_golang/prometheus"
)

// BuildInfo returns a metric that says which program this is.
func BuildInfo(version string) prometheus.Collector {
	info := prometheus.NewGauge(prometheus.GaugeOpts{
		Name: "tokenbroker_build_info", Help: "Which program this is, and the Go it was built with: always 1.",
		ConstLabels: prometheus.Labels{"version": version, "goversion": runtime.Version()},
	})
	info.Set(1)
	return info
}

package ops_test

import (
	"net/http/httptest"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/promhttp"

	"smokeball.internal/tokenbroker/internal/ops"
	"smokeball.internal/tokenbroker/internal/redisstore"
)

// shown returns what /metrics shows of a collector.
func shown(t *testing.T, c prometheus.Collector) string {
	t.Helper()
	r := prometheus.NewPedanticRegistry()
	if err := r.Register(c); err != nil {
		t.Fatal(err)
	}
	page := httptest.NewRecorder()
	promhttp.HandlerFor(r, promhttp.HandlerOpts{}).ServeHTTP(page, httptest.NewRequestWithContext(t.Context(), "GET", "/metrics", nil))
	if page.Code != 200 {
		t.Errorf("status %d: %s", page.Code, page.Body)
	}
	return page.Body.String()
}

func TestCommandsOfRedisAreMeasured(t *testing.T) {
	o := ops.NewRedisObserver()
	o.Answered("load", 3*time.Millisecond, false)
	o.Answered("load", 30*time.Millisecond, false)
	o.Answered("hget", time.Second, true)
	wantLines(t, shown(t, o),
		`tokenbroker_redis_command_duration_seconds_bucket{command="load",outcome="ok",le="0.0025"} 0`,
		`tokenbroker_redis_command_duration_seconds_bucket{command="load",outcome="ok",le="0.005"} 1`,
		`tokenbroker_redis_command_duration_seconds_sum{command="load",outcome="ok"} 0.033`,
		`tokenbroker_redis_command_duration_seconds_count{command="hget",outcome="error"} 1`)
}

func TestHowTheStoreIsIsShown(t *testing.T) {
	stats := redisstore.Stats{
		IdleConns: 3, InUseConns: 2, PoolTimeouts: 4, Lag: 1500 * time.Millisecond,
		Refused: map[redisstore.RecordKind]uint64{redisstore.TenantRecord: 5, redisstore.TokenRecord: 6, redisstore.FailureRecord: 0},
	}
	c := ops.StoreMetrics(func() redisstore.Stats { return stats })
	wantLines(t, shown(t, c),
		`tokenbroker_redis_pool_connections{state="idle"} 3`, `tokenbroker_redis_pool_connections{state="in_use"} 2`,
		"tokenbroker_redis_pool_timeouts_total 4", "tokenbroker_change_stream_lag_seconds 1.5", "tokenbroker_registry_lost 0",
		`tokenbroker_sealed_records_refused_total{kind="tenant"} 5`, `tokenbroker_sealed_records_refused_total{kind="token"} 6`,
		`tokenbroker_sealed_records_refused_total{kind="failure"} 0`)
	stats.RegistryLost = true
	wantLines(t, shown(t, c), "tokenbroker_registry_lost 1")
}

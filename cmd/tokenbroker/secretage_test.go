package main_test

import (
	"strings"
	"testing"

	"smokeball.internal/tokenbroker/internal/redisstore/redistest"
)

// The registry is one that brokers have written to which did not note how old secrets are.
func TestAReplicaShowsHowOldSecretsAre(t *testing.T) {
	t.Parallel()
	redis, keyset := redistest.Start(t), keysetFile(t)
	registered(t, redis, keyset, 0, 12)
	if n := redis.Client().Del(t.Context(), "tokenbroker:{tenants}:secrets").Val(); n != 1 {
		t.Fatalf("%d indexes removed", n)
	}
	p := start(t, serveArgs(redis.URL(), keyset, startIssuer(t))...).ready()
	shown := func() bool {
		metrics := p.get("/metrics")
		return strings.Contains(metrics, "\ntokenbroker_client_secret_age_seconds_bucket{le=\"2.592e+06\"} 12\n") &&
			strings.Contains(metrics, "\ntokenbroker_client_secret_age_seconds_count 12\n") &&
			strings.Count(metrics, "\ntokenbroker_tenant_client_secret_age_seconds{tenant=\"firm-") == 10
	}
	until(t, "shown", shown)
	redis.Kill()
	if !shown() {
		t.Errorf("without Redis: %s", p.get("/metrics"))
	}
	// In time, though it is in the middle of its minute.
	if code := p.terminate(); code != 0 {
		t.Errorf("exit code %d", code)
	}
}

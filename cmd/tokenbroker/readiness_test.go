package main_test

import (
	"strings"
	"testing"
	"time"

	"google.golang.org/grpc"
	healthpb "google.golang.org/grpc/health/grpc_health_v1"

	"smokeball.internal/tokenbroker/internal/redisstore/redistest"
)

func healthOf(t *testing.T, conn *grpc.ClientConn, service string) healthpb.HealthCheckResponse_ServingStatus {
	t.Helper()
	resp, err := healthpb.NewHealthClient(conn).Check(t.Context(), &healthpb.HealthCheckRequest{Service: service})
	if err != nil {
		t.Fatal(err)
	}
	return resp.GetStatus()
}

const (
	tokens  = "tokenbroker.v1.TokenService"
	tenants = "tokenbroker.v1.TenantService"
)

func TestAReplicaWithAnotherKeysetDoesNotBecomeReady(t *testing.T) {
	t.Parallel()
	redis, issuer, keyset := redistest.Start(t), startIssuer(t), keysetFile(t)
	first := start(t, serveArgs(redis.URL(), keyset, issuer)...).ready()
	register(t, first.connect(), issuer, "acme", time.Hour)

	another := keysetFile(t)
	p := start(t, serveArgs(redis.URL(), another, issuer)...)
	const why = "the keyset opens none of the 1 records of tenants that were tried: it is not the one that they are sealed with; restart with that one"
	until(t, "why it is not ready", func() bool { return p.get("/readyz") == why+"\n" })
	conn := p.connect()
	for _, service := range []string{"", tokens, tenants} {
		if got := healthOf(t, conn, service); got != healthpb.HealthCheckResponse_NOT_SERVING {
			t.Errorf("%q: %v", service, got)
		}
	}
	if status := p.get("/status"); !strings.Contains(status, `"not_ready_because":"`+why+`"`) || !strings.Contains(status, `"tenants_not_served_because":"`+why+`"`) {
		t.Errorf("status: %s", status)
	}
	p.terminate()
	start(t, serveArgs(redis.URL(), keyset, issuer)...).ready()
}

func TestAdministratorsAreNotServedWhileRedisIsAwayAndCallersAre(t *testing.T) {
	t.Parallel()
	f := startFleet(t, 1)
	conn := f.conns[0]
	both := func(wantTokens, wantTenants healthpb.HealthCheckResponse_ServingStatus) func() bool {
		return func() bool {
			return healthOf(t, conn, tokens) == wantTokens && healthOf(t, conn, tenants) == wantTenants
		}
	}
	const serving, not = healthpb.HealthCheckResponse_SERVING, healthpb.HealthCheckResponse_NOT_SERVING
	until(t, "both are served", both(serving, serving))
	f.redis.Kill()
	until(t, "callers only are served", both(serving, not))
	if status := f.replicas[0].get("/status"); !strings.Contains(status, `"ready":true`) || !strings.Contains(status, `"tenants_not_served_because":"Redis does not serve"`) {
		t.Errorf("status: %s", status)
	}
	f.redis.Restart()
	until(t, "both are served again", both(serving, serving))
}

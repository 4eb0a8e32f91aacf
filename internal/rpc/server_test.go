package rpc_test

import (
	"context"
	"errors"
	"slices"
	"strings"
	"testing"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	healthpb "google.golang.org/grpc/health/grpc_health_v1"
	reflectionpb "google.golang.org/grpc/reflection/grpc_reflection_v1"
	"google.golang.org/grpc/status"

	pb "smokeball.internal/tokenbroker/gen/tokenbroker/v1"
	"smokeball.internal/tokenbroker/internal/broker"
	"smokeball.internal/tokenbroker/internal/simulator"
)

const (
	serving    = healthpb.HealthCheckResponse_SERVING
	notServing = healthpb.HealthCheckResponse_NOT_SERVING
)

func TestHealth(t *testing.T) {
	t.Parallel()
	h := newHouse(t, furniture{})
	wantHealth := func(tokens, tenants healthpb.HealthCheckResponse_ServingStatus) {
		t.Helper()
		for service, want := range map[string]healthpb.HealthCheckResponse_ServingStatus{"": tokens, "tokenbroker.v1.TokenService": tokens, "tokenbroker.v1.TenantService": tenants} {
			resp, err := h.health.Check(at(t), &healthpb.HealthCheckRequest{Service: service})
			if err != nil || resp.GetStatus() != want {
				t.Errorf("%q: %v, %v, want %v", service, resp.GetStatus(), err, want)
			}
		}
	}
	wantHealth(notServing, notServing)
	h.server.SetServing(true)
	wantHealth(serving, notServing)
	h.server.SetAdministering(true)
	wantHealth(serving, serving)
	h.server.SetServing(false)
	wantHealth(notServing, serving)
	h.server.SetAdministering(false)
	wantHealth(notServing, notServing)
	if _, err := h.health.Check(at(t), &healthpb.HealthCheckRequest{Service: "no.such"}); status.Code(err) != codes.NotFound {
		t.Errorf("of a service that there is not: %v", err)
	}
}

// drain drains within limit and returns how long it took.
func (h *house) drain(t *testing.T, limit time.Duration) time.Duration {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), limit)
	defer cancel()
	began := time.Now()
	h.server.Drain(ctx)
	return time.Since(began)
}

func TestDrainIdle(t *testing.T) {
	t.Parallel()
	h := newHouse(t, furniture{})
	h.register(t, "acme")
	if took := h.drain(t, 20*time.Second); took > 5*time.Second {
		t.Errorf("took %v with nothing under way", took)
	}
	if err := h.get(t, "acme"); status.Code(err) != codes.Unavailable {
		t.Errorf("afterwards: %v, want UNAVAILABLE", err)
	}
}

// Who watches health hears of it, and does not hold it up.
func TestDrainWithWatcher(t *testing.T) {
	t.Parallel()
	h := newHouse(t, furniture{})
	h.server.SetServing(true)
	watch, err := h.health.Watch(at(t), &healthpb.HealthCheckRequest{})
	if err != nil {
		t.Fatal(err)
	}
	if first, err := watch.Recv(); err != nil || first.GetStatus() != serving {
		t.Fatalf("first %v, %v", first, err)
	}
	took := make(chan time.Duration, 1)
	go func() { took <- h.drain(t, 20*time.Second) }()
	if second, err := watch.Recv(); err != nil || second.GetStatus() != notServing {
		t.Errorf("then %v, %v, want NOT_SERVING", second, err)
	}
	if third, err := watch.Recv(); err == nil {
		t.Errorf("and then %v, want the end", third)
	}
	if d := <-took; d > 10*time.Second {
		t.Errorf("a watcher held up the drain for %v", d)
	}
}

// underWay starts a call that waits for the issuer.
func (h *house) underWay(t *testing.T, f simulator.Fault) <-chan error {
	t.Helper()
	h.register(t, "acme")
	h.fault(t, "acme", f)
	answered := make(chan error, 1)
	go func() { answered <- h.get(t, "acme") }()
	eventually(t, "the issuer is asked", func() bool { return h.sim.Requests("acme-client") == 1 })
	return answered
}

func TestDrainLetsCallsFinish(t *testing.T) {
	t.Parallel()
	h := newHouse(t, furniture{})
	answered := h.underWay(t, simulator.Fault{Kind: simulator.KindDelay, Delay: 400 * time.Millisecond})
	took := h.drain(t, 20*time.Second)
	if err := <-answered; err != nil {
		t.Errorf("the call under way: %v", err)
	}
	if took > 10*time.Second {
		t.Errorf("took %v", took)
	}
}

func TestDrainIsBounded(t *testing.T) {
	t.Parallel()
	h := newHouse(t, furniture{})
	answered := h.underWay(t, simulator.Fault{Kind: simulator.KindHang})
	if took := h.drain(t, 100*time.Millisecond); took > 3*time.Second {
		t.Errorf("took %v, allowed were 100 ms", took)
	}
	if err := <-answered; status.Code(err) != codes.Unavailable {
		t.Errorf("the call under way: %v, want UNAVAILABLE", err)
	}
}

func TestReflection(t *testing.T) {
	t.Parallel()
	h := newHouse(t, furniture{})
	stream, err := reflectionpb.NewServerReflectionClient(h.conn).ServerReflectionInfo(at(t))
	if err != nil {
		t.Fatal(err)
	}
	if err := stream.Send(&reflectionpb.ServerReflectionRequest{MessageRequest: &reflectionpb.ServerReflectionRequest_ListServices{}}); err != nil {
		t.Fatal(err)
	}
	resp, err := stream.Recv()
	if err != nil {
		t.Fatal(err)
	}
	var names []string
	for _, service := range resp.GetListServicesResponse().GetService() {
		names = append(names, service.GetName())
	}
	for _, want := range []string{"tokenbroker.v1.TokenService", "tokenbroker.v1.TenantService", "grpc.health.v1.Health"} {
		if !slices.Contains(names, want) {
			t.Errorf("%s is not among %q", want, names)
		}
	}
	if err := stream.CloseSend(); err != nil {
		t.Fatal(err)
	}
}

func TestRequestTooLarge(t *testing.T) {
	t.Parallel()
	h := newHouse(t, furniture{})
	h.register(t, "acme")
	for _, size := range []int{1 << 20, 3 << 20} {
		_, err := h.tokens.GetToken(at(t), &pb.GetTokenRequest{Tenant: strings.Repeat("t", size)})
		if s := status.Convert(err); s.Code() != codes.ResourceExhausted || len(s.Message()) > 200 {
			t.Errorf("%d bytes: %v", size, err)
		}
	}
	h.token(t, "acme")
}

// raw puts bytes on the wire as they are.
type raw struct{}

func (raw) Name() string { return "proto" }

func (raw) Marshal(v any) ([]byte, error) { return v.([]byte), nil }

func (raw) Unmarshal([]byte, any) error { return errors.New("there is no answer to read") }

func TestRequestThatIsNone(t *testing.T) {
	t.Parallel()
	h := newHouse(t, furniture{})
	for name, bytes := range map[string][]byte{
		"truncated":     {0x0a, 0x7f, 'x'},
		"no protobuf":   []byte("planted garbage"),
		"invalid UTF-8": {0x0a, 0x02, 0xff, 0xfe},
	} {
		err := h.conn.Invoke(at(t), pb.TokenService_GetToken_FullMethodName, bytes, new([]byte), grpc.ForceCodec(raw{}))
		if s := status.Convert(err); s.Code() != codes.Internal || strings.Contains(s.Message(), "planted") {
			t.Errorf("%s: %v", name, err)
		}
	}
	h.wantNothingStored(t)
}

// A panic ends one call, tells the caller nothing, and leaves out of the log what
// it was given.
func TestPanic(t *testing.T) {
	t.Parallel()
	f := odd(&oddIssuer{panic: "planted-panic"})
	f.records = func(real broker.Records) broker.Records { return panickyRecords{real} }
	h := newHouse(t, f)
	h.register(t, "acme")
	ctx := at(t)
	for name, call := range map[string]func() error{
		"in the handler": func() error {
			_, err := h.tenants.CheckTenant(ctx, &pb.CheckTenantRequest{Name: "tenants/acme"})
			return err
		},
		"in a flight":          func() error { return h.get(t, "acme") },
		"in a tenant's flight": func() error { return h.get(t, "panic") },
	} {
		if s := status.Convert(call()); s.Code() != codes.Internal || s.Message() != "internal error" || len(details(t, s)) != 0 {
			t.Errorf("%s: %v", name, s)
		}
	}
	log := h.log.String()
	for _, want := range []string{`"msg":"panic in a call"`, `"msg":"panic in the broker"`, "oddIssuer", `"grpc.code":"Internal"`} {
		if !strings.Contains(log, want) {
			t.Errorf("%s is not in the log", want)
		}
	}
	wantNoSecret(t, "log", log)
	h.tenant(t, "acme") // The server lives.
}

func TestMetrics(t *testing.T) {
	t.Parallel()
	h := newHouse(t, odd(&oddIssuer{panic: "planted-panic"}))
	h.register(t, "acme")
	h.wantHandled(t, "TenantService", "CreateTenant", "OK", 1)
	_ = h.get(t, "nobody")
	_ = h.get(t, "nobody")
	_ = h.get(t, "NOBODY")
	_ = h.get(t, "acme")
	h.wantHandled(t, "TokenService", "GetToken", "NotFound", 2)
	h.wantHandled(t, "TokenService", "GetToken", "InvalidArgument", 1)
	h.wantHandled(t, "TokenService", "GetToken", "Internal", 1) // The panic.
	h.wantHandled(t, "TokenService", "RefreshToken", "OK", 0)   // There from the start, for rates.
}

// wantHandled waits for a count: it is made after the caller has the answer.
func (h *house) wantHandled(t *testing.T, service, method, code string, want float64) {
	t.Helper()
	handled := func() float64 {
		families, err := h.metrics.Gather()
		if err != nil {
			t.Fatal(err)
		}
		for _, family := range families {
			if family.GetName() != "grpc_server_handled_total" {
				continue
			}
			for _, m := range family.GetMetric() {
				labels := map[string]string{}
				for _, l := range m.GetLabel() {
					labels[l.GetName()] = l.GetValue()
				}
				if labels["grpc_service"] == "tokenbroker.v1."+service && labels["grpc_method"] == method && labels["grpc_code"] == code {
					return m.GetCounter().GetValue()
				}
			}
		}
		return -1
	}
	eventually(t, service+"/"+method+" "+code, func() bool { return handled() == want })
}

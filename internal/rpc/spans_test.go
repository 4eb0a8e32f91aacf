package rpc_test

import (
	"context"
	"strings"
	"testing"

	otelcodes "go.opentelemetry.io/otel/codes"
	sdktrace "go.opentelemetry.io/otel/sdk/trace"
	"go.opentelemetry.io/otel/sdk/trace/tracetest"
	"go.opentelemetry.io/otel/trace"
	"google.golang.org/grpc/codes"
	healthpb "google.golang.org/grpc/health/grpc_health_v1"
	"google.golang.org/grpc/metadata"
	"google.golang.org/grpc/status"

	pb "smokeball.internal/tokenbroker/gen/tokenbroker/v1"
	"smokeball.internal/tokenbroker/internal/access"
	"smokeball.internal/tokenbroker/internal/broker"
)

const (
	callersTrace = "0af7651916cd43dd8448eb211c80319c"
	callersSpan  = "b7ad6b7169203331"
	traceparent  = "00-" + callersTrace + "-" + callersSpan + "-01"
)

func newTracedHouse(t *testing.T, f furniture) (*house, *tracetest.SpanRecorder) {
	spans := tracetest.NewSpanRecorder()
	f.tracer = sdktrace.NewTracerProvider(sdktrace.WithSpanProcessor(spans)).Tracer("test")
	return newHouse(t, f), spans
}

// traced is a context for calls whose caller has a trace.
func traced(t *testing.T) context.Context {
	return metadata.AppendToOutgoingContext(at(t), "traceparent", traceparent, "x-request-id", "the-request")
}

// called returns the server's span of a method, of which there is one.
func called(t *testing.T, spans *tracetest.SpanRecorder, method string) sdktrace.ReadOnlySpan {
	t.Helper()
	var found sdktrace.ReadOnlySpan
	eventually(t, "a span of "+method, func() bool {
		for _, span := range spans.Ended() {
			if span.SpanKind() == trace.SpanKindServer && strings.HasSuffix(span.Name(), "/"+method) {
				found = span
			}
		}
		return found != nil
	})
	return found
}

func attributesOf(s sdktrace.ReadOnlySpan) map[string]string {
	all := map[string]string{}
	for _, a := range s.Attributes() {
		all[string(a.Key)] = a.Value.String()
	}
	return all
}

func wantAttributes(t *testing.T, s sdktrace.ReadOnlySpan, want map[string]string) {
	t.Helper()
	got := attributesOf(s)
	for key, value := range want {
		if got[key] != value {
			t.Errorf("%s has %s %q, want %q", s.Name(), key, got[key], value)
		}
	}
}

// A caller's trace goes on in the broker, through the store and the issuer.
func TestCallersTraceGoesOn(t *testing.T) {
	h, spans := newTracedHouse(t, furniture{})
	h.register(t, "acme")
	spans.Reset()
	if _, err := h.tokens.GetToken(traced(t), &pb.GetTokenRequest{Tenant: "tenants/acme"}); err != nil {
		t.Fatal(err)
	}
	call := called(t, spans, "GetToken")
	if call.Parent().TraceID().String() != callersTrace || call.Parent().SpanID().String() != callersSpan || !call.Parent().IsRemote() {
		t.Errorf("the call is under %v", call.Parent())
	}
	if call.Name() != "tokenbroker.v1.TokenService/GetToken" {
		t.Errorf("it is called %q", call.Name())
	}
	wantAttributes(t, call, map[string]string{"rpc.system.name": "grpc", "rpc.response.status_code": "OK",
		"tokenbroker.tenant": "tenants/acme", "tokenbroker.request_id": "the-request"})
	names := map[string]bool{}
	eventually(t, "the flight to end", func() bool {
		for _, span := range spans.Ended() {
			names[span.Name()] = true
			if span.SpanContext().TraceID().String() != callersTrace {
				t.Errorf("%q is in another trace", span.Name())
			}
		}
		return names["flight"]
	})
	for _, want := range []string{"wait for token", "look up tenant", "HGET", "EVALSHA load", "EVALSHA lease", "EVALSHA admit", "exchange", "POST", "EVALSHA save"} {
		if !names[want] && !names[strings.Replace(want, "EVALSHA", "EVAL", 1)] {
			t.Errorf("there is no %q among %v", want, names)
		}
	}
}

// What went wrong is told by the code and the reason that the caller has, and is
// an error of the server's only if it is one.
func TestSpanOfAFailedCall(t *testing.T) {
	h, spans := newTracedHouse(t, furniture{})
	for _, test := range []struct {
		method string
		call   func() error
		want   map[string]string
		failed bool
	}{
		{"GetToken", func() error {
			_, err := h.tokens.GetToken(traced(t), &pb.GetTokenRequest{Tenant: "tenants/nobody"})
			return err
		}, map[string]string{"rpc.response.status_code": "NOT_FOUND", "error.type": "TENANT_NOT_FOUND", "tokenbroker.tenant": "tenants/nobody"}, false},
		{"RefreshToken", func() error {
			_, err := h.tokens.RefreshToken(traced(t), &pb.RefreshTokenRequest{Tenant: "no name of a tenant"})
			return err
		}, map[string]string{"rpc.response.status_code": "INVALID_ARGUMENT", "tokenbroker.tenant": ""}, false},
		{"GetTenant", func() error {
			h.stopRedis()
			_, err := h.tenants.GetTenant(traced(t), &pb.GetTenantRequest{Name: "tenants/acme"})
			return err
		}, map[string]string{"rpc.response.status_code": "UNAVAILABLE", "error.type": "STORE_UNAVAILABLE"}, true},
	} {
		if test.call() == nil {
			t.Errorf("%s has not failed", test.method)
		}
		span := called(t, spans, test.method)
		wantAttributes(t, span, test.want)
		if failed := span.Status().Code == otelcodes.Error; failed != test.failed || span.Status().Description != "" {
			t.Errorf("%s: the status is %+v", test.method, span.Status())
		}
	}
}

// Nobody has spans made by asking for health, or without being let in.
func TestCallsWithoutSpans(t *testing.T) {
	h, spans := newTracedHouse(t, furniture{guard: func(b *broker.Broker) *access.Guard { return access.NewGuard(nil, b) }})
	if _, err := h.tokens.GetToken(traced(t), &pb.GetTokenRequest{Tenant: "tenants/acme"}); status.Code(err) != codes.Unauthenticated {
		t.Errorf("a caller without proof: %v", err)
	}
	open, others := newTracedHouse(t, furniture{})
	if _, err := open.health.Check(traced(t), &healthpb.HealthCheckRequest{}); err != nil {
		t.Error(err)
	}
	if n := len(spans.Started()) + len(others.Started()); n != 0 {
		t.Errorf("there are %d spans", n)
	}
}

// A trace that is told twice, or not as the standard has it, is none, and harms nobody.
func TestOddTraceparents(t *testing.T) {
	h, spans := newTracedHouse(t, furniture{})
	h.register(t, "acme")
	for _, odd := range [][]string{
		{traceparent, traceparent}, {""}, {"00-0-0-01"}, {"00-" + strings.Repeat("0", 32) + "-" + callersSpan + "-01"}, {strings.Repeat("x", 10_000)}, {"ff-" + callersTrace + "-" + callersSpan + "-01"},
	} {
		spans.Reset()
		ctx := metadata.NewOutgoingContext(at(t), metadata.MD{"traceparent": odd})
		if _, err := h.tokens.GetToken(ctx, &pb.GetTokenRequest{Tenant: "tenants/acme"}); err != nil {
			t.Fatal(err)
		}
		if call := called(t, spans, "GetToken"); call.Parent().IsValid() {
			t.Errorf("%.40q: the call is under %v", odd, call.Parent())
		}
	}
}

// A watch is a span until it ends; what its flights do is in it.
func TestSpanOfAWatch(t *testing.T) {
	h, spans := newTracedHouse(t, furniture{})
	h.register(t, "acme")
	ctx, cancel := context.WithCancel(traced(t))
	stream, err := h.tokens.WatchToken(ctx, &pb.WatchTokenRequest{Tenant: "tenants/acme"})
	if err != nil {
		t.Fatal(err)
	}
	if _, err := stream.Recv(); err != nil {
		t.Fatal(err)
	}
	cancel()
	watch := called(t, spans, "WatchToken")
	if watch.Parent().SpanID().String() != callersSpan {
		t.Errorf("the watch is under %v", watch.Parent())
	}
	wantAttributes(t, watch, map[string]string{"rpc.response.status_code": "CANCELLED", "tokenbroker.tenant": "tenants/acme"})
}

// The log has the trace beside the request's id.
func TestLogHasTheTrace(t *testing.T) {
	h, spans := newTracedHouse(t, furniture{})
	h.register(t, "acme")
	if _, err := h.tenants.GetTenant(traced(t), &pb.GetTenantRequest{Name: "tenants/acme"}); err != nil {
		t.Fatal(err)
	}
	span := called(t, spans, "GetTenant").SpanContext().SpanID().String()
	eventually(t, "a record of the call", func() bool { return strings.Contains(h.log.String(), `"request_id":"the-request"`) })
	for line := range strings.Lines(h.log.String()) {
		if strings.Contains(line, `"request_id":"the-request"`) && (!strings.Contains(line, `"trace_id":"`+callersTrace+`"`) || !strings.Contains(line, `"span_id":"`+span+`"`)) {
			t.Errorf("the record is %s", line)
		}
	}
}

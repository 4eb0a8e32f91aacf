package rpc_test

import (
	"context"
	"io"
	"log/slog"
	"testing"

	"github.com/prometheus/client_golang/prometheus"
	"google.golang.org/grpc"
	"google.golang.org/grpc/metadata"
	"google.golang.org/grpc/tap"

	pb "smokeball.internal/tokenbroker/gen/tokenbroker/v1"
	"smokeball.internal/tokenbroker/internal/access"
	"smokeball.internal/tokenbroker/internal/audit"
	"smokeball.internal/tokenbroker/internal/broker/brokertest"
	"smokeball.internal/tokenbroker/internal/logging"
	"smokeball.internal/tokenbroker/internal/rpc"
)

// hotPath returns what there is on the way of a GetToken that is answered from memory,
// with metrics and the audit log, in three parts: the look at who calls, the whole way
// with the handler at its end, and the generated code with the handler alone.
func hotPath(t testing.TB) (look, way, handler func()) {
	fleet := brokertest.NewFleet(t, 1)
	fleet.Register(t, "acme-law", nil)
	records, err := audit.Open(audit.Config{Sink: "stdout", Stdout: io.Discard})
	if err != nil {
		t.Fatal(err)
	}
	writing, stop := context.WithCancel(context.Background())
	done := make(chan struct{})
	go func() { defer close(done); records.Run(writing) }()
	t.Cleanup(func() { stop(); <-done })
	atDoor, interceptor, service, err := rpc.HotPath(rpc.Config{Broker: fleet.Replicas[0], Logger: logging.New(io.Discard, logging.JSON, slog.LevelInfo),
		Metrics: prometheus.NewRegistry(), Guard: access.Unguarded(fleet.Replicas[0]), Audit: records})
	if err != nil {
		t.Fatal(err)
	}
	headers := metadata.MD{":authority": {"broker"}, "content-type": {"application/grpc"}, "user-agent": {"grpc-go"}, "grpc-accept-encoding": {"gzip"}}
	ctx := metadata.NewIncomingContext(t.Context(), headers)
	info := &tap.Info{FullMethodName: pb.TokenService_GetToken_FullMethodName, Header: headers}
	call, err := atDoor(ctx, info)
	if err != nil {
		t.Fatal(err)
	}
	read := func(m any) error { m.(*pb.GetTokenRequest).Tenant = "tenants/acme-law"; return nil }
	method := pb.TokenService_ServiceDesc.Methods[0]
	if method.MethodName != "GetToken" {
		t.Fatal(method.MethodName)
	}
	ask := func(ctx context.Context, by grpc.UnaryServerInterceptor) func() {
		return func() {
			if _, err := method.Handler(service, ctx, read, by); err != nil {
				t.Fatal(err)
			}
		}
	}
	return func() { _, _ = atDoor(ctx, info) }, ask(call, interceptor), ask(ctx, nil)
}

// What a call leaves for the collector of garbage beside what gRPC and the message
// itself do.
func TestAHotCallAllocatesLittle(t *testing.T) {
	look, way, handler := hotPath(t)
	for _, part := range []struct {
		name string
		run  func()
		most float64
	}{
		{"look", look, 2},                               // The call, and its id.
		{"handler", handler, 3},                         // The request, the response, the token in it.
		{"way with what gRPC makes for it", way, 3 + 3}, // Two of them by the generated code, one is recovery's.
	} {
		part.run()
		if n := testing.AllocsPerRun(2000, part.run); n > part.most {
			t.Errorf("%s: %v allocations, want at most %v", part.name, n, part.most)
		}
	}
}

func BenchmarkHotPath(b *testing.B) {
	look, way, handler := hotPath(b)
	for _, part := range []struct {
		name string
		run  func()
	}{{"look", look}, {"way", way}, {"handler", handler}} {
		b.Run(part.name, func(b *testing.B) {
			b.ReportAllocs()
			for b.Loop() {
				part.run()
			}
		})
	}
}

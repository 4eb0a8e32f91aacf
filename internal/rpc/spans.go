package rpc

import (
	"context"
	"strings"

	middleware "github.com/grpc-ecosystem/go-grpc-middleware/v2"
	"go.opentelemetry.io/otel/attribute"
	otelcodes "go.opentelemetry.io/otel/codes"
	"go.opentelemetry.io/otel/propagation"
	semconv "go.opentelemetry.io/otel/semconv/v1.43.0"
	"go.opentelemetry.io/otel/trace"
	"go.opentelemetry.io/otel/trace/noop"
	"google.golang.org/genproto/googleapis/rpc/code"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/metadata"
	"google.golang.org/grpc/status"
)

// spans has a span begun for each call of the API, in the trace of its caller if that
// is told (W3C traceparent). Without a tracer there are none. Calls that the entrance
// has refused have none: nobody who is unknown, or too fast, can have spans made.
type spans struct{ tracer trace.Tracer }

func (s spans) stream(srv any, stream grpc.ServerStream, info *grpc.StreamServerInfo, handler grpc.StreamHandler) error {
	if s.tracer == nil || !ofAPI(info.FullMethod) { // Health and reflection.
		return handler(srv, stream)
	}
	ctx, span := s.begin(stream.Context(), info.FullMethod)
	err := handler(srv, &middleware.WrappedServerStream{ServerStream: stream, WrappedContext: ctx})
	end(callOf(ctx), span, err)
	return err
}

func (s spans) begin(ctx context.Context, method string) (context.Context, trace.Span) {
	if s.tracer == nil || !ofAPI(method) {
		return ctx, noop.Span{}
	}
	ctx = propagation.TraceContext{}.Extract(ctx, incoming{ctx})
	return s.tracer.Start(ctx, strings.TrimPrefix(method, "/"), ofServer...)
}

var ofServer = []trace.SpanStartOption{trace.WithSpanKind(trace.SpanKindServer)}

// end ends the span of a call that has come to err. Its text is not in the span,
// but its reason is. A caller's own mistake is no error of the server's.
func end(c *call, span trace.Span, err error) {
	if !span.IsRecording() {
		return
	}
	result := status.Code(err)
	span.SetAttributes(semconv.RPCSystemNameGRPC, semconv.RPCResponseStatusCode(code.Code(result).String()),
		attribute.String("tokenbroker.request_id", c.id))
	if c.tenant != "" {
		span.SetAttributes(attribute.String("tokenbroker.tenant", c.tenant))
	}
	if err != nil {
		span.SetAttributes(semconv.ErrorTypeKey.String(reasonOf(err)))
	}
	switch result {
	case codes.Unknown, codes.DeadlineExceeded, codes.Unimplemented, codes.Internal, codes.Unavailable, codes.DataLoss:
		span.SetStatus(otelcodes.Error, "")
	}
	span.End()
}

func ofAPI(method string) bool { return strings.HasPrefix(method, "/tokenbroker.v1.") }

// incoming is the metadata of a call, for the propagator, which only reads.
type incoming struct{ ctx context.Context }

// Get implements propagation.TextMapCarrier.
func (i incoming) Get(key string) string {
	if values := metadata.ValueFromIncomingContext(i.ctx, key); len(values) == 1 {
		return values[0]
	}
	return ""
}

// Set implements propagation.TextMapCarrier.
func (incoming) Set(string, string) {}

// Keys implements propagation.TextMapCarrier.
func (incoming) Keys() []string { return nil }

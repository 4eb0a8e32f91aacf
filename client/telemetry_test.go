package client_test

import (
	"context"
	"testing"

	"go.opentelemetry.io/otel"
	"go.opentelemetry.io/otel/propagation"
	"go.opentelemetry.io/otel/sdk/trace"
	"go.opentelemetry.io/otel/sdk/trace/tracetest"

	"smokeball.internal/tokenbroker/client"
)

func TestOpenTelemetry(t *testing.T) {
	spans := tracetest.NewSpanRecorder()
	provider := trace.NewTracerProvider(trace.WithSpanProcessor(spans))
	otel.SetTracerProvider(provider)
	otel.SetTextMapPropagator(propagation.TraceContext{})
	r := newStandIn()
	address := r.listen(t, nil)
	ctx, parent := provider.Tracer("test").Start(t.Context(), "the caller's")

	if _, err := newClient(t, address, client.WithInsecure()).GetToken(ctx); err != nil {
		t.Fatal(err)
	}
	if r.last(t, "traceparent") != "" || len(spans.Ended()) != 0 {
		t.Error("without the option there is a trace")
	}

	traced, err := client.New(context.Background(), address, client.WithInsecure(), client.WithOpenTelemetry())
	if err != nil {
		t.Fatal(err)
	}
	if _, err := traced.GetToken(ctx); err != nil {
		t.Fatal(err)
	}
	if err := traced.Close(); err != nil { // This ends the stream of health, too.
		t.Fatal(err)
	}
	ended := spans.Ended()
	if len(ended) != 1 || ended[0].Name() != "tokenbroker.v1.TokenService/GetToken" || ended[0].Parent().SpanID() != parent.SpanContext().SpanID() {
		t.Fatalf("the spans are %v", ended)
	}
	own := ended[0].SpanContext()
	if got, want := r.last(t, "traceparent"), "00-"+own.TraceID().String()+"-"+own.SpanID().String()+"-01"; got != want {
		t.Errorf("the broker got the trace %q, want %q", got, want)
	}
}

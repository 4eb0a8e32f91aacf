package redisstore_test

import (
	"strings"
	"testing"
	"time"

	"go.opentelemetry.io/otel/codes"
	sdktrace "go.opentelemetry.io/otel/sdk/trace"
	"go.opentelemetry.io/otel/sdk/trace/tracetest"
	"go.opentelemetry.io/otel/trace"

	"smokeball.internal/tokenbroker/internal/token"
)

// What is done for a call that is traced has a span for each command, which has
// neither keys nor values in it; what is done for others has none.
func TestSpans(t *testing.T) {
	onBoth(t, func(t *testing.T, f *fixture) {
		spans := tracetest.NewSpanRecorder()
		tracer := sdktrace.NewTracerProvider(sdktrace.WithSpanProcessor(spans)).Tracer("test")
		k := keyOf("acme")
		tok := newToken("s3cr3t", 0, time.Hour)
		if _, err := f.Save(t.Context(), k, tok); err != nil {
			t.Fatal(err)
		}
		if n := len(spans.Started()); n != 0 {
			t.Fatalf("without a trace there are %d spans", n)
		}
		ctx, call := tracer.Start(t.Context(), "call")
		if _, err := f.Save(ctx, k, tok); err != nil {
			t.Fatal(err)
		}
		if _, _, err := f.Load(ctx, k); err != nil {
			t.Fatal(err)
		}
		if err := f.SaveFailure(ctx, k, newFailure(token.Unavailable, time.Minute)); err != nil {
			t.Fatal(err)
		}
		if err := f.Ping(ctx); err != nil {
			t.Fatal(err)
		}
		names := map[string]bool{}
		for _, span := range spans.Ended() {
			names[span.Name()] = true
			if span.Parent().SpanID() != call.SpanContext().SpanID() || span.SpanKind() != trace.SpanKindClient {
				t.Errorf("%s is not the call's: %v, %v", span.Name(), span.Parent(), span.SpanKind())
			}
			said := span.Name() + span.Status().Description
			for _, a := range span.Attributes() {
				said += " " + a.Value.String()
			}
			for _, planted := range []string{prefix, "tenants}", "s3cr3t", k.Digest(), tok.ID} {
				if strings.Contains(said, planted) {
					t.Errorf("the span says %q", said)
				}
			}
		}
		for _, want := range []string{"EVALSHA save", "XADD", "EVALSHA load", "EVALSHA fail", "EXISTS"} {
			if !names[want] {
				t.Errorf("there is no span %q, but %v", want, names)
			}
		}
	})
}

// Of a refusal there is what Redis calls it, and not what it says.
func TestSpanOfARefusal(t *testing.T) {
	onBoth(t, func(t *testing.T, f *fixture) {
		spans := tracetest.NewSpanRecorder()
		ctx, _ := sdktrace.NewTracerProvider(sdktrace.WithSpanProcessor(spans)).Tracer("test").Start(t.Context(), "call")
		if err := f.raw.Set(t.Context(), prefix+"{tenants}:records", "no hash", 0).Err(); err != nil {
			t.Fatal(err)
		}
		if _, err := f.Tenant(ctx, "acme"); err == nil {
			t.Fatal("a string is taken for a hash")
		}
		for _, span := range spans.Ended() {
			if span.Status().Code != codes.Error {
				continue
			}
			kind := ""
			for _, a := range span.Attributes() {
				if a.Key == "error.type" {
					kind = a.Value.AsString()
				}
			}
			if kind != "WRONGTYPE" || span.Status().Description != "" || len(span.Events()) != 0 {
				t.Errorf("the refusal is %q, %q, %v", kind, span.Status().Description, span.Events())
			}
			return
		}
		t.Error("no span has failed")
	})
}

// Every script is known by its name, also where Redis is sent the whole of it. That it
// does not know one yet is no failure.
func TestSpansNameAllScripts(t *testing.T) {
	onBoth(t, func(t *testing.T, f *fixture) {
		spans := tracetest.NewSpanRecorder()
		ctx, _ := sdktrace.NewTracerProvider(sdktrace.WithSpanProcessor(spans)).Tracer("test").Start(t.Context(), "call")
		k := keyOf("acme")
		if _, err := f.Save(ctx, k, newToken("", 0, time.Hour)); err != nil { // The first: by its source.
			t.Fatal(err)
		}
		if err := f.SaveFailure(ctx, k, &token.Failure{Class: token.Unavailable, RetryAt: time.Now().Add(time.Minute)}); err != nil {
			t.Fatal(err)
		}
		if _, _, err := f.Replicas(ctx); err != nil {
			t.Fatal(err)
		}
		for _, span := range spans.Ended() {
			if span.Name() == "EVAL" || span.Name() == "EVALSHA" {
				t.Errorf("a span does not name its script: %v", span.Attributes())
			}
			if span.Status().Code == codes.Error {
				t.Errorf("%s has failed: %v", span.Name(), span.Attributes())
			}
		}
	})
}

package tracing_test

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"runtime"
	"strings"
	"sync"
	"testing"
	"time"

	"go.opentelemetry.io/otel"
	"go.opentelemetry.io/otel/attribute"
	"go.opentelemetry.io/otel/trace"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"smokeball.internal/tokenbroker/internal/tracing"
	"smokeball.internal/tokenbroker/internal/tracing/tracingtest"
)

// log is a log that can be read while it is written.
type log struct {
	mu   sync.Mutex
	text bytes.Buffer
}

func (l *log) Write(p []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.text.Write(p)
}

func (l *log) String() string {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.text.String()
}

func start(t *testing.T, endpoint string, ratio float64) (*tracing.Exporter, *log) {
	t.Helper()
	said := &log{}
	e, err := tracing.Start(tracing.Config{Endpoint: endpoint, Plaintext: true, Ratio: ratio, Version: "v1", Logger: slog.New(slog.NewTextHandler(said, nil))})
	if err != nil {
		t.Fatal(err)
	}
	return e, said
}

// called returns the context of a call whose caller has a trace.
func called(sampled bool) context.Context {
	return trace.ContextWithRemoteSpanContext(context.Background(), trace.NewSpanContext(trace.SpanContextConfig{
		TraceID: trace.TraceID{7}, SpanID: trace.SpanID{9}, TraceFlags: trace.TraceFlags(0).WithSampled(sampled), Remote: true,
	}))
}

// What was done up to the end is sent, with what tells replicas and versions apart.
func TestCloseSends(t *testing.T) {
	collector := tracingtest.Start(t)
	e, _ := start(t, collector.Addr, 1)
	_, span := e.Tracer().Start(t.Context(), "work")
	span.End()
	e.Close(t.Context())
	spans := collector.Named("work")
	if len(spans) != 1 {
		t.Fatalf("%d spans arrived, want 1", len(spans))
	}
	r := spans[0].Resource
	if r["service.name"] != "tokenbroker" || r["service.version"] != "v1" || r["service.instance.id"] == "" {
		t.Errorf("the resource is %v", r)
	}
}

func TestNoExporter(t *testing.T) {
	var e *tracing.Exporter
	if e.Tracer() != nil {
		t.Error("without an exporter there is a tracer")
	}
	e.Close(t.Context())
}

func TestSampling(t *testing.T) {
	of := func(e *tracing.Exporter, ctx context.Context, options ...trace.SpanStartOption) bool {
		_, span := e.Tracer().Start(ctx, "work", options...)
		return span.IsRecording()
	}
	all, _ := start(t, "127.0.0.1:1", 1)
	none, _ := start(t, "127.0.0.1:1", 0)
	sampled := trace.WithLinks(trace.Link{SpanContext: trace.SpanContextFromContext(called(true))})
	for name, test := range map[string]struct{ got, want bool }{
		"all of what begins here":              {of(all, t.Context()), true},
		"none of what begins here":             {of(none, t.Context()), false},
		"a caller samples":                     {of(none, called(true)), true},
		"a caller has decided not to":          {of(all, called(false)), false},
		"behind the back of a call that is":    {of(none, t.Context(), sampled), true},
		"behind the back of a call that isn't": {of(none, t.Context(), trace.WithLinks(trace.Link{SpanContext: trace.SpanContextFromContext(called(false))})), false},
	} {
		if test.got != test.want {
			t.Errorf("%s: sampled %t, want %t", name, test.got, test.want)
		}
	}
	half, _ := start(t, "127.0.0.1:1", 0.5)
	n := 0
	for range 1000 {
		if of(half, t.Context()) {
			n++
		}
	}
	if n < 350 || n > 650 {
		t.Errorf("of 1000, %d are sampled at a ratio of 0.5", n)
	}
	// What is done for a traced call is traced, also when there is no room for another call.
	ctx, _ := half.Tracer().Start(called(true), "call")
	for range 1000 {
		of(half, called(true))
	}
	if !of(half, ctx) {
		t.Error("the work for a sampled call is not sampled")
	}
}

// Callers can have their calls traced by a header, but not as many as they like.
func TestCallersAreBounded(t *testing.T) {
	e, _ := start(t, "127.0.0.1:1", 0)
	began, n := time.Now(), 0
	for range 5000 {
		if _, span := e.Tracer().Start(called(true), "call"); span.IsRecording() {
			n++
		}
	}
	if most := 200 + int(100*time.Since(began).Seconds()) + 1; n < 200 || n > most {
		t.Errorf("of 5000 calls, %d are traced, want 200 to %d", n, most)
	}
}

// What a caller says of its trace for other vendors is in each span of it. It can be
// so much that the collector would refuse them, and others' that are sent along.
func TestALongTracestateIsLeftOut(t *testing.T) {
	collector := tracingtest.Start(t)
	e, _ := start(t, collector.Addr, 0)
	said := func(members, size int) context.Context {
		var list []string
		for n := range members {
			list = append(list, fmt.Sprintf("vendor%d=%s", n, strings.Repeat("x", size)))
		}
		state, err := trace.ParseTraceState(strings.Join(list, ","))
		if err != nil {
			t.Fatal(err)
		}
		return trace.ContextWithRemoteSpanContext(t.Context(), trace.SpanContextFromContext(called(true)).WithTraceState(state))
	}
	ctx, call := e.Tracer().Start(said(32, 256), "long")
	if n := len(call.SpanContext().TraceState().String()); n > 512 {
		t.Errorf("the span has %d bytes of a caller's tracestate", n)
	}
	const spans = 500
	for range spans {
		_, span := e.Tracer().Start(ctx, "work")
		span.End()
	}
	if _, call := e.Tracer().Start(said(1, 200), "short"); call.SpanContext().TraceState().Get("vendor0") == "" {
		t.Error("a short tracestate is left out, too")
	}
	e.Close(t.Context())
	if n := len(collector.Named("work")); n != spans {
		t.Errorf("%d spans arrived of %d", n, spans)
	}
}

// While the collector is away, nobody waits for it, and what waits to be sent has
// a bound.
func TestCollectorAway(t *testing.T) {
	e, said := start(t, "127.0.0.1:1", 1)
	big := strings.Repeat("x", 10<<10) // In each span, so that what is kept of them shows.
	heap := func() int {
		var m runtime.MemStats
		runtime.GC()
		runtime.ReadMemStats(&m)
		return int(m.HeapAlloc)
	}
	before := heap()
	for range 20_000 {
		_, span := e.Tracer().Start(t.Context(), "work", trace.WithAttributes(attribute.String("big", strings.Clone(big))))
		span.End()
	}
	if grown := heap() - before; grown > 60<<20 {
		t.Errorf("of 200 MiB of spans, %d MiB are kept", grown>>20)
	}
	began := time.Now()
	e.Close(t.Context())
	if took := time.Since(began); took > 10*time.Second {
		t.Errorf("Close took %v", took)
	}
	if !strings.Contains(said.String(), "spans are given up") {
		t.Errorf("the log says %q", said)
	}
}

// What the log says of a collector's refusal is its code, since the text may quote
// anything, and once; and it says when spans are taken again.
func TestRefusingCollector(t *testing.T) {
	t.Parallel()
	collector := tracingtest.Start(t)
	collector.Refuse(status.Error(codes.InvalidArgument, "what was sent is s3cr3t"))
	e, said := start(t, collector.Addr, 1)
	until := func(what string) {
		t.Helper()
		for deadline := time.Now().Add(30 * time.Second); !strings.Contains(said.String(), what); time.Sleep(20 * time.Millisecond) {
			_, span := e.Tracer().Start(t.Context(), "work")
			span.End()
			if time.Now().After(deadline) {
				t.Fatalf("the log does not say %q: %s", what, said)
			}
		}
	}
	until("code=InvalidArgument")
	collector.Refuse(nil)
	until("spans are exported again")
	e.Close(t.Context())
	if log := said.String(); strings.Contains(log, "s3cr3t") || strings.Count(log, "\n") != 2 {
		t.Errorf("the log says %q", log)
	}
}

func TestSelfReports(t *testing.T) {
	_, said := start(t, "127.0.0.1:1", 1)
	otel.Handle(errors.New("what was sent is s3cr3t"))
	if log := said.String(); !strings.Contains(log, "opentelemetry reports an error") || strings.Contains(log, "s3cr3t") {
		t.Errorf("the log says %q", log)
	}
}

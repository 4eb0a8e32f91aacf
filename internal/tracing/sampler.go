package tracing

import (
	"context"
	"math/rand/v2"

	sdktrace "go.opentelemetry.io/otel/sdk/trace"
	"go.opentelemetry.io/otel/trace"
	"go.opentelemetry.io/otel/trace/embedded"
	"go.opentelemetry.io/otel/trace/noop"
	"golang.org/x/time/rate"
)

const (
	// So many traces of callers go on here a second, and so many at once. Whoever may
	// call could otherwise have each call cost a trace, by a header.
	callersPerSecond = 100
	callersBurst     = 200
	// What callers say of their traces for others (tracestate) is in every span of them.
	// This much is to be passed on (W3C); 16 KiB could be said, and a batch of such spans be more
	// than a collector takes.
	maxTracestate = 512
)

// tracer spares what is not sampled the SDK's work, which would be most of what
// traces cost. Of what begins here a ratio is sampled. The context that Start returns
// says nothing of a span that is not: whoever does something for it has to ask
// whether it is (Span.IsRecording) before another is begun.
type tracer struct {
	embedded.Tracer
	sdk   trace.Tracer
	ratio float64
}

// Start implements trace.Tracer.
func (t tracer) Start(ctx context.Context, name string, options ...trace.SpanStartOption) (context.Context, trace.Span) {
	switch parent := trace.SpanContextFromContext(ctx); {
	case parent.IsValid() && !parent.IsSampled():
		return ctx, noop.Span{}
	case !parent.IsValid() && rand.Float64() >= t.ratio && !linked(trace.NewSpanStartConfig(options...)):
		return ctx, noop.Span{}
	}
	return t.sdk.Start(ctx, name, options...)
}

// linked says whether any of the spans that a new one is linked to is sampled:
// work behind a caller's back is traced if the call is.
func linked(c trace.SpanConfig) bool {
	for _, link := range c.Links() {
		if link.SpanContext.IsSampled() {
			return true
		}
	}
	return false
}

// sampler lets traces of callers go on here, as far as there are not too many of
// them. All else that it is asked for has been decided by tracer.
type sampler struct{ callers *rate.Limiter }

func newSampler() sampler { return sampler{rate.NewLimiter(callersPerSecond, callersBurst)} }

// ShouldSample implements the SDK's Sampler.
func (s sampler) ShouldSample(p sdktrace.SamplingParameters) sdktrace.SamplingResult {
	parent := trace.SpanContextFromContext(p.ParentContext)
	decision := sdktrace.RecordAndSample
	if parent.IsRemote() && !s.callers.Allow() {
		decision = sdktrace.Drop
	}
	state := parent.TraceState()
	if parent.IsRemote() && len(state.String()) > maxTracestate {
		state = trace.TraceState{}
	}
	return sdktrace.SamplingResult{Decision: decision, Tracestate: state}
}

// Description implements the SDK's Sampler.
func (sampler) Description() string { return "tokenbroker" }

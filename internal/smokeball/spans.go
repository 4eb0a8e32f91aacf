package smokeball

import (
	"context"
	"errors"
	"net/http"
	"net/url"

	"go.opentelemetry.io/otel/codes"
	semconv "go.opentelemetry.io/otel/semconv/v1.43.0"
	"go.opentelemetry.io/otel/trace"
	"go.opentelemetry.io/otel/trace/noop"

	"smokeball.internal/tokenbroker/internal/token"
)

// beginSpan begins a span of an exchange, if that is for something that is traced. Of
// a request there is the host in it, of an answer the status and what it means, and
// nothing else of either. The issuer is not told of the trace: it is a third party.
func beginSpan(ctx context.Context, name string, c token.Credential, options ...trace.SpanStartOption) (context.Context, trace.Span) {
	parent := trace.SpanFromContext(ctx)
	if !parent.IsRecording() {
		return ctx, noop.Span{}
	}
	tracer := parent.TracerProvider().Tracer("smokeball.internal/tokenbroker/internal/smokeball")
	ctx, span := tracer.Start(ctx, name, options...)
	if u, err := url.Parse(c.Endpoint); err == nil {
		span.SetAttributes(semconv.ServerAddress(u.Hostname()))
	}
	return ctx, span
}

// beginAttempt begins the span of one attempt of an exchange; the first is number 1.
func beginAttempt(ctx context.Context, c token.Credential, number int) (context.Context, trace.Span) {
	ctx, span := beginSpan(ctx, http.MethodPost, c, trace.WithSpanKind(trace.SpanKindClient))
	span.SetAttributes(semconv.HTTPRequestMethodPost)
	if number > 1 {
		span.SetAttributes(semconv.HTTPRequestResendCount(number - 1))
	}
	return ctx, span
}

// endSpan ends a span of what has come to err, of which its class is noted.
func endSpan(span trace.Span, err error) {
	if err != nil {
		class := "canceled"
		if f := new(token.Failure); errors.As(err, &f) {
			class = string(f.Class)
		}
		span.SetAttributes(semconv.ErrorTypeKey.String(class))
		span.SetStatus(codes.Error, "")
	}
	span.End()
}

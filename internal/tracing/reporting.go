package tracing

import (
	"context"
	"errors"
	"log/slog"

	sdktrace "go.opentelemetry.io/otel/sdk/trace"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
)

// reporting says in the log when spans cannot be sent, and when they can again.
// Of an error only its status code is told: the text is the collector's, or
// quotes what was sent. It is used by one goroutine at a time.
type reporting struct {
	sdktrace.SpanExporter
	log  *slog.Logger
	lost int // spans, since some could be sent
}

// ExportSpans implements the SDK's SpanExporter. It returns no error: there is
// nobody who could do more about it.
func (r *reporting) ExportSpans(ctx context.Context, spans []sdktrace.ReadOnlySpan) error {
	err := r.SpanExporter.ExportSpans(ctx, spans)
	switch {
	case err != nil && r.lost == 0:
		r.log.Warn("spans are not exported", "code", codeOf(err).String())
		r.lost = len(spans)
	case err != nil:
		r.lost += len(spans)
	case r.lost > 0:
		r.log.Info("spans are exported again", "lost", r.lost)
		r.lost = 0
	}
	return nil
}

// codeOf returns the status code of an error of the exporter; Unknown if it has
// none: the collector has refused some of the spans.
func codeOf(err error) codes.Code {
	if errors.Is(err, context.DeadlineExceeded) {
		return codes.DeadlineExceeded
	}
	var answered interface{ GRPCStatus() *status.Status }
	if errors.As(err, &answered) {
		return answered.GRPCStatus().Code()
	}
	return codes.Unknown
}

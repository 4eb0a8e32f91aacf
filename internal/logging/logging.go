// Package logging makes the log of the process: of a level that can be changed
// while it runs, of a bounded length whatever callers do, and with the ids of traces.
package logging

import (
	"context"
	"io"
	"log/slog"

	"go.opentelemetry.io/otel/trace"
)

// Format is how a record is written.
type Format string

// The formats.
const (
	JSON Format = "json"
	Text Format = "text"
)

// New returns a logger that writes records of this level and above to w. A level
// that can change (*slog.LevelVar) is obeyed at once.
//
// Of records of one level with the same message, of which there are 500 at once, or more than
// 50 a second after that, the rest is left out, and counted: the next one that is written says
// how many there were (left_out). Nothing else tells of them. A record of a call that is traced has the ids of the
// trace and the span (trace_id, span_id).
func New(w io.Writer, format Format, level slog.Leveler) *slog.Logger {
	options := &slog.HandlerOptions{Level: level}
	var h slog.Handler = slog.NewJSONHandler(w, options)
	if format == Text {
		h = slog.NewTextHandler(w, options)
	}
	return slog.New(bounded{traced{h}, &buckets{of: map[kind]*bucket{}}})
}

// traced adds to a record the trace that its context is of, if that is exported:
// any other id would lead nowhere.
type traced struct{ slog.Handler }

// Handle implements slog.Handler.
func (h traced) Handle(ctx context.Context, r slog.Record) error {
	if span := trace.SpanContextFromContext(ctx); span.IsSampled() {
		r = r.Clone()
		r.AddAttrs(slog.String("trace_id", span.TraceID().String()), slog.String("span_id", span.SpanID().String()))
	}
	return h.Handler.Handle(ctx, r)
}

// WithAttrs implements slog.Handler.
func (h traced) WithAttrs(attrs []slog.Attr) slog.Handler { return traced{h.Handler.WithAttrs(attrs)} }

// WithGroup implements slog.Handler.
func (h traced) WithGroup(name string) slog.Handler { return traced{h.Handler.WithGroup(name)} }

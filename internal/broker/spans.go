package broker

import (
	"context"
	"errors"
	"time"

	"go.opentelemetry.io/otel/attribute"
	"go.opentelemetry.io/otel/codes"
	"go.opentelemetry.io/otel/trace"
	"go.opentelemetry.io/otel/trace/noop"

	"smokeball.internal/tokenbroker/internal/token"
)

// work is what is done for all who ask for it meanwhile, as traces tell of it. It
// is in the trace of whoever had it begun, if that one waits for it.
type work struct{ span, asker trace.SpanContext }

// landing is what work came to.
type landing struct {
	value any
	work  *work // nil: it is not traced
}

// asker is who has work begun. The zero asker is not traced, and then nor is the
// work.
type asker struct {
	span   trace.SpanContext
	behind bool // nobody waits: the work has a trace of its own, with a link to the span if there is one
}

// land does work as task does it, with a span of this kind. name tells it from
// all other work that is under way.
func (b *Broker) land(within time.Duration, kind, name string, by asker, do func(context.Context) (any, error)) (l landing, err error) {
	l.value, err = b.task(within, func(ctx context.Context) (value any, err error) {
		ctx, span := b.begin(ctx, kind, by)
		if !span.IsRecording() {
			return do(ctx)
		}
		l.work = &work{span.SpanContext(), by.span}
		b.flying.Store(name, l.work)
		err = errPanic
		defer func() { // Not End itself, which would tell a panic's value.
			b.flying.CompareAndDelete(name, l.work)
			note(span, err)
			span.End()
		}()
		value, err = do(ctx)
		return value, err
	})
	return l, err
}

func (b *Broker) begin(ctx context.Context, kind string, by asker) (context.Context, trace.Span) {
	switch {
	case !by.behind && !by.span.IsSampled():
		return ctx, noop.Span{}
	case !by.behind:
		return b.tracer.Start(trace.ContextWithSpanContext(ctx, by.span), kind)
	case by.span.IsValid():
		return b.tracer.Start(ctx, kind, trace.WithLinks(trace.Link{SpanContext: by.span}))
	default:
		return b.tracer.Start(ctx, kind)
	}
}

// waiting is the span of a caller who waits for work.
type waiting struct{ trace.Span }

// wait begins the span of a caller who waits, if the call is traced.
func (b *Broker) wait(ctx context.Context, kind string) (waiting, asker) {
	if !trace.SpanFromContext(ctx).IsRecording() {
		return waiting{noop.Span{}}, asker{}
	}
	_, span := b.tracer.Start(ctx, kind)
	return waiting{span}, asker{span: span.SpanContext()}
}

// end ends the wait for w, which came to err. If this caller has not had it begun, it
// is in another trace, or in none, and there is a link to it.
func (s waiting) end(w *work, err error) {
	if w != nil && w.asker.SpanID() != s.SpanContext().SpanID() {
		s.AddLink(trace.Link{SpanContext: w.span})
	}
	note(s, err)
	s.End()
}

// underWay returns the work with this name; nil if it is not traced.
func (b *Broker) underWay(name string) *work {
	v, _ := b.flying.Load(name)
	w, _ := v.(*work)
	return w
}

// note says in a span why it failed: by a class or a word, never by the text.
func note(span trace.Span, err error) {
	var f *token.Failure
	var class string
	switch {
	case err == nil:
		return
	case errors.As(err, &f):
		class = string(f.Class)
	case errors.Is(err, context.Canceled):
		class = "canceled"
	case errors.Is(err, context.DeadlineExceeded):
		class = "deadline_exceeded"
	case errors.Is(err, ErrStore):
		class = "store"
	case errors.Is(err, errPutOff):
		class = "put_off"
	case errors.Is(err, ErrClosed):
		class = "closed"
	default:
		class = "_OTHER"
	}
	span.SetAttributes(attribute.String("error.type", class))
	span.SetStatus(codes.Error, "")
}

// about says in a span of which tenant and key it is.
func about(span trace.Span, e *entry) {
	if s := e.subject.Load(); span.IsRecording() && s != nil {
		span.SetAttributes(attribute.String("tokenbroker.tenant", "tenants/"+s.tenant.ID), attribute.String("tokenbroker.key", e.digest))
	}
}

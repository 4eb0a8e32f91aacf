package redisstore

import (
	"context"
	"errors"
	"strings"

	"github.com/redis/go-redis/v9"
	"go.opentelemetry.io/otel/attribute"
	"go.opentelemetry.io/otel/codes"
	semconv "go.opentelemetry.io/otel/semconv/v1.43.0"
	"go.opentelemetry.io/otel/trace"
)

// spans has a span made of each command that is for something that is traced. Its
// name is the command's, or the script's; keys and arguments are not in it, nor the
// text of an error. It sees errors that are reduced already.
type spans struct{}

// DialHook implements redis.Hook.
func (spans) DialHook(next redis.DialHook) redis.DialHook { return next }

// ProcessHook implements redis.Hook.
func (spans) ProcessHook(next redis.ProcessHook) redis.ProcessHook {
	return func(ctx context.Context, cmd redis.Cmder) error {
		parent := trace.SpanFromContext(ctx)
		if !parent.IsRecording() {
			return next(ctx, cmd)
		}
		name := strings.ToUpper(cmd.Name())
		attributes := []attribute.KeyValue{semconv.DBSystemNameRedis, semconv.DBOperationName(name)}
		if script := scriptOf(cmd); script != "" {
			attributes = append(attributes, semconv.DBStoredProcedureName(script))
			name += " " + script
		}
		ctx, end := beginSpan(ctx, parent, name, attributes)
		err := next(ctx, cmd)
		end(err)
		return err
	}
}

// ProcessPipelineHook implements redis.Hook.
func (spans) ProcessPipelineHook(next redis.ProcessPipelineHook) redis.ProcessPipelineHook {
	return func(ctx context.Context, cmds []redis.Cmder) error {
		parent := trace.SpanFromContext(ctx)
		if !parent.IsRecording() {
			return next(ctx, cmds)
		}
		ctx, end := beginSpan(ctx, parent, "PIPELINE", []attribute.KeyValue{semconv.DBSystemNameRedis, semconv.DBOperationBatchSize(len(cmds))})
		err := next(ctx, cmds)
		end(err)
		return err
	}
}

func beginSpan(ctx context.Context, parent trace.Span, name string, attributes []attribute.KeyValue) (context.Context, func(error)) {
	tracer := parent.TracerProvider().Tracer("smokeball.internal/tokenbroker/internal/redisstore")
	ctx, span := tracer.Start(ctx, name, trace.WithSpanKind(trace.SpanKindClient), trace.WithAttributes(attributes...))
	return ctx, func(err error) {
		if err != nil && !errors.Is(err, redis.Nil) && !redis.HasErrorPrefix(err, "NOSCRIPT") {
			span.SetAttributes(semconv.ErrorTypeKey.String(kindOf(err)))
			span.SetStatus(codes.Error, "")
		}
		span.End()
	}
}

// kindOf returns the kind of an error: what Redis calls it, or what has become of
// the command.
func kindOf(err error) string {
	var r refusal
	switch {
	case errors.As(err, &r):
		return string(r)
	case errors.Is(err, context.Canceled):
		return "canceled"
	case errors.Is(err, context.DeadlineExceeded):
		return "timeout"
	default:
		return "connection"
	}
}

package rpc

import (
	"context"
	"fmt"
	"log/slog"
	"runtime/debug"
	"time"

	"buf.build/go/protovalidate"
	"github.com/grpc-ecosystem/go-grpc-middleware/v2/interceptors/recovery"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
)

// way is the way of a request from the entrance to its handler. Who makes the call,
// and whether it is one too many, was looked at before (entrance).
type way struct {
	spans     spans
	metrics   callMetrics
	log       callLog
	record    recorder
	rules     rules
	authorize authorizer

	recovered grpc.UnaryServerInterceptor
}

func newWay(c Config, validator protovalidate.Validator) *way {
	return &way{
		spans{c.Tracer}, callMetrics{}, callLog{c.Logger}, recorder{c.Audit, c.Logger}, newRules(validator), authorizer{c.Guard, c.Logger},
		recovery.UnaryServerInterceptor(recovery.WithRecoveryHandlerContext(onPanic(c.Logger))),
	}
}

// unary is the whole way of a unary call. What is traced, counted, logged and recorded
// is what the caller gets, a panic included. It is one interceptor, and not one for
// each step: most calls are answered within a microsecond, of which links of a chain
// would take more than the answer (docs/performance.md).
func (w *way) unary(ctx context.Context, req any, info *grpc.UnaryServerInfo, handler grpc.UnaryHandler) (any, error) {
	c, method, began := callOf(ctx), info.FullMethod, time.Now()
	ctx, span := w.spans.begin(ctx, method)
	counted := w.metrics.begin(method)

	resp, err := w.recovered(ctx, req, info, func(ctx context.Context, req any) (any, error) {
		return w.pass(ctx, c, method, req, handler)
	})

	resp, err = w.record.unary(ctx, c, method, req, resp, err)
	w.log.finished(ctx, c, method, began, err)
	counted.finished(began, err)
	end(c, span, err)
	return resp, err
}

// pass hands a request that is valid, allowed, and recorded where it changes
// something, to its handler.
func (w *way) pass(ctx context.Context, c *call, method string, req any, handler grpc.UnaryHandler) (any, error) {
	if err := w.may(ctx, c, method, req); err != nil {
		return nil, err
	}
	if err := w.record.begin(ctx, c, method, req); err != nil {
		return nil, err
	}
	return handler(ctx, req)
}

// may says, by a status, if a request is not valid or not allowed.
func (w *way) may(ctx context.Context, c *call, method string, req any) error {
	if err := w.rules.check(ctx, req); err != nil {
		return err
	}
	c.name(req)
	return w.authorize.may(ctx, c, method)
}

// streams is the same for a stream, outermost first. The request of a watch passes
// what that of a unary call passes; reflection and health have no other rules than hold's.
func (w *way) streams(ended context.Context) []grpc.StreamServerInterceptor {
	return []grpc.StreamServerInterceptor{
		w.spans.stream,
		w.metrics.stream,
		w.log.stream,
		w.record.stream,
		recovery.StreamServerInterceptor(recovery.WithRecoveryHandlerContext(onPanic(w.log.log))),
		until(ended),
		asked(w.may),
		w.authorize.hold,
	}
}

// until ends streams when ended does. Watching health has no end of its own, and
// one watcher would hold up every Drain until its time is over.
func until(ended context.Context) grpc.StreamServerInterceptor {
	return func(srv any, stream grpc.ServerStream, _ *grpc.StreamServerInfo, handler grpc.StreamHandler) error {
		ctx, cancel := context.WithCancel(stream.Context())
		defer cancel()
		defer context.AfterFunc(ended, cancel)()
		err := handler(srv, endable{stream, ctx})
		if ended.Err() != nil && stream.Context().Err() == nil {
			return shuttingDown()
		}
		return err
	}
}

// onPanic keeps the panic's value out of the log, since it may be anything, and
// says where it came from.
func onPanic(log *slog.Logger) recovery.RecoveryHandlerFuncContext {
	return func(ctx context.Context, p any) error {
		log.ErrorContext(ctx, "panic in a call", "type", fmt.Sprintf("%T", p), "stack", string(debug.Stack()))
		return status.Error(codes.Internal, "internal error")
	}
}

package rpc

import (
	"context"
	"fmt"
	"log/slog"
	"runtime/debug"

	"buf.build/go/protovalidate"
	validation "github.com/grpc-ecosystem/go-grpc-middleware/v2/interceptors/protovalidate"
	"github.com/grpc-ecosystem/go-grpc-middleware/v2/interceptors/recovery"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
)

// unaryChain is the way of a request to its handler, outermost first: what is
// traced, counted, logged and recorded is what the caller gets, a panic included. Who makes the call, and whether it is
// one too many, was looked at before (entrance).
func unaryChain(c Config, metrics callMetrics, validator protovalidate.Validator) []grpc.UnaryServerInterceptor {
	record, authorize := recorder{c.Audit, c.Logger}, authorizer{c.Guard, c.Logger}
	chain := []grpc.UnaryServerInterceptor{turnedAway}
	if c.Tracer != nil {
		chain = append(chain, spans{c.Tracer}.unary)
	}
	if c.Metrics != nil {
		chain = append(chain, metrics.unary)
	}
	return append(chain,
		callLog{c.Logger}.unary,
		record.unary,
		recovery.UnaryServerInterceptor(recovery.WithRecoveryHandlerContext(onPanic(c.Logger))),
		authorize.open,
		explainViolation,
		validation.UnaryServerInterceptor(validator),
		name,
		authorize.unary,
		record.begin,
	)
}

// streamChain is that of a stream. The request of a watch passes the same as a
// unary call's; reflection and health have no other rules than hold's.
func streamChain(c Config, ended context.Context, metrics callMetrics, validator protovalidate.Validator) []grpc.StreamServerInterceptor {
	record, authorize := recorder{c.Audit, c.Logger}, authorizer{c.Guard, c.Logger}
	chain := []grpc.StreamServerInterceptor{streamTurnedAway}
	if c.Tracer != nil {
		chain = append(chain, spans{c.Tracer}.stream)
	}
	if c.Metrics != nil {
		chain = append(chain, metrics.stream)
	}
	return append(chain,
		callLog{c.Logger}.stream,
		record.stream,
		recovery.StreamServerInterceptor(recovery.WithRecoveryHandlerContext(onPanic(c.Logger))),
		until(ended),
		asked(explainViolation, validation.UnaryServerInterceptor(validator), name, authorize.unary),
		authorize.hold,
	)
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

// explainViolation gives the validation interceptor's answer the details that all
// errors have here. Since what it refuses never had a valid name, it also stands
// outside of name.
func explainViolation(ctx context.Context, req any, _ *grpc.UnaryServerInfo, handler grpc.UnaryHandler) (any, error) {
	resp, err := handler(ctx, req)
	if status.Code(err) == codes.InvalidArgument {
		err = violation(err)
	}
	return resp, err
}

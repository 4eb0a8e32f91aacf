package rpc

import (
	"context"
	"fmt"
	"log/slog"
	"runtime/debug"
	"slices"

	"buf.build/go/protovalidate"
	grpcprom "github.com/grpc-ecosystem/go-grpc-middleware/providers/prometheus"
	"github.com/grpc-ecosystem/go-grpc-middleware/v2/interceptors"
	"github.com/grpc-ecosystem/go-grpc-middleware/v2/interceptors/logging"
	validation "github.com/grpc-ecosystem/go-grpc-middleware/v2/interceptors/protovalidate"
	"github.com/grpc-ecosystem/go-grpc-middleware/v2/interceptors/recovery"
	"github.com/grpc-ecosystem/go-grpc-middleware/v2/interceptors/selector"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	pb "smokeball.internal/tokenbroker/gen/tokenbroker/v1"
)

// unaryChain is the way of a request to its handler, outermost first: what is
// counted, logged and recorded is what the caller gets, a panic included. Who makes the call, and whether it is
// one too many, was looked at before (entrance).
func unaryChain(c Config, metrics *grpcprom.ServerMetrics, validator protovalidate.Validator) []grpc.UnaryServerInterceptor {
	record, authorize := recorder{c.Audit, c.Logger}, authorizer{c.Guard, c.Logger}
	return []grpc.UnaryServerInterceptor{
		turnedAway,
		metrics.UnaryServerInterceptor(),
		selector.UnaryServerInterceptor(logging.UnaryServerInterceptor(logger(c.Logger), logOptions(slog.LevelInfo)...), selector.MatchFunc(administrative)),
		selector.UnaryServerInterceptor(logging.UnaryServerInterceptor(logger(c.Logger), logOptions(slog.LevelDebug)...), selector.MatchFunc(everyday)),
		record.unary,
		recovery.UnaryServerInterceptor(recovery.WithRecoveryHandlerContext(onPanic(c.Logger))),
		authorize.open,
		explainViolation,
		validation.UnaryServerInterceptor(validator),
		name,
		authorize.unary,
		record.begin,
	}
}

// streamChain is that of a stream. The request of a watch passes the same as a
// unary call's; reflection and health have no other rules than hold's.
func streamChain(c Config, ended context.Context, metrics *grpcprom.ServerMetrics, validator protovalidate.Validator) []grpc.StreamServerInterceptor {
	record, authorize := recorder{c.Audit, c.Logger}, authorizer{c.Guard, c.Logger}
	return []grpc.StreamServerInterceptor{
		streamTurnedAway,
		metrics.StreamServerInterceptor(),
		logging.StreamServerInterceptor(logger(c.Logger), logOptions(slog.LevelDebug, codes.Canceled, codes.Unavailable)...),
		record.stream,
		recovery.StreamServerInterceptor(recovery.WithRecoveryHandlerContext(onPanic(c.Logger))),
		until(ended),
		asked(explainViolation, validation.UnaryServerInterceptor(validator), name, authorize.unary),
		authorize.hold,
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

// administrative calls are few and each is worth a record.
func administrative(_ context.Context, c interceptors.CallMeta) bool {
	return c.Service == pb.TenantService_ServiceDesc.ServiceName
}

// everyday calls are many.
func everyday(ctx context.Context, c interceptors.CallMeta) bool { return !administrative(ctx, c) }

func logger(log *slog.Logger) logging.Logger {
	return logging.LoggerFunc(func(ctx context.Context, level logging.Level, message string, fields ...any) {
		log.Log(ctx, slog.Level(level), message, fields...) //nolint:sloglint // The message is the middleware's own.
	})
}

// who adds to a record who has called.
func who(ctx context.Context) logging.Fields {
	c := callOf(ctx)
	return logging.Fields{"request_id", c.id, "principal", c.caller.Principal()}
}

// logOptions has one record written per call, never its content, at the level ok
// if the call went well, or ended as such calls do (usual).
func logOptions(ok slog.Level, usual ...codes.Code) []logging.Option {
	return []logging.Option{
		logging.WithLogOnEvents(logging.FinishCall),
		logging.WithFieldsFromContext(who),
		logging.WithDisableLoggingFields(logging.SystemTag[0], logging.ComponentFieldKey, logging.MethodTypeFieldKey),
		logging.WithLevels(func(c codes.Code) logging.Level {
			if slices.Contains(usual, c) {
				return logging.Level(ok)
			}
			switch c {
			case codes.OK:
				return logging.Level(ok)
			case codes.Internal, codes.Unknown, codes.DataLoss:
				return logging.LevelError
			case codes.Unavailable:
				return logging.LevelWarn
			default:
				return logging.LevelInfo
			}
		}),
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

package rpc

import (
	"context"
	"log/slog"
	"slices"
	"strings"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	pb "smokeball.internal/tokenbroker/gen/tokenbroker/v1"
)

// callLog writes a record of each call, never its content. A record that nobody
// wants costs nothing but the look at its level: those of GetToken, which are most,
// are for debugging.
type callLog struct{ log *slog.Logger }

func (l callLog) stream(srv any, stream grpc.ServerStream, info *grpc.StreamServerInfo, handler grpc.StreamHandler) error {
	began := time.Now()
	err := handler(srv, stream)
	// That is how streams end.
	l.finished(stream.Context(), callOf(stream.Context()), info.FullMethod, began, err, codes.Canceled, codes.Unavailable)
	return err
}

// finished writes the record of a call that has come to err. Those whose code is
// among usual went well.
//
//nolint:sloglint // The fields have the names that go-grpc-middleware gave them, which queries know.
func (l callLog) finished(ctx context.Context, c *call, method string, began time.Time, err error, usual ...codes.Code) {
	code := status.Code(err)
	level := levelOf(code)
	if code == codes.OK || slices.Contains(usual, code) {
		level = slog.LevelDebug
		if administrative(method) {
			level = slog.LevelInfo
		}
	}
	if !l.log.Enabled(ctx, level) {
		return
	}
	service, name, _ := strings.Cut(strings.TrimPrefix(method, "/"), "/")
	attrs := make([]slog.Attr, 0, 11)
	attrs = append(attrs,
		slog.String("request_id", c.id), slog.String("principal", c.caller.Principal()), slog.String("peer.address", c.peer),
		slog.String("grpc.service", service), slog.String("grpc.method", name), slog.String("grpc.code", code.String()))
	if c.tenant != "" {
		attrs = append(attrs, slog.String("tenant", c.tenant))
	}
	if err != nil {
		attrs = append(attrs, slog.String("grpc.error", err.Error()))
	}
	if deadline, ok := ctx.Deadline(); ok {
		attrs = append(attrs, slog.Time("grpc.request.deadline", deadline))
	}
	l.log.LogAttrs(ctx, level, "finished call", append(attrs, slog.Float64("grpc.time_ms", float64(time.Since(began).Microseconds())/1000))...)
}

// administrative calls are few and each is worth a record.
func administrative(method string) bool {
	return strings.HasPrefix(method, "/"+pb.TenantService_ServiceDesc.ServiceName+"/")
}

// levelOf returns what a call is worth that did not go well.
func levelOf(code codes.Code) slog.Level {
	switch code {
	case codes.Internal, codes.Unknown, codes.DataLoss:
		return slog.LevelError
	case codes.Unavailable:
		return slog.LevelWarn
	default:
		return slog.LevelInfo
	}
}

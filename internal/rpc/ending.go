package rpc

import (
	"context"

	"google.golang.org/grpc/stats"
)

// endings ends the context of a connection with the connection. Without it, what
// gRPC made for a call that the entrance refused would stay until the call's
// deadline, which its caller chooses.
type endings struct{}

type endKey struct{}

// TagConn implements stats.Handler.
func (endings) TagConn(ctx context.Context, _ *stats.ConnTagInfo) context.Context {
	ctx, cancel := context.WithCancel(ctx)
	return context.WithValue(ctx, endKey{}, cancel)
}

// HandleConn implements stats.Handler.
func (endings) HandleConn(ctx context.Context, s stats.ConnStats) {
	if _, ended := s.(*stats.ConnEnd); ended {
		ctx.Value(endKey{}).(context.CancelFunc)()
	}
}

// TagRPC implements stats.Handler.
func (endings) TagRPC(ctx context.Context, _ *stats.RPCTagInfo) context.Context { return ctx }

// HandleRPC implements stats.Handler.
func (endings) HandleRPC(context.Context, stats.RPCStats) {}

package rpc

import (
	"context"
	"io"

	"google.golang.org/grpc"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/proto"

	pb "smokeball.internal/tokenbroker/gen/tokenbroker/v1"
)

// asked has the request of a stream that has one pass what those of unary calls
// pass, before anything else of the stream.
func asked(may func(ctx context.Context, c *call, method string, req any) error) grpc.StreamServerInterceptor {
	return func(srv any, stream grpc.ServerStream, info *grpc.StreamServerInfo, handler grpc.StreamHandler) error {
		if info.FullMethod != pb.TokenService_WatchToken_FullMethodName {
			return handler(srv, stream)
		}
		var req proto.Message = &pb.WatchTokenRequest{}
		if err := stream.RecvMsg(req); err != nil {
			return err
		}
		if err := may(stream.Context(), callOf(stream.Context()), info.FullMethod, req); err != nil {
			return err
		}
		return handler(srv, &once{stream, req})
	}
}

// once is a stream whose one request has been received already.
type once struct {
	grpc.ServerStream
	req proto.Message
}

// RecvMsg implements grpc.ServerStream.
func (s *once) RecvMsg(m any) error {
	if s.req == nil {
		return io.EOF
	}
	proto.Merge(m.(proto.Message), s.req)
	s.req = nil
	return nil
}

// endable is a stream that ends with its context, also for a handler that waits
// for a message: gRPC itself would have it wait on.
type endable struct {
	grpc.ServerStream
	ctx context.Context
}

// Context returns the stream's context.
func (s endable) Context() context.Context { return s.ctx }

// RecvMsg implements grpc.ServerStream. A message that comes after the end goes
// where nobody looks any more: the handler has to return then.
func (s endable) RecvMsg(m any) error {
	if err := s.ctx.Err(); err != nil {
		return status.FromContextError(err).Err()
	}
	received := make(chan error, 1)
	go func() { received <- s.ServerStream.RecvMsg(m) }() // Ends with the stream.
	select {
	case err := <-received:
		return err
	case <-s.ctx.Done():
		return status.FromContextError(s.ctx.Err()).Err()
	}
}

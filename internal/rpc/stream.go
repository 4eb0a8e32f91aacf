package rpc

import (
	"context"

	"google.golang.org/grpc"
)

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
		return err
	}
	received := make(chan error, 1)
	go func() { received <- s.ServerStream.RecvMsg(m) }() // Ends with the stream.
	select {
	case err := <-received:
		return err
	case <-s.ctx.Done():
		return s.ctx.Err()
	}
}

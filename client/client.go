// Package client is what a service imports to have Smokeball tokens from a token
// broker: a connection that is set up as it should be (New), tokens that are ready
// in memory (Client.TokenSource), and requests to Smokeball that carry them
// (Transport).
package client

import (
	"context"
	"sync"

	"google.golang.org/grpc"

	pb "smokeball.internal/tokenbroker/gen/tokenbroker/v1"
)

// Client is a connection to a token broker. It is safe for concurrent use.
type Client struct {
	conn   *grpc.ClientConn
	tokens pb.TokenServiceClient

	ctx    context.Context // ends with Close; all sources run on it
	cancel context.CancelFunc

	mu      sync.Mutex
	closed  bool
	sources map[string]*TokenSource // :: tenant and scopes → their source
	running sync.WaitGroup          // what the sources have started
	streams int                     // how many sources have a stream; at most maxStreams
}

package client

import (
	"context"
	"net/http"

	"google.golang.org/grpc"

	pb "smokeball.internal/tokenbroker/gen/tokenbroker/v1"
)

// NewForTest makes a client of a connection, and one for streams.
func NewForTest(conn, streamConn *grpc.ClientConn) *Client { return newClient(conn, streamConn, nil) }

// GetToken makes the call, past the sources.
func (c *Client) GetToken(ctx context.Context) (*pb.Token, error) {
	resp, err := c.tokens.GetToken(ctx, &pb.GetTokenRequest{Tenant: "tenants/acme"})
	return resp.GetToken(), err
}

// Run runs f as sources run what they start.
func (c *Client) Run(f func(ctx context.Context)) {
	c.running.Go(func() { f(c.ctx) })
}

// RoundTrip is Transport.RoundTrip with any source.
func RoundTrip(source tokens, base http.RoundTripper, req *http.Request) (*http.Response, error) {
	return roundTrip(source, base, req)
}

// Sources counts the sources that the client remembers.
func (c *Client) Sources() int {
	c.mu.Lock()
	defer c.mu.Unlock()
	return len(c.sources)
}

// Started says whether something of the source runs.
func (s *TokenSource) Started() bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.started
}

// Retry is what unary calls pass.
var Retry = retry

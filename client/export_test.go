package client

import (
	"context"

	"google.golang.org/grpc"

	pb "smokeball.internal/tokenbroker/gen/tokenbroker/v1"
)

// NewForTest makes a client of a connection.
func NewForTest(conn *grpc.ClientConn) *Client {
	ctx, cancel := context.WithCancel(context.Background())
	return &Client{conn: conn, tokens: pb.NewTokenServiceClient(conn), ctx: ctx, cancel: cancel}
}

// Close ends the client's sources and its connection.
func (c *Client) Close() error {
	c.endSources()
	return c.conn.Close()
}

package client

import "google.golang.org/grpc"

// Conn returns the connection to the broker, for calls that this package has nothing
// for: those of TenantService, for example. Only calls of TokenService are repeated when they
// fail. It ends with Close.
func (c *Client) Conn() grpc.ClientConnInterface { return c.conn }

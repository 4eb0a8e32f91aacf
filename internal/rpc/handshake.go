package rpc

import (
	"log/slog"
	"net"
	"time"

	"golang.org/x/time/rate"
	"google.golang.org/grpc/credentials"
)

// loggedHandshakes says why clients were turned away before they were clients:
// they see little more than a connection that closes.
type loggedHandshakes struct {
	credentials.TransportCredentials
	log  *slog.Logger
	some *rate.Sometimes // A client that tries again and again is one record a second.
}

func logHandshakes(c credentials.TransportCredentials, log *slog.Logger) credentials.TransportCredentials {
	return loggedHandshakes{c, log, &rate.Sometimes{Interval: time.Second}}
}

// ServerHandshake implements credentials.TransportCredentials.
func (c loggedHandshakes) ServerHandshake(conn net.Conn) (net.Conn, credentials.AuthInfo, error) {
	secured, info, err := c.TransportCredentials.ServerHandshake(conn)
	if err != nil {
		c.some.Do(func() {
			c.log.Warn("tls handshake refused", "peer", conn.RemoteAddr().String(), "error", err)
		})
	}
	return secured, info, err
}

// Clone implements credentials.TransportCredentials.
func (c loggedHandshakes) Clone() credentials.TransportCredentials {
	return loggedHandshakes{c.TransportCredentials.Clone(), c.log, c.some}
}

package client

import (
	"context"
	"crypto/tls"
	"errors"
	"net"
	"time"

	"google.golang.org/grpc/credentials"
)

// perConnection is TLS with what is current when a connection is made. Connections are few, so
// that this costs next to nothing, and nobody has to watch for changes.
type perConnection struct {
	credentials.TransportCredentials // what gRPC wants to know of TLS as such
	// current returns the configuration, and when the client's certificate ends; zero:
	// there is none.
	current func() (*tls.Config, time.Time, error)
}

func newPerConnection(current func() (*tls.Config, time.Time, error)) perConnection {
	return perConnection{credentials.NewTLS(&tls.Config{MinVersion: tls.VersionTLS13}), current}
}

// ClientHandshake implements credentials.TransportCredentials.
func (p perConnection) ClientHandshake(ctx context.Context, authority string, raw net.Conn) (net.Conn, credentials.AuthInfo, error) {
	config, end, err := p.current()
	if err != nil {
		return nil, nil, err
	}
	left := time.Until(end)
	if left <= 0 && !end.IsZero() {
		return nil, nil, errors.New("the client's certificate has expired")
	}
	conn, info, err := credentials.NewTLS(config).ClientHandshake(ctx, authority, raw)
	if err != nil || end.IsZero() {
		return conn, info, err
	}
	return &ending{conn, time.AfterFunc(left, func() { _ = raw.Close() })}, info, nil
}

// Clone implements credentials.TransportCredentials.
func (p perConnection) Clone() credentials.TransportCredentials {
	return perConnection{p.TransportCredentials.Clone(), p.current}
}

// ending is a connection that is closed when the certificate ends that it was made
// with: the broker refuses every call on it from then on. The next one is made with
// the certificate that is current by then.
type ending struct {
	net.Conn
	timer *time.Timer
}

// Close implements net.Conn.
func (e *ending) Close() error {
	e.timer.Stop()
	return e.Conn.Close()
}

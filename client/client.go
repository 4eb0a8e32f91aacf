// Package client is what a service imports to have Smokeball tokens from a token
// broker: a connection that is set up as it should be (New), tokens that are ready
// in memory (Client.TokenSource), and requests to Smokeball that carry them
// (Transport).
package client

import (
	"context"
	"errors"
	"io"
	"sync"
	"time"

	"go.opentelemetry.io/contrib/instrumentation/google.golang.org/grpc/otelgrpc"
	"go.opentelemetry.io/contrib/instrumentation/google.golang.org/grpc/otelgrpc/filters"
	"google.golang.org/grpc"
	"google.golang.org/grpc/backoff"
	"google.golang.org/grpc/connectivity"
	_ "google.golang.org/grpc/health" // has the balancer ask for the health of each replica
	"google.golang.org/grpc/keepalive"

	pb "smokeball.internal/tokenbroker/gen/tokenbroker/v1"
)

// The service config has calls spread over the replicas; with healthConfig over those
// that say they are serving. A call fails rather than waits while none does: what is held
// in memory is served meanwhile.
const (
	serviceConfig = `{
	"loadBalancingConfig": [{"round_robin": {}}]
}`
	healthConfig = `{
	"loadBalancingConfig": [{"round_robin": {}}],
	"healthCheckConfig": {"serviceName": "tokenbroker.v1.TokenService"}
}`
)

const (
	// How often a peer is asked whether it is there, when nothing else was heard of it.
	// The broker sends those away who ask more often than every 10 s.
	pingInterval = 30 * time.Second
	// How long it may take to answer.
	pingTimeout = 10 * time.Second
	// The pauses between attempts to connect. gRPC's own grow to two minutes, which
	// would be the time to recovery.
	firstReconnect   = 250 * time.Millisecond
	longestReconnect = 5 * time.Second
	// How long an attempt to connect may take, before the next address is tried.
	connectTimeout = 5 * time.Second
)

// Client is a connection to a token broker. It is safe for concurrent use.
type Client struct {
	conn   *grpc.ClientConn
	tokens pb.TokenServiceClient
	// Streams have a connection of their own. Those that are more than a connection may
	// have wait, without an error, and calls would wait behind them.
	streamConn *grpc.ClientConn
	streams    pb.TokenServiceClient
	spiffe     io.Closer // closed last; may be nil

	ctx    context.Context // ends with Close; all sources run on it
	cancel context.CancelFunc

	mu        sync.Mutex
	closed    bool
	sources   map[string]*TokenSource // :: tenant and scopes → their source, while it is in use
	running   sync.WaitGroup          // what the client and its sources have started
	connected chan struct{}           // closed when the connection is there the next time
	room      room
}

// New returns a client of the broker at target: HOST:PORT, where each address of
// HOST is a replica, or a gRPC target like "dns:///HOST:PORT" or "unix:PATH"
// (https://github.com/grpc/grpc/blob/master/doc/naming.md).
//
// Without an option that says otherwise the connection is TLS 1.3, and the broker's
// certificate must be for HOST and of an authority that the system trusts.
//
// New does not wait for the broker. It reads the files that the options name, and
// fails if one of them cannot be used. ctx bounds this, and the wait for the first
// identity of WithSPIFFE; the client does not end with it, but with Close. An option
// that is nil changes nothing.
func New(ctx context.Context, target string, opts ...Option) (*Client, error) {
	var o options
	for _, option := range opts {
		if option != nil {
			option(&o)
		}
	}
	way, err := o.channel()
	if err != nil {
		return nil, err
	}
	target, err = targetOf(target, way.plain, len(o.dial) > 0)
	if err != nil {
		return nil, err
	}
	secured, closer, err := o.credentials(ctx, way)
	if err != nil {
		return nil, err
	}
	dial := append(dialOptions(o.serviceConfig()), secured...)
	if o.telemetry {
		dial = append(dial, telemetry())
	}
	dial = append(dial, o.dial...) // The caller's come last, so that they prevail.
	conn, err := grpc.NewClient(target, dial...)
	var streamConn *grpc.ClientConn
	if err == nil {
		streamConn, err = grpc.NewClient(target, dial...) // It connects when there is a stream.
	}
	if err != nil {
		if closer != nil {
			_ = closer.Close()
		}
		return nil, err
	}
	return newClient(conn, streamConn, closer), nil
}

func newClient(conn, streamConn *grpc.ClientConn, spiffe io.Closer) *Client {
	c := &Client{
		conn: conn, tokens: pb.NewTokenServiceClient(conn), streamConn: streamConn, streams: pb.NewTokenServiceClient(streamConn),
		spiffe: spiffe, sources: map[string]*TokenSource{}, connected: make(chan struct{}),
	}
	c.ctx, c.cancel = context.WithCancel(context.Background())
	c.running.Go(c.followConnection)
	return c
}

// followConnection lets sources know when the connection is there again.
func (c *Client) followConnection() {
	for state := c.conn.GetState(); c.conn.WaitForStateChange(c.ctx, state); {
		if state = c.conn.GetState(); state == connectivity.Ready {
			c.mu.Lock()
			close(c.connected)
			c.connected = make(chan struct{})
			c.mu.Unlock()
		}
	}
}

// reconnected returns what is closed when the connection is there the next time.
func (c *Client) reconnected() <-chan struct{} {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.connected
}

func dialOptions(config string) []grpc.DialOption {
	return []grpc.DialOption{
		grpc.WithUserAgent("tokenbroker-client"),
		grpc.WithDefaultServiceConfig(config),
		grpc.WithDisableServiceConfig(), // What DNS has to say about it is not asked for.
		grpc.WithKeepaliveParams(keepalive.ClientParameters{Time: pingInterval, Timeout: pingTimeout, PermitWithoutStream: true}),
		grpc.WithConnectParams(grpc.ConnectParams{
			Backoff:           backoff.Config{BaseDelay: firstReconnect, Multiplier: 1.6, Jitter: 0.2, MaxDelay: longestReconnect},
			MinConnectTimeout: connectTimeout,
		}),
		grpc.WithChainUnaryInterceptor(retry),
	}
}

func telemetry() grpc.DialOption {
	// Asking for health is a call that lasts as long as its connection, and tells nothing.
	return grpc.WithStatsHandler(otelgrpc.NewClientHandler(otelgrpc.WithFilter(filters.Not(filters.HealthCheck()))))
}

// Close ends all sources of the client, waits for what they have started, and
// closes the connection. Tokens that were handed out stay valid until they expire.
// A client that is closed stays so; closing it again does nothing.
func (c *Client) Close() error {
	c.mu.Lock()
	before := c.closed
	c.closed = true // From here on nothing is started.
	c.mu.Unlock()
	c.cancel()
	c.running.Wait()
	if before {
		return nil
	}
	err := errors.Join(c.conn.Close(), c.streamConn.Close())
	if c.spiffe != nil {
		err = errors.Join(err, c.spiffe.Close())
	}
	return err
}

package redisstore

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"net"
	"sync/atomic"
	"time"

	"github.com/redis/go-redis/v9"
)

const (
	// How long a sentinel may take to answer before the next one is asked.
	sentinelTimeout = 500 * time.Millisecond
	// How long a connection is believed to lead to the primary. A primary that is
	// cut off from its sentinels has a successor without knowing it.
	primaryBelief = 10 * time.Second
)

// errNoPrimary says that a sentinel answers, but not for the name in the URL.
var errNoPrimary = errors.New("the sentinel watches no primary of this name")

// primaryDialer connects to the primary that sentinels name. It asks for each
// connection: one sentinel, and the next if that one does not answer, which is
// then asked first. The client's own way stays with a sentinel whose machine is
// gone, since the time for a connection is over before that sentinel's is.
type primaryDialer struct {
	sentinels []string
	primary   string
	asks      redis.Options
	tls       *tls.Config
	first     atomic.Int64 // of the sentinels, the one to ask first
}

func newPrimaryDialer(a *address, tlsConfig *tls.Config) *primaryDialer {
	return &primaryDialer{
		sentinels: a.hosts,
		primary:   a.primary,
		tls:       tlsConfig,
		asks: redis.Options{
			Username: a.sentinelUser, Password: a.sentinelPassword.Reveal(), TLSConfig: tlsConfig,
			DialTimeout: sentinelTimeout, ReadTimeout: sentinelTimeout, WriteTimeout: sentinelTimeout,
			MaxRetries: -1, DialerRetries: 1, PoolSize: 1, ContextTimeoutEnabled: true, DisableIdentity: true,
		},
	}
}

// dial implements the client's dialer. Its address is none.
func (d *primaryDialer) dial(ctx context.Context, network, _ string) (net.Conn, error) {
	addr, err := d.find(ctx)
	if err != nil {
		return nil, err
	}
	if d.tls == nil {
		return new(net.Dialer).DialContext(ctx, network, addr)
	}
	return (&tls.Dialer{Config: d.tls}).DialContext(ctx, network, addr)
}

// find returns where the primary is.
func (d *primaryDialer) find(ctx context.Context) (string, error) {
	first, count := d.first.Load(), int64(len(d.sentinels))
	var failed []error
	for n := first; n < first+count && ctx.Err() == nil; n++ {
		addr, err := d.ask(ctx, d.sentinels[n%count])
		if err == nil {
			return addr, nil
		}
		failed = append(failed, err)
		d.first.CompareAndSwap(n, n+1)
	}
	return "", fmt.Errorf("ask sentinels for the primary: %w", errors.Join(append(failed, ctx.Err())...))
}

func (d *primaryDialer) ask(ctx context.Context, sentinel string) (string, error) {
	ctx, cancel := context.WithTimeout(ctx, sentinelTimeout)
	defer cancel()
	options := d.asks
	options.Addr = sentinel
	client := redis.NewSentinelClient(&options)
	defer func() { _ = client.Close() }()
	addr, err := client.GetMasterAddrByName(ctx, d.primary).Result()
	switch {
	case errors.Is(err, redis.Nil) || err == nil && len(addr) != 2:
		// Passed on, it would be taken for an answer to the command: no such tenant.
		return "", errNoPrimary
	case err != nil:
		return "", reduce(err)
	}
	return net.JoinHostPort(addr[0], addr[1]), nil
}

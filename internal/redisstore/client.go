package redisstore

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"os"
	"time"

	"github.com/redis/go-redis/v9"
	"github.com/redis/go-redis/v9/maintnotifications"
)

const (
	// Commands are answered in well under a millisecond; one that is not within a
	// second will not be, and callers are waiting.
	commandTimeout = time.Second
	// How long the nodes of a cluster are believed to be who they were. When a
	// primary is gone nobody says so: only whoever asks anew hears of its successor.
	clusterBelief = 2 * time.Second
	// How long a connection is used.
	connLifetime = time.Minute
	// How often a command of a cluster is sent again: to the node that the first
	// has named, and once more if that one is not the one any more.
	clusterRedirects = 2
)

// newClient returns a client for what a URL says. It does not connect. Whatever
// the shape, a command ends with its context, and without one within seconds.
func newClient(a *address) (redis.UniversalClient, error) {
	tlsConfig, err := a.tls.load()
	if err != nil {
		return nil, err
	}
	options := redis.UniversalOptions{
		Addrs:                 a.hosts,
		Username:              a.user,
		Password:              a.password.Reveal(),
		DB:                    a.db,
		TLSConfig:             tlsConfig,
		DialTimeout:           commandTimeout,
		ReadTimeout:           commandTimeout,
		WriteTimeout:          commandTimeout,
		PoolTimeout:           commandTimeout,
		ContextTimeoutEnabled: true, // Else the client waits for its own timeouts only.
		MaxRetries:            1,
		PoolSize:              4 * maxSwaps,
		// Where an address leads may change behind a balancer or in the DNS, though
		// the server it led to goes on answering.
		ConnMaxLifetime: connLifetime,
		// Each of the tries dials once: five times, the default, would be ten seconds
		// when packets to Redis get lost.
		DialerRetries: 1,
		// Nothing on a new connection but who this is, which every user may say.
		DisableIdentity:          true,
		MaintNotificationsConfig: &maintnotifications.Config{Mode: maintnotifications.ModeDisabled},
	}
	switch a.shape {
	case sentinels:
		o := options.Simple()
		o.Dialer = newPrimaryDialer(a, tlsConfig).dial
		o.DialTimeout += commandTimeout // For asking the sentinels.
		o.ConnMaxLifetime = primaryBelief
		return redis.NewClient(o), nil
	case cluster:
		o := options.Cluster()
		o.MaxRetries, o.MaxRedirects = -1, clusterRedirects // Each redirect is a retry.
		o.ClusterStateReloadInterval = clusterBelief
		o.DisableRoutingPolicies = true // All that is sent has a key.
		return redis.NewClusterClient(o), nil
	default:
		return redis.NewClient(options.Simple()), nil
	}
}

// tlsFiles are files of PEM. Empty: the system's authorities, no certificate.
type tlsFiles struct{ ca, cert, key string }

// load returns how to speak TLS; nil for nil. Servers are always verified, by the
// host that the URL, the sentinels or the cluster name. Its errors name
// parameters of the URL.
func (f *tlsFiles) load() (*tls.Config, error) {
	if f == nil {
		return nil, nil
	}
	config := &tls.Config{MinVersion: tls.VersionTLS12}
	if f.ca != "" {
		pem, err := readFile("ca_file", f.ca)
		if err != nil {
			return nil, err
		}
		config.RootCAs = x509.NewCertPool()
		if !config.RootCAs.AppendCertsFromPEM(pem) {
			return nil, errors.New("redis URL: ca_file has no PEM certificate in it")
		}
	}
	if f.cert != "" {
		cert, err := readFile("cert_file", f.cert)
		if err != nil {
			return nil, err
		}
		key, err := readFile("key_file", f.key)
		if err != nil {
			return nil, err
		}
		pair, err := tls.X509KeyPair(cert, key)
		if err != nil {
			return nil, fmt.Errorf("redis URL: cert_file with key_file: %w", err)
		}
		config.Certificates = []tls.Certificate{pair}
	}
	return config, nil
}

// readFile reads the file of a parameter. Its error does not say which it is.
func readFile(parameter, path string) ([]byte, error) {
	content, err := os.ReadFile(path)
	if refused := new(fs.PathError); errors.As(err, &refused) {
		return nil, fmt.Errorf("redis URL: %s: %w", parameter, refused.Err)
	}
	return content, err
}

// clientLog takes what the client says of itself, mostly of connections that
// fail, which comes back as an error of the command too.
type clientLog struct{ log *slog.Logger }

// Printf implements the client's logger.
func (l clientLog) Printf(ctx context.Context, format string, v ...any) {
	for n, value := range v {
		if err, ok := value.(error); ok {
			v[n] = reduce(err)
		}
	}
	l.log.DebugContext(ctx, "redis client", "says", fmt.Sprintf(format, v...))
}

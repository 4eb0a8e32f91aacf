// Package redisstore keeps everything that replicas share in Redis: tenants,
// tokens, remembered failures, leases, and the stream of changes. Tenants,
// tokens and failures are sealed for the key they are stored under. It is the
// only room that knows Redis.
package redisstore

import (
	"context"
	"crypto/rand"
	_ "embed"
	"errors"
	"fmt"
	"log/slog"
	"strings"
	"sync/atomic"
	"time"

	"github.com/redis/go-redis/v9"

	"smokeball.internal/tokenbroker/internal/seal"
	"smokeball.internal/tokenbroker/internal/secret"
	"smokeball.internal/tokenbroker/internal/token"
)

// Config says which Redis, and how records are kept there.
type Config struct {
	// URL is redis://[user[:password]@]host[:port][/db], or rediss:// for TLS.
	URL string
	// Password replaces the one in URL unless it is empty.
	Password secret.Text
	// Prefix begins every key.
	Prefix string
	// Keyset seals and opens the records. Required.
	Keyset *seal.Keyset
	// Logger gets what cannot be returned as an error. Required.
	Logger *slog.Logger
}

// Store is the part of Redis that the brokers of one fleet share. It is safe for
// concurrent use.
type Store struct {
	client redis.UniversalClient
	prefix string
	keyset *seal.Keyset
	log    *slog.Logger
	clock  atomic.Pointer[reading]

	replica  string                 // names this replica among the fleet's
	registry atomic.Pointer[string] // the registry's name; nil until there was one
}

// Commands are answered in well under a millisecond; one that is not within a
// second will not be, and callers are waiting.
const commandTimeout = time.Second

// Open returns a store. It does not connect: a Redis that is away now may be
// there when the first command is sent.
func Open(c Config) (*Store, error) {
	options, err := redis.ParseURL(c.URL)
	// A query would be options of the client, one of which leaves TLS unverified.
	if err != nil || strings.Contains(c.URL, "?") {
		// The reason would quote parts of the URL, and so perhaps of its password.
		return nil, errors.New("redis URL: want redis://[user[:password]@]host[:port][/db] (rediss:// for TLS), with reserved characters percent-encoded")
	}
	if !c.Password.IsZero() {
		options.Password = c.Password.Reveal()
	}
	options.DialTimeout = commandTimeout
	options.ReadTimeout = commandTimeout
	options.WriteTimeout = commandTimeout
	options.PoolTimeout = commandTimeout
	options.MaxRetries = 1
	// Each of the tries dials once: five times, the default, would be ten seconds
	// when packets to Redis get lost.
	options.DialerRetries = 1
	// Without this, go-redis waits for its own timeouts only.
	options.ContextTimeoutEnabled = true
	// The client has one logger for the whole process; its own writes lines to
	// standard error that are no records.
	redis.SetLogger(clientLog{c.Logger})
	client := redis.NewClient(options)
	client.AddHook(reducing{})
	return &Store{client: client, prefix: c.Prefix, keyset: c.Keyset, log: c.Logger, replica: rand.Text()}, nil
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

// Close ends the connections.
func (s *Store) Close() error { return s.client.Close() }

// Ping returns nil if Redis answers.
func (s *Store) Ping(ctx context.Context) error { return s.client.Ping(ctx).Err() }

// The names of the keys. What changes together has the same hash tag (the part
// in braces) and so lives in the same slot of a Redis Cluster.

func (s *Store) recordsKey() string  { return s.prefix + "{tenants}:records" }  // hash :: id → sealed tenant
func (s *Store) indexKey() string    { return s.prefix + "{tenants}:index" }    // sorted set of ids, all scores 0
func (s *Store) warmKey() string     { return s.prefix + "{tenants}:warm" }     // the same, of those that are kept warm
func (s *Store) registryKey() string { return s.prefix + "{tenants}:registry" } // the registry's name
func (s *Store) changesKey() string  { return s.prefix + "{tenants}:changes" }  // stream

func (s *Store) tokenKey(k token.Key) string   { return s.prefix + "token:{" + k.Digest() + "}" }
func (s *Store) failureKey(k token.Key) string { return s.prefix + "fail:{" + k.Digest() + "}" }
func (s *Store) leaseKey(k token.Key) string   { return s.prefix + "lease:{" + k.Digest() + "}" }

// The scripts run whole or not at all, and nothing else runs meanwhile.
var (
	//go:embed scripts/load.lua
	loadSource string
	//go:embed scripts/save.lua
	saveSource string
	//go:embed scripts/admit.lua
	admitSource string
	//go:embed scripts/lease.lua
	leaseSource string
	//go:embed scripts/release.lua
	releaseSource string
	//go:embed scripts/swap.lua
	swapSource string
	//go:embed scripts/restore.lua
	restoreSource string

	loadScript    = redis.NewScript(loadSource)
	saveScript    = redis.NewScript(saveSource)
	admitScript   = redis.NewScript(admitSource)
	leaseScript   = redis.NewScript(leaseSource)
	releaseScript = redis.NewScript(releaseSource)
	swapScript    = redis.NewScript(swapSource)
	restoreScript = redis.NewScript(restoreSource)
)

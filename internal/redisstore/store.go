// Package redisstore keeps everything that replicas share in Redis: tenants,
// tokens, remembered failures, leases, the budget of exchanges, the stream of
// changes, and, for people to look at, how many exchanges there were and which replicas
// there are. Tenants, tokens and failures are sealed for the key they are stored
// under. It is the only room that knows Redis.
package redisstore

import (
	"context"
	"crypto/rand"
	"errors"
	"log/slog"
	"sync/atomic"
	"time"

	"github.com/redis/go-redis/v9"

	"smokeball.internal/tokenbroker/internal/seal"
	"smokeball.internal/tokenbroker/internal/secret"
	"smokeball.internal/tokenbroker/internal/token"
)

// Config says which Redis, and how records are kept there.
type Config struct {
	// URL is redis://[user[:password]@]host[:port][/db], redis+sentinel:// with the
	// hosts of sentinels and the name of what they watch, or redis+cluster:// with
	// the hosts of nodes; rediss, rediss+sentinel and rediss+cluster are with TLS.
	// See docs/redis.md.
	URL string
	// Password replaces the one in URL unless it is empty.
	Password secret.Text
	// SentinelPassword replaces the parameter sentinel_password in URL unless it is
	// empty. It is refused where there are no sentinels.
	SentinelPassword secret.Text
	// Prefix begins every key.
	Prefix string
	// Keyset seals and opens the records. Required.
	Keyset *seal.Keyset
	// Logger gets what cannot be returned as an error. Required.
	Logger *slog.Logger
	// Observer is told how long commands take; nil: nobody is.
	Observer Observer
}

// Store is the part of Redis that the brokers of one fleet share. It is safe for
// concurrent use.
type Store struct {
	client redis.UniversalClient
	shape  shape
	prefix string
	keyset *seal.Keyset
	log    *slog.Logger
	swaps  chan struct{} // one for each change of the registry that is under way
	clock  atomic.Pointer[reading]

	replica  string                 // names this replica among the fleet's
	registry atomic.Pointer[string] // the registry's name; nil until there was one
	unplaced atomic.Int64           // how many tenants the index of secrets lacked when it was last completed

	hearing  hearing
	refusals refusals
}

// Open returns a store. It does not connect: a Redis that is away now may be
// there when the first command is sent.
func Open(c Config) (*Store, error) {
	a, err := parseURL(c.URL)
	if err != nil {
		return nil, err
	}
	if !c.Password.IsZero() {
		a.password = c.Password
	}
	if !c.SentinelPassword.IsZero() {
		if a.shape != sentinels {
			return nil, errors.New("redis: a password for sentinels, but the URL has none (redis+sentinel://)")
		}
		a.sentinelPassword = c.SentinelPassword
	}
	client, err := newClient(a)
	if err != nil {
		return nil, err
	}
	client.AddHook(spans{})
	client.AddHook(reducing{})
	if c.Observer != nil {
		measure(client, c.Observer)
	}
	// The client has one logger for the whole process; its own writes lines to
	// standard error that are no records.
	redis.SetLogger(clientLog{c.Logger})
	s := &Store{client: client, shape: a.shape, prefix: c.Prefix, keyset: c.Keyset, log: c.Logger, replica: rand.Text(),
		swaps: make(chan struct{}, maxSwaps)}
	s.hearing.toldUpTo(time.Now())
	return s, nil
}

// Close ends the connections.
func (s *Store) Close() error { return s.client.Close() }

// Ping returns nil if Redis can be asked for tenants: it has a key looked for, so
// that in a cluster it is the node with the registry that answers.
func (s *Store) Ping(ctx context.Context) error { return s.client.Exists(ctx, s.recordsKey()).Err() }

// The names of the keys. What changes together has the same hash tag (the part
// in braces) and so lives in the same slot of a Redis Cluster.

func (s *Store) recordsKey() string  { return s.prefix + "{tenants}:records" }  // hash :: id → sealed tenant
func (s *Store) indexKey() string    { return s.prefix + "{tenants}:index" }    // sorted set of ids, all scores 0
func (s *Store) warmKey() string     { return s.prefix + "{tenants}:warm" }     // the same, of those that are kept warm
func (s *Store) secretsKey() string  { return s.prefix + "{tenants}:secrets" }  // sorted set of ids, scores: see places
func (s *Store) registryKey() string { return s.prefix + "{tenants}:registry" } // the registry's name
func (s *Store) changesKey() string  { return s.prefix + "{tenants}:changes" }  // stream
func (s *Store) replicasKey() string { return s.prefix + "{tenants}:replicas" } // sorted set of who is there, by when that was said

// registryKeys are the keys that change together with a tenant, in the order in
// which scripts have them.
func (s *Store) registryKeys() []string {
	return []string{s.recordsKey(), s.indexKey(), s.changesKey(), s.warmKey(), s.registryKey(), s.secretsKey()}
}

func (s *Store) tokenKey(k token.Key) string   { return s.prefix + "token:{" + k.Digest() + "}" }
func (s *Store) failureKey(k token.Key) string { return s.prefix + "fail:{" + k.Digest() + "}" }
func (s *Store) exchangesKey(k token.Key) string {
	return s.prefix + "exchanges:{" + k.Digest() + "}" // hash :: hour.outcome → how many
}
func (s *Store) leaseKey(k token.Key) string { return s.prefix + "lease:{" + k.Digest() + "}" }

package redisstore

import (
	"sync/atomic"
	"time"

	"github.com/redis/go-redis/v9"
)

// Stats says how the store is, and counts what it has seen since it was opened.
type Stats struct {
	// IdleConns and InUseConns are how many connections there are.
	IdleConns, InUseConns int
	// PoolTimeouts counts commands that were not sent since no connection was free in
	// time. In a cluster it is of the nodes that are known now, and falls when one goes.
	PoolTimeouts uint64
	// Refused counts readings of a record that does not open, or is not what its place
	// says, by kind.
	Refused map[RecordKind]uint64
	// Lag is how long ago the last moment was up to which Follow has told of all
	// changes; before the first, how long ago the store was opened. While Redis answers
	// it is little more than half a second at most.
	Lag time.Duration
	// RegistryLost says that Redis has not the registry that it had before, as far as
	// Follow has heard.
	RegistryLost bool
}

// RecordKind is what a sealed record holds.
type RecordKind string

// The kinds of sealed records.
const (
	TenantRecord  RecordKind = "tenant"
	TokenRecord   RecordKind = "token"
	FailureRecord RecordKind = "failure"
)

// refusals counts records that were refused. The zero refusals is of none.
type refusals struct{ tenants, tokens, failures atomic.Uint64 }

// count counts an error.
func count(n *atomic.Uint64, err *error) {
	if *err != nil {
		n.Add(1)
	}
}

// hearing is what Follow has heard.
type hearing struct {
	upTo atomic.Pointer[time.Time] // never nil: all changes up to then were told of
	some atomic.Bool               // there was an answer
	lost atomic.Bool
}

// toldUpTo says that all changes up to a moment were told of.
func (h *hearing) toldUpTo(at time.Time) { h.upTo.Store(&at) }

// Stats returns how the store is. It asks nobody.
func (s *Store) Stats() Stats {
	pool := s.pool()
	return Stats{
		IdleConns: int(pool.IdleConns), InUseConns: max(0, int(pool.TotalConns)-int(pool.IdleConns)), PoolTimeouts: uint64(pool.Timeouts),
		Refused: map[RecordKind]uint64{
			TenantRecord: s.refusals.tenants.Load(), TokenRecord: s.refusals.tokens.Load(), FailureRecord: s.refusals.failures.Load(),
		},
		Lag: time.Since(*s.hearing.upTo.Load()), RegistryLost: s.hearing.lost.Load(),
	}
}

// pool returns the counts of all connections. For those of a cluster that was not
// reached yet the client would look for its nodes.
func (s *Store) pool() redis.PoolStats {
	if _, nodes := s.client.(*redis.ClusterClient); nodes && !s.hearing.some.Load() {
		return redis.PoolStats{}
	}
	stats := *s.client.PoolStats()
	if pipes := stats.PipelineStats; pipes != nil { // They have connections of their own.
		stats.TotalConns += pipes.TotalConns
		stats.IdleConns += pipes.IdleConns
		stats.Timeouts += pipes.Timeouts
	}
	return stats
}

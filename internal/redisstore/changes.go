package redisstore

import (
	"cmp"
	"context"
	"errors"
	"math/rand/v2"
	"time"

	"github.com/redis/go-redis/v9"
)

const (
	// About how many changes are kept for replicas that were cut off.
	changesKept = 10_000
	// How long one read waits for changes: the longest that Follow takes to end
	// while Redis answers.
	followBlock = 500 * time.Millisecond
	// How many changes are read at a time.
	followBatch = 1000
	// The longest wait between two tries to reach Redis.
	maxFollowBackoff = 2 * time.Second
)

// Listener is told of changes, its own included, one call at a time.
type Listener interface {
	// TenantChanged: the tenant was created, changed or deleted; warm says whether
	// it is kept warm now.
	TenantChanged(id string, warm bool)
	// TokenChanged: a token with this id or, if it is empty, a failure was saved
	// under the key with this digest.
	TokenChanged(digest, tokenID string)
	// Resync: changes may have been missed; anything may have changed.
	Resync()
	// Heard: there were no other changes up to now. It is called at least every
	// second while Redis serves.
	Heard()
}

// announce tells all replicas of a change. It is a hint: who needs to know finds
// out without it, only later.
func (s *Store) announce(ctx context.Context, values ...string) {
	err := s.client.XAdd(ctx, &redis.XAddArgs{Stream: s.changesKey(), MaxLen: changesKept, Approx: true, Values: values}).Err()
	if err != nil {
		s.log.WarnContext(ctx, "change not announced", "error", err)
	}
}

// Follow tells l of every change from now on, until ctx ends. When Redis was out
// of reach it goes on where it was, or calls Resync if that part of the stream
// is gone.
func (s *Store) Follow(ctx context.Context, l Listener) {
	last, backoff := "", time.Duration(0)
	lost, first := false, true
	for {
		err := s.follow(ctx, l, &last, func(before, registry string) {
			if first && registry == "" {
				s.log.WarnContext(ctx, "there is no registry of tenants in redis: the first registration begins it; if there was one, restore it with 'tokenbroker tenants import' instead")
			}
			first = false
			if now := s.lost(before, registry); now != lost {
				lost = now
				s.reportLoss(ctx, lost)
			}
			s.hearing.some.Store(true)
			s.hearing.lost.Store(lost)
			if backoff > 0 {
				s.log.InfoContext(ctx, "redis serves again")
			}
			backoff = 0
		})
		if ctx.Err() != nil {
			return
		}
		if backoff == 0 {
			s.log.WarnContext(ctx, "redis does not serve: changes by other replicas are not heard", "error", err)
			backoff = 50 * time.Millisecond
		}
		backoff = min(maxFollowBackoff, 2*backoff)
		select {
		case <-time.After(backoff/2 + rand.N(backoff/2)):
		case <-ctx.Done():
			return
		}
	}
}

// reportLoss tells operators of the one thing that only they can mend.
func (s *Store) reportLoss(ctx context.Context, lost bool) {
	if lost {
		s.log.ErrorContext(ctx, "the registry of tenants is gone from redis: what is in memory is served for now; restore it with 'tokenbroker tenants import', or restart the replicas to begin a new one")
		return
	}
	s.log.InfoContext(ctx, "the registry of tenants is back")
}

// follow reads from behind *last on until an error. reached is called after each
// answer, with the name that the registry was known by before, and the one it has.
func (s *Store) follow(ctx context.Context, l Listener, last *string, reached func(before, registry string)) error {
	for ctx.Err() == nil {
		sent := time.Now()
		streams, whole, err := s.read(ctx, *last)
		if err != nil {
			return err
		}
		// Each time, and after the read: the client reconnects by itself, perhaps to
		// a Redis that has lost its data, and l may be slower than the changes come.
		before, asked := s.knownRegistry(), time.Now()
		lost, newest, registry, err := s.gap(ctx, *last)
		if err != nil {
			return err
		}
		reached(before, registry)
		if lost {
			*last = newest
			l.Resync()
			l.Heard()
			continue
		}
		for _, stream := range streams {
			for _, m := range stream.Messages {
				*last = m.ID
				if id, ok := m.Values["tenant"].(string); ok {
					l.TenantChanged(id, m.Values["warm"] == "1")
				} else if digest, ok := m.Values["token"].(string); ok {
					id, _ := m.Values["id"].(string)
					l.TokenChanged(digest, id)
				}
			}
		}
		l.Heard()
		switch {
		case *last == newest:
			s.hearing.toldUpTo(asked)
		case whole: // There are others since.
			s.hearing.toldUpTo(sent)
		}
	}
	return ctx.Err()
}

// read waits for changes behind last; after a while there are none. whole says
// that these are all that there were when it began to read. If last is empty, there is no
// place yet to read from.
func (s *Store) read(ctx context.Context, last string) (streams []redis.XStream, whole bool, err error) {
	if last == "" {
		return nil, false, nil
	}
	// For a command that blocks, the client's own timeout is ten seconds longer
	// than the block, and it does not hear of the end of ctx.
	ctx, cancel := context.WithTimeout(ctx, followBlock+commandTimeout)
	defer cancel()
	streams, err = s.client.XRead(ctx, &redis.XReadArgs{Streams: []string{s.changesKey(), last}, Count: followBatch, Block: followBlock}).Result()
	if errors.Is(err, redis.Nil) {
		return nil, true, nil
	}
	return streams, len(streams) == 1 && len(streams[0].Messages) < followBatch, err
}

// gap says whether changes behind last may be gone from the stream: always if
// last is empty (nothing was read yet), and if last itself is not there any more,
// because the stream was trimmed past it or has lost data. newest is where the
// stream ends now, "0-0" if it is empty, and registry the name of the registry.
func (s *Store) gap(ctx context.Context, last string) (lost bool, newest, registry string, err error) {
	pipe := s.client.Pipeline()
	seen := pipe.XRange(ctx, s.changesKey(), cmp.Or(last, "0-1"), cmp.Or(last, "0-1"))
	latest := pipe.XRevRangeN(ctx, s.changesKey(), "+", "-", 1)
	name := pipe.Get(ctx, s.registryKey())
	if _, err := pipe.Exec(ctx); err != nil && !errors.Is(err, redis.Nil) {
		return false, "", "", err
	}
	if len(latest.Val()) == 0 {
		return last != "0-0", "0-0", name.Val(), nil
	}
	return len(seen.Val()) == 0, latest.Val()[0].ID, name.Val(), nil
}

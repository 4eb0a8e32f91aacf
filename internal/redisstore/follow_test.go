package redisstore_test

import (
	"context"
	"fmt"
	"slices"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/redis/go-redis/v9"

	"smokeball.internal/tokenbroker/internal/redisstore"
	"smokeball.internal/tokenbroker/internal/redisstore/redistest"
)

const resync = "resync"

// follower records what it is told.
type follower struct {
	mu    sync.Mutex
	told  []string
	calls int           // that are being made now
	heard atomic.Int64  // calls of Heard
	hold  chan struct{} // nil, or closed when calls may return
	stop  func()        // ends Follow and waits
}

// follow starts a follower and waits until it has heard that anything may have
// changed before.
func follow(t *testing.T, s *redisstore.Store) *follower {
	t.Helper()
	ctx, cancel := context.WithCancel(context.Background())
	l, ended := &follower{}, make(chan struct{})
	go func() {
		defer close(ended)
		s.Follow(ctx, l)
	}()
	l.stop = func() {
		cancel()
		// It ends within a read's deadline; Redis may be away meanwhile. Without
		// one it would be the client's own ten seconds and more.
		select {
		case <-ended:
		case <-time.After(8 * time.Second):
			t.Error("Follow goes on after its context has ended")
		}
	}
	t.Cleanup(l.stop)
	l.await(t, "at the start", resync)
	return l
}

func (l *follower) TenantChanged(id string, warm bool) {
	if warm {
		id += ", warm"
	}
	l.tell("tenant " + id)
}
func (l *follower) TokenChanged(digest, id string) { l.tell("token " + digest + " " + id) }
func (l *follower) Heard()                         { l.heard.Add(1) }
func (l *follower) Resync()                        { l.tell(resync) }

func (l *follower) tell(what string) {
	l.mu.Lock()
	l.told = append(l.told, what)
	l.calls++
	if l.calls > 1 {
		l.told = append(l.told, "two calls at a time")
	}
	hold := l.hold
	l.mu.Unlock()
	if hold != nil {
		<-hold
	}
	l.mu.Lock()
	l.calls--
	l.mu.Unlock()
}

// await waits until exactly this has been told since the last await.
func (l *follower) await(t *testing.T, when string, want ...string) {
	t.Helper()
	var got []string
	eventually(t, fmt.Sprintf("%s: told %q", when, want), func() bool {
		l.mu.Lock()
		defer l.mu.Unlock()
		got = slices.Clone(l.told)
		if len(got) >= len(want) {
			l.told = nil
			return true
		}
		return false
	})
	if !slices.Equal(got, want) {
		t.Fatalf("%s: told %q, want %q", when, got, want)
	}
}

// awaitOneOf waits until something is told that change says it has done. It is
// done again and again: what tells of it may be lost, or a Resync in its place.
func (l *follower) awaitOneOf(t *testing.T, when string, change func() string) {
	t.Helper()
	var done []string
	eventually(t, when+": told of a change", func() bool {
		done = append(done, change())
		l.mu.Lock()
		defer l.mu.Unlock()
		return slices.ContainsFunc(l.told, func(told string) bool { return slices.Contains(done, told) })
	})
}

func TestFollowTellsOfChangesInOrder(t *testing.T) {
	onBoth(t, func(t *testing.T, f *fixture) {
		ctx, k := t.Context(), keyOf("acme")
		f.create(t, newTenant("before"))
		here, there := follow(t, f.Store), follow(t, f.open(t, f.keyset))

		created := f.create(t, newTenant("acme"))
		updated, err := f.UpdateTenant(ctx, *created)
		if err != nil {
			t.Fatal(err)
		}
		first, second := newToken("first", time.Minute, time.Hour), newToken("second", 0, time.Hour)
		f.save(t, k, first)
		if err := f.SaveFailure(ctx, k, newFailure("throttled", time.Minute)); err != nil {
			t.Fatal(err)
		}
		f.save(t, k, second)
		f.save(t, k, first) // Which tells of the one that is kept.
		if _, err := f.UpdateTenant(ctx, *created); err == nil {
			t.Error("updated at an old version")
		}
		if err := f.DeleteTenant(ctx, "acme", updated.Etag); err != nil {
			t.Fatal(err)
		}
		want := []string{
			"tenant acme", "tenant acme",
			"token " + k.Digest() + " " + first.ID,
			"token " + k.Digest() + " ",
			"token " + k.Digest() + " " + second.ID,
			"token " + k.Digest() + " " + second.ID,
			"tenant acme",
		}
		here.await(t, "this replica", want...)
		there.await(t, "another", want...)
	})
}

func TestFollowGoesOnAfterAnOutage(t *testing.T) {
	onBoth(t, func(t *testing.T, f *fixture) {
		for _, test := range []struct {
			name      string
			meanwhile func() error
			want      []string
		}{
			{"nothing happened", func() error { return nil }, []string{}},
			{"changes", func() error { return nil }, []string{"tenant while-away-1", "tenant while-away-2"}},
			{"trimmed past", func() error { return f.raw.XTrimMaxLen(t.Context(), changesKey, 1).Err() }, []string{resync}},
			{"all lost", func() error { return f.raw.FlushAll(t.Context()).Err() }, []string{resync}},
		} {
			if err := f.raw.FlushAll(t.Context()).Err(); err != nil {
				t.Fatal(err)
			}
			f.create(t, newTenant("before"))
			line := newLine(t, f.url)
			l := follow(t, f.openAt(t, line.url(), f.keyset))
			line.cut()
			if test.name != "nothing happened" {
				f.create(t, newTenant("while-away-1"))
				f.create(t, newTenant("while-away-2"))
			}
			if err := test.meanwhile(); err != nil {
				t.Fatal(err)
			}
			line.mend()
			l.await(t, test.name, test.want...)
			if test.name == "all lost" {
				continue // On an empty stream, the next change may be part of another Resync.
			}
			f.create(t, newTenant("after"))
			l.await(t, test.name+", then a change", "tenant after")
			l.stop()
		}
	})
}

// The connection holds, so that no error tells.
func TestFollowNoticesALossOfDataWhileConnected(t *testing.T) {
	onBoth(t, func(t *testing.T, f *fixture) {
		f.create(t, newTenant("before"))
		l := follow(t, f.Store)
		if err := f.raw.FlushAll(t.Context()).Err(); err != nil {
			t.Fatal(err)
		}
		l.await(t, "all lost", resync)
	})
}

func TestFollowNoticesThatItsListenerIsTooSlow(t *testing.T) {
	onBoth(t, func(t *testing.T, f *fixture) {
		f.create(t, newTenant("before"))
		l := follow(t, f.Store)
		hold := make(chan struct{})
		l.mu.Lock()
		l.hold = hold
		l.mu.Unlock()
		f.create(t, newTenant("slow"))
		l.await(t, "before the hold", "tenant slow")
		f.create(t, newTenant("missed"))
		f.create(t, newTenant("kept"))
		if err := f.raw.XTrimMaxLen(t.Context(), changesKey, 1).Err(); err != nil {
			t.Fatal(err)
		}
		close(hold)
		l.await(t, "trimmed past", resync)
		f.create(t, newTenant("after"))
		l.await(t, "then", "tenant after")
	})
}

func TestFollowGoesOnAfterARestart(t *testing.T) {
	t.Parallel()
	server := redistest.Start(t, "--appendonly", "yes", "--appendfsync", "always")
	f := newFixture(t, server.URL())
	f.create(t, newTenant("before"))
	l := follow(t, f.open(t, f.keyset))
	server.Kill()
	server.Restart()
	eventually(t, "the store is back", func() bool {
		_, err := f.CreateTenant(t.Context(), newTenant("after"))
		return err == nil
	})
	l.await(t, "after the restart", "tenant after")
}

func TestFollowEndsWhileRedisIsAway(t *testing.T) {
	t.Parallel()
	for _, test := range []struct {
		name string
		away func(*redistest.Server)
	}{
		{"answers", func(*redistest.Server) {}},
		{"killed", (*redistest.Server).Kill},
		{"paused", (*redistest.Server).Pause},
	} {
		t.Run(test.name, func(t *testing.T) {
			t.Parallel()
			server := redistest.Start(t)
			l := follow(t, newFixture(t, server.URL()).Store)
			test.away(server)
			l.stop()
		})
	}
}

// A failover, or a restart without the last second of the log, loses the newest
// changes; others may follow before the replica reads on.
func TestFollowNoticesThatTheNewestChangesWereLost(t *testing.T) {
	onBoth(t, func(t *testing.T, f *fixture) {
		f.create(t, newTenant("before"))
		here := follow(t, f.Store)
		f.create(t, newTenant("lost"))
		here.await(t, "before the loss", "tenant lost")
		lost, err := f.raw.XRevRangeN(t.Context(), changesKey, "+", "-", 1).Result()
		if err != nil {
			t.Fatal(err)
		}
		pipe := f.raw.TxPipeline()
		pipe.XDel(t.Context(), changesKey, lost[0].ID)
		pipe.XAdd(t.Context(), &redis.XAddArgs{Stream: changesKey, Values: []string{"tenant", "after"}})
		if _, err := pipe.Exec(t.Context()); err != nil {
			t.Fatal(err)
		}
		here.await(t, "after the loss", resync)
	})
}

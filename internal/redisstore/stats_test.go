package redisstore_test

import (
	"context"
	"maps"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/redis/go-redis/v9"

	"smokeball.internal/tokenbroker/internal/redisstore"
	"smokeball.internal/tokenbroker/internal/token"
)

func TestRecordsThatAreRefusedAreCountedByKind(t *testing.T) {
	onBoth(t, func(t *testing.T, f *fixture) {
		ctx, acme, globex := t.Context(), keyOf("acme"), keyOf("globex")
		want := func(when string, tenants, tokens, failures uint64) {
			t.Helper()
			refused := map[redisstore.RecordKind]uint64{
				redisstore.TenantRecord: tenants, redisstore.TokenRecord: tokens, redisstore.FailureRecord: failures,
			}
			if got := f.Stats().Refused; !maps.Equal(got, refused) {
				t.Errorf("%s: %v, want %v", when, got, refused)
			}
		}
		f.create(t, newTenant("acme"))
		f.save(t, acme, newToken("acme's", 0, time.Hour))
		if err := f.SaveFailure(ctx, globex, newFailure(token.Throttled, time.Hour)); err != nil {
			t.Fatal(err)
		}
		for _, k := range []token.Key{acme, globex} {
			_, _ = f.load(t, k)
		}
		if _, err := f.Tenant(ctx, "acme"); err != nil {
			t.Fatal(err)
		}
		want("what is as it was", 0, 0, 0)

		move := func(from, to string) {
			t.Helper()
			record, err := f.raw.Get(ctx, from).Result()
			if err != nil {
				t.Fatal(err)
			}
			if err := f.raw.Set(ctx, to, record, time.Hour).Err(); err != nil {
				t.Fatal(err)
			}
		}
		initech := keyOf("initech")
		move(tokenKey(acme), tokenKey(initech))
		_, _ = f.load(t, initech)
		want("a token in another's place", 0, 1, 0)
		move(failureKey(globex), failureKey(initech))
		_, _ = f.load(t, initech)
		want("with a failure in another's place", 0, 2, 1)
		if _, err := f.Save(ctx, initech, newToken("older", 2*time.Hour, 3*time.Hour)); err == nil {
			t.Error("saved beside a token that cannot be opened")
		}
		want("seen when another is saved", 0, 3, 1)
		if err := f.raw.HSet(ctx, recordsKey, "acme", "00.junk").Err(); err != nil {
			t.Fatal(err)
		}
		if _, err := f.Tenant(ctx, "acme"); err == nil {
			t.Error("a tenant of junk")
		}
		want("a tenant that does not open", 1, 3, 1)
		if _, _, err := f.ListTenants(ctx, "", 10); err != nil {
			t.Fatal(err)
		}
		want("in a list, too", 2, 3, 1)
	})
}

func TestConnectionsAreCounted(t *testing.T) {
	for _, shape := range shapes() {
		t.Run(shape.name, func(t *testing.T) {
			t.Parallel()
			f := newFixtureAt(t, shape.start(t))
			if s := f.Stats(); s.IdleConns != 0 || s.InUseConns != 0 {
				t.Errorf("before the first command: %+v", s)
			}
			follow(t, f.Store) // It has one nearly always, which waits for changes.
			eventually(t, "one in use, and others", func() bool {
				s := f.Stats()
				return s.InUseConns > 0 && s.IdleConns > 0 && s.PoolTimeouts == 0
			})
		})
	}
}

func TestTheLagOfTheChangeStreamGrowsWhileRedisIsAway(t *testing.T) {
	onBoth(t, func(t *testing.T, f *fixture) {
		line := newLine(t, f.url)
		opened := time.Now()
		s := f.openAt(t, line.url(), f.keyset)
		time.Sleep(50 * time.Millisecond)
		if lag := s.Stats().Lag; lag < 50*time.Millisecond || lag > time.Since(opened) {
			t.Errorf("opened %v ago, and nothing heard: lag %v", time.Since(opened), lag)
		}
		f.create(t, newTenant("before"))
		heard := follow(t, s)
		eventually(t, "heard of everything a moment ago", func() bool { return s.Stats().Lag < 50*time.Millisecond })
		before := time.Now()
		f.create(t, newTenant("acme"))
		heard.await(t, "with a change", "tenant acme")
		eventually(t, "the change is no lag", func() bool { return s.Stats().Lag < time.Since(before) })

		line.cut()
		away := time.Now()
		grown := 2 * time.Second // Longer than it takes while all is well.
		eventually(t, "grown", func() bool { return s.Stats().Lag > grown })
		if time.Since(away) < grown-time.Second {
			t.Errorf("it has grown to %v within %v", grown, time.Since(away))
		}
		line.mend()
		eventually(t, "caught up", func() bool { return s.Stats().Lag < time.Second/2 })
	})
}

// Changes that come faster than they are told of are a lag, though Redis answers.
func TestTheLagOfTheChangeStreamIsItsListenersToo(t *testing.T) {
	onBoth(t, func(t *testing.T, f *fixture) {
		l := follow(t, f.Store)
		hold := make(chan struct{})
		l.mu.Lock()
		l.hold = hold
		l.mu.Unlock()
		f.create(t, newTenant("acme"))
		eventually(t, "grown", func() bool { return f.Stats().Lag > 2*time.Second })
		close(hold)
		eventually(t, "caught up", func() bool { return f.Stats().Lag < time.Second/2 })
	})
}

// stuck is a listener that is told of no more than so many changes.
type stuck struct {
	follower
	left  atomic.Int64
	until chan struct{}
}

func (l *stuck) TenantChanged(string, bool) {
	if l.left.Add(-1) < 0 {
		<-l.until
	}
}

// Of what is read there may be more.
func TestPartOfABacklogIsStillALag(t *testing.T) {
	onBoth(t, func(t *testing.T, f *fixture) {
		f.create(t, newTenant("before"))
		line := newLine(t, f.url)
		s, l := f.openAt(t, line.url(), f.keyset), &stuck{until: make(chan struct{})}
		ctx, cancel := context.WithCancel(t.Context())
		var following sync.WaitGroup
		following.Go(func() { s.Follow(ctx, l) })
		defer following.Wait()
		defer cancel()
		defer close(l.until)
		eventually(t, "following", func() bool { return l.heard.Load() > 0 })
		line.cut()
		away := time.Now()
		const batch, backlog = 1000, 2500
		l.left.Store(batch)
		pipe := f.raw.Pipeline()
		for range backlog {
			pipe.XAdd(t.Context(), &redis.XAddArgs{Stream: changesKey, Values: []string{"tenant", "acme", "warm", ""}})
		}
		if _, err := pipe.Exec(t.Context()); err != nil {
			t.Fatal(err)
		}
		back := time.Now()
		line.mend()
		eventually(t, "more than a batch was read", func() bool { return l.left.Load() < 0 })
		if lag := s.Stats().Lag; lag < time.Since(back) {
			t.Errorf("cut off %v ago, back for %v, and not told of everything since: lag %v", time.Since(away), time.Since(back), lag)
		}
	})
}

// There is always a change that came since the read.
func TestChangesWithoutAPauseAreNoLag(t *testing.T) {
	onBoth(t, func(t *testing.T, f *fixture) {
		f.create(t, newTenant("before"))
		line := newLine(t, f.url)
		s := f.openAt(t, line.url(), f.keyset)
		l := follow(t, s)
		line.onAnswer("XREAD", func() {
			_ = f.raw.XAdd(context.Background(), &redis.XAddArgs{Stream: changesKey, Values: []string{"tenant", "acme"}}).Err()
		})
		eventually(t, "changes without a pause", func() bool {
			l.mu.Lock()
			defer l.mu.Unlock()
			return len(l.told) >= 3
		})
		since := time.Now()
		eventually(t, "told of everything up to a moment since", func() bool { return s.Stats().Lag < time.Since(since) })
	})
}

func TestThatTheRegistryIsLostIsTold(t *testing.T) {
	onBoth(t, func(t *testing.T, f *fixture) {
		lost := func() bool { return f.Stats().RegistryLost }
		l := follow(t, f.Store)
		if lost() {
			t.Error("lost before there was one")
		}
		f.create(t, newTenant("acme"))
		l.await(t, "begun", resync) // On an empty stream.
		if lost() {
			t.Error("lost when it was begun")
		}
		dump := f.raw.Dump(t.Context(), prefix+"{tenants}:registry")
		if dump.Err() == nil { // The embedded store cannot give it back.
			defer eventually(t, "back", func() bool { return !lost() })
			defer f.raw.Restore(t.Context(), prefix+"{tenants}:registry", 0, dump.Val())
		}
		if err := f.raw.FlushAll(t.Context()).Err(); err != nil {
			t.Fatal(err)
		}
		eventually(t, "lost", lost)
	})
}

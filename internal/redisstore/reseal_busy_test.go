package redisstore_test

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"sync"
	"testing"
	"time"

	"smokeball.internal/tokenbroker/internal/redisstore"
	"smokeball.internal/tokenbroker/internal/redisstore/redistest"
	"smokeball.internal/tokenbroker/internal/secret"
	"smokeball.internal/tokenbroker/internal/tenant"
	"smokeball.internal/tokenbroker/internal/token"
)

// busyReplica is what a replica does all day: it registers, rotates and deletes one
// tenant, and saves one token. It remembers what was acknowledged last.
type busyReplica struct {
	replicas []*redisstore.Store // that it writes to in turn
	id       string
	tenant   *tenant.Tenant // nil: deleted
	token    *token.Token
	rounds   int
}

func (w *busyReplica) run(t *testing.T, done <-chan struct{}) {
	began := time.Now()
	for ; ; w.rounds++ {
		select {
		case <-done:
			return
		default:
		}
		s := w.replicas[w.rounds%len(w.replicas)]
		var err error
		switch {
		case w.tenant == nil:
			w.tenant, err = s.CreateTenant(t.Context(), newTenant(w.id))
		case w.rounds%7 == 6:
			err = s.DeleteTenant(t.Context(), w.id, w.tenant.Etag)
			w.tenant = nil
		default:
			changed := *w.tenant
			changed.Fallback, changed.Secret = changed.Secret, tenant.Secret{Value: secret.New(fmt.Sprint("secret-", w.rounds))}
			w.tenant, err = s.UpdateTenant(t.Context(), changed)
		}
		if err != nil {
			t.Errorf("%s, round %d: %v", w.id, w.rounds, err)
			return
		}
		// Each younger than the one before.
		bought := newToken(fmt.Sprintf("%s-%d", w.id, w.rounds), time.Minute-time.Since(began), time.Hour)
		if w.token, err = s.Save(t.Context(), keyOf(w.id), bought); err != nil || w.token.ID != bought.ID {
			t.Errorf("%s, round %d: kept %s, error %v", w.id, w.rounds, text(w.token), err)
			return
		}
		if err := s.SaveFailure(t.Context(), keyOf(w.id+"-failed"), newFailure("throttled", time.Hour)); err != nil {
			t.Error(err)
			return
		}
	}
}

func TestAResealLosesNothingThatIsWrittenMeanwhile(t *testing.T) {
	t.Parallel()
	for name, start := range map[string]func(*testing.T) string{
		"redis":   func(t *testing.T) string { return redistest.Start(t).URL() },
		"cluster": func(t *testing.T) string { return redistest.StartCluster(t).URL() },
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			f, file := newFixtureAt(t, start(t)), newKeysetFile(t)
			f.sealedWith(t, file.load())
			for i := range 200 {
				f.create(t, newTenant(fmt.Sprint("idle-", i)))
				f.save(t, keyOf(fmt.Sprint("idle-", i)), newToken(fmt.Sprint("idle-", i), 0, time.Hour))
			}
			// A clock that is behind: this replica seals with the key before.
			behind := f.open(t, file.rotated(time.Hour))
			rotated := f.open(t, file.settled())

			done := make(chan struct{})
			var writing sync.WaitGroup
			var writers []*busyReplica
			for i := range 4 {
				w := &busyReplica{id: fmt.Sprint("busy-", i), replicas: []*redisstore.Store{rotated}}
				if i%2 == 1 {
					w.replicas = append(w.replicas, behind)
				}
				writers = append(writers, w)
				writing.Go(func() { w.run(t, done) })
			}
			anew, changed := 0, 0
			for range 30 {
				r, err := rotated.Reseal(t.Context(), redisstore.ResealOptions{})
				if err != nil || len(r.Unreadable) > 0 {
					t.Errorf("Reseal = %+v, %v", r, err)
				}
				anew, changed = anew+r.Anew, changed+r.Changed
			}
			close(done)
			writing.Wait()
			if anew <= 400 {
				t.Errorf("%d sealed anew: nothing that was written meanwhile", anew)
			}
			t.Logf("%d sealed anew, %d changed each time", anew, changed)
			if r, err := rotated.Reseal(t.Context(), redisstore.ResealOptions{}); err != nil || r.Changed > 0 {
				t.Errorf("Reseal = %+v, %v", r, err)
			}
			pruned := f.open(t, file.pruned())
			if r, err := pruned.Reseal(t.Context(), redisstore.ResealOptions{DryRun: true}); err != nil || r.Anew > 0 || len(r.Unreadable) > 0 {
				t.Errorf("with the key that is left: %+v, %v", r, err)
			}
			for _, w := range writers {
				w.wantKept(t, pruned)
			}
			for i := range 200 {
				id := fmt.Sprint("idle-", i)
				if _, err := pruned.Tenant(t.Context(), id); err != nil {
					t.Errorf("%s: %v", id, err)
				}
				if got, _, err := pruned.Load(t.Context(), keyOf(id)); err != nil || text(got) != id {
					t.Errorf("%s: %s, %v", id, text(got), err)
				}
			}
		})
	}
}

// wantKept wants what was acknowledged last to be there.
func (w *busyReplica) wantKept(t *testing.T, s *redisstore.Store) {
	t.Helper()
	got, err := s.Tenant(t.Context(), w.id)
	switch {
	case w.tenant == nil && !errors.Is(err, tenant.ErrNotFound):
		t.Errorf("%s was deleted in round %d, and is %+v, %v", w.id, w.rounds, got, err)
	case w.tenant != nil && err != nil:
		t.Errorf("%s: %v", w.id, err)
	case w.tenant != nil:
		wantSame(t, got, w.tenant)
	}
	held, _, err := s.Load(t.Context(), keyOf(w.id))
	if err != nil || text(held) != text(w.token) {
		t.Errorf("%s has the token %s, %v, want %s", w.id, text(held), err, text(w.token))
	}
	if w.rounds < 10 {
		t.Errorf("%s wrote %d times only", w.id, w.rounds)
	}
}

// Somebody who changes a record each time that it is read cannot hold up a reseal.
func TestAResealDoesNotWaitForARecordToComeToRest(t *testing.T) {
	t.Parallel()
	f := newFixture(t, redistest.Start(t).URL())
	file := newKeysetFile(t)
	f.sealedWith(t, file.load())
	f.create(t, newTenant("acme"))
	l := newLine(t, f.url)
	rotated := f.openAt(t, l.url(), file.rotated(0))
	read, last := 0, ""
	l.onAnswer("HMGET", func() {
		read++
		current, err := f.Tenant(context.Background(), "acme")
		if err == nil {
			current, err = f.UpdateTenant(context.Background(), *current)
		}
		if err != nil {
			t.Error(err)
			return
		}
		last = current.Etag
	})
	done, err := rotated.Reseal(t.Context(), redisstore.ResealOptions{})
	if err != nil || done.Changed != 1 || done.Anew != 0 {
		t.Errorf("Reseal = %+v, %v", done, err)
	}
	if got, err := f.Tenant(t.Context(), "acme"); err != nil || got.Etag != last {
		t.Errorf("there is %+v, %v, and the last change made it %s", got, err, last)
	}
	if read < 2 || read > 20 {
		t.Errorf("read %d times", read)
	}
}

func TestAResealNeverPutsATokenBackThatWasReplaced(t *testing.T) {
	t.Parallel()
	f := newFixture(t, redistest.Start(t).URL())
	file := newKeysetFile(t)
	f.sealedWith(t, file.load()).create(t, newTenant("acme"))
	replaced, ended := keyOf("replaced"), keyOf("ended")
	f.save(t, replaced, newToken("before", time.Minute, time.Hour))
	f.save(t, ended, newToken("ended", time.Minute, time.Hour))
	l := newLine(t, f.url)
	rotated := f.openAt(t, l.url(), file.rotated(0))
	var once sync.Once
	l.onAnswer("\r\nGET\r\n$"+fmt.Sprint(len(tokenKey(replaced))), func() {
		once.Do(func() {
			if _, err := f.Save(context.Background(), replaced, newToken("after", 0, 2*time.Hour)); err != nil {
				t.Error(err)
			}
			if err := f.raw.Del(context.Background(), tokenKey(ended)).Err(); err != nil {
				t.Error(err)
			}
		})
	})
	wantResealed(t, rotated, false, 2, 0) // The tenant, and the token once it was read again.
	if got, _, err := rotated.Load(t.Context(), replaced); err != nil || text(got) != "after" || !near(f.pttl(t, tokenKey(replaced)), 2*time.Hour) {
		t.Errorf("there is %s, error %v", text(got), err)
	}
	if got, _, err := rotated.Load(t.Context(), ended); err != nil || got != nil {
		t.Errorf("what had ended is %s, error %v", text(got), err)
	}
}

func TestAResealOfTokensWhoseAnswerWasLostSucceeds(t *testing.T) {
	t.Parallel()
	f := newFixture(t, redistest.Start(t).URL())
	file := newKeysetFile(t)
	f.sealedWith(t, file.load()).create(t, newTenant("acme"))
	f.save(t, keyOf("acme"), newToken("sealed", 0, time.Hour))
	l := newLine(t, f.url)
	rotated := f.openAt(t, l.url(), file.rotated(0))
	l.loseAnswer("'KEEPTTL'")
	wantResealed(t, rotated, false, 2, 0)
	if l.answersLost() != 1 {
		t.Error("no answer was lost")
	}
}

// A Redis that is emptied has nothing that is sealed with a key that would go; what
// is restored later may be.
func TestARegistryThatIsLostMeanwhileIsNotDone(t *testing.T) {
	t.Parallel()
	f := newFixture(t, redistest.Start(t).URL())
	f.create(t, newTenant("acme"))
	l := newLine(t, f.url)
	s := f.openAt(t, l.url(), f.keyset)
	l.onAnswer("HMGET", func() {
		if err := f.raw.FlushAll(context.Background()).Err(); err != nil {
			t.Error(err)
		}
	})
	if r, err := s.Reseal(t.Context(), redisstore.ResealOptions{DryRun: true}); !errors.Is(err, redisstore.ErrRegistryChanged) {
		t.Errorf("Reseal = %+v, %v", r, err)
	}
	if n := f.raw.DBSize(t.Context()).Val(); n != 0 {
		t.Errorf("%d keys were written", n)
	}
}

func TestAResealIsOnDiskWhenItSaysSo(t *testing.T) {
	t.Parallel()
	f := newFixture(t, redistest.StartWaiting(t, "--appendonly", "yes").URL())
	file := newKeysetFile(t)
	f.sealedWith(t, file.load())
	for i := range 250 {
		f.save(t, keyOf(fmt.Sprint(i)), newToken(fmt.Sprint(i), 0, time.Hour))
	}
	f.create(t, newTenant("acme"))
	l := newLine(t, f.url)
	rotated := f.openAt(t, l.url(), file.rotated(0))
	wantResealed(t, rotated, true, 251, 0)
	waited := calledTimes(t, f.raw, "waitaof")
	l.loseAnswer("evalsha")
	wantResealed(t, rotated, false, 251, 0)
	l.loseAnswer("waitAOF")
	wantResealed(t, rotated, false, 0, 251)
	if lost := l.answersLost(); lost != 2 {
		t.Errorf("%d answers were lost", lost)
	}
	if now := calledTimes(t, f.raw, "waitaof"); waited != "2" || now != "5" {
		t.Errorf("waited %s times before and %s after, want once for each reseal, and again for a lost answer", waited, now)
	}
	// From now on nothing is synced. Who says that all is well, though there is nothing to
	// do, has not waited for what the one before has done.
	if err := f.raw.ConfigSet(t.Context(), "appendfsync", "no").Err(); err != nil {
		t.Fatal(err)
	}
	if _, err := rotated.Reseal(t.Context(), redisstore.ResealOptions{}); err == nil || !strings.Contains(err.Error(), "not known to be on disk") {
		t.Errorf("Reseal = %v", err)
	}
}

// The prefix may have signs in it that mean something in a pattern, and another
// fleet's may begin with it.
func TestAResealKeepsToItsPrefix(t *testing.T) {
	onBoth(t, func(t *testing.T, f *fixture) {
		file := newKeysetFile(t)
		old, rotated := file.load(), file.rotated(0)
		odd := []string{`fleet:`, `fleet:*:`, `f[l]eet?\:`, `fleet:token:`}
		for _, prefix := range odd {
			s := f.openUnder(t, f.url, prefix, old)
			if _, err := s.CreateTenant(t.Context(), newTenant("acme")); err != nil {
				t.Fatal(err)
			}
			if _, err := s.Save(t.Context(), keyOf("acme"), newToken("sealed", 0, time.Hour)); err != nil {
				t.Fatal(err)
			}
		}
		for _, prefix := range odd {
			s := f.openUnder(t, f.url, prefix, rotated)
			wantResealed(t, s, false, 2, 0)
			wantResealed(t, s, false, 0, 2)
		}
	})
}

// A server that does not let its keys be listed has its tenants done at least,
// and it is said what is missing.
func TestAResealWithoutTheRightToScanSaysSo(t *testing.T) {
	t.Parallel()
	server := redistest.Start(t, "--user", "someone", "on", ">word", "~*", "+@all", "-scan")
	f, file := newFixture(t, server.URL()), newKeysetFile(t)
	f.sealedWith(t, file.load()).create(t, newTenant("acme"))
	rotated := f.openAt(t, withUser(server.URL(), "someone:word"), file.rotated(0))
	if r, err := rotated.Reseal(t.Context(), redisstore.ResealOptions{}); err == nil || !strings.Contains(err.Error(), "SCAN: NOPERM") || r.Anew != 1 {
		t.Errorf("Reseal = %+v, %v", r, err)
	}
}

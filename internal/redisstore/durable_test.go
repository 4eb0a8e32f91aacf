package redisstore_test

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/redis/go-redis/v9"

	"smokeball.internal/tokenbroker/internal/redisstore/redistest"
	"smokeball.internal/tokenbroker/internal/tenant"
)

// calledTimes returns how often a server was sent a command.
func calledTimes(t *testing.T, c *redis.Client, command string) string {
	t.Helper()
	stats := c.Info(t.Context(), "commandstats").Val()
	_, after, found := strings.Cut(stats, "cmdstat_"+command+":calls=")
	if !found {
		return "0"
	}
	times, _, _ := strings.Cut(after, ",")
	return times
}

func TestAcknowledgedRegistrationsSurviveAKill(t *testing.T) {
	t.Parallel()
	for _, sync := range []string{"everysec", "always"} {
		t.Run(sync, func(t *testing.T) {
			t.Parallel()
			server := redistest.StartWaiting(t, "--appendonly", "yes", "--appendfsync", sync)
			f := newFixture(t, server.URL())
			for round := range 10 {
				id := fmt.Sprintf("round-%d", round)
				created := f.create(t, newTenant(id))
				server.Kill()
				server.Restart()
				updated, err := f.UpdateTenant(t.Context(), *created)
				if err != nil {
					t.Fatalf("%s was created, and is not to be updated: %v", id, err)
				}
				server.Kill()
				server.Restart()
				if got, err := f.Tenant(t.Context(), id); err != nil || got.Etag != updated.Etag {
					t.Fatalf("%s was updated, and is %+v, %v", id, got, err)
				}
				if err := f.DeleteTenant(t.Context(), id, updated.Etag); err != nil {
					t.Fatal(err)
				}
				server.Kill()
				server.Restart()
				if _, err := f.Tenant(t.Context(), id); !isGone(err) {
					t.Fatalf("%s was deleted, and is there: %v", id, err)
				}
			}
		})
	}
}

func isGone(err error) bool { return errors.Is(err, tenant.ErrNotFound) }

// That a server can be killed tells little: what it has handed to the system is
// written nonetheless. So it is counted that the disk is waited for.
func TestEveryChangeWaitsForTheDisk(t *testing.T) {
	t.Parallel()
	f := newFixture(t, redistest.StartWaiting(t, "--appendonly", "yes").URL())
	created := f.create(t, newTenant("acme"))
	updated, err := f.UpdateTenant(t.Context(), *created)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := f.UpdateTenant(t.Context(), *created); !errors.Is(err, tenant.ErrConflict) {
		t.Errorf("a change that is refused: %v", err)
	}
	if err := f.DeleteTenant(t.Context(), "acme", updated.Etag); err != nil {
		t.Fatal(err)
	}
	if n := calledTimes(t, f.raw, "waitaof"); n != "3" {
		t.Errorf("waited %s times, want once for each of three changes", n)
	}
}

func TestAChangeThatDoesNotGetToDiskIsNotAcknowledged(t *testing.T) {
	t.Parallel()
	// A server that leaves it to the system when to write cannot say that it did.
	f := newFixture(t, redistest.StartWaiting(t, "--appendonly", "yes", "--appendfsync", "no").URL())
	begin := time.Now()
	_, err := f.CreateTenant(t.Context(), newTenant("acme"))
	if !isOutage(err) || !strings.Contains(err.Error(), "not known to be on disk") {
		t.Errorf("created: %v", err)
	}
	if took := time.Since(begin); took > 5*time.Second {
		t.Errorf("took %v", took)
	}
	if _, err := f.Tenant(t.Context(), "acme"); err != nil {
		t.Errorf("the change was made: %v", err)
	}
	ctx, cancel := context.WithTimeout(t.Context(), 300*time.Millisecond)
	defer cancel()
	_, err = f.CreateTenant(ctx, newTenant("globex"))
	if !isOutage(err) || !strings.Contains(err.Error(), "not known to be on disk") {
		t.Errorf("by a caller in a hurry: %v", err)
	}
}

// The command is sent again, and must wait again, though there is nothing new to
// write.
func TestAChangeWhoseWaitWasLostIsWaitedForAgain(t *testing.T) {
	t.Parallel()
	f := newFixture(t, redistest.StartWaiting(t, "--appendonly", "yes").URL())
	line := newLine(t, f.url)
	s := f.openAt(t, line.url(), f.keyset)
	created := f.create(t, newTenant("before"))
	for name, change := range map[string]func() error{
		"create": func() error { _, err := s.CreateTenant(t.Context(), newTenant("acme")); return err },
		"delete": func() error { return s.DeleteTenant(t.Context(), "before", created.Etag) },
	} {
		before := line.answersLost()
		line.loseAnswer("waitAOF")
		if err := change(); err != nil {
			t.Errorf("%s: %v", name, err)
		}
		if line.answersLost() != before+1 {
			t.Errorf("%s: no answer was lost", name)
		}
	}
	// From now on nothing is synced: who waits for a write of its own waits in vain.
	if err := f.raw.ConfigSet(t.Context(), "appendfsync", "no").Err(); err != nil {
		t.Fatal(err)
	}
	line.loseAnswer("evalsha")
	if _, err := s.CreateTenant(t.Context(), newTenant("globex")); err == nil {
		t.Error("acknowledged though nothing was synced: the second try has waited for nothing")
	}
}

func TestServersThatCannotSayAreNotWaitedFor(t *testing.T) {
	t.Parallel()
	for name, url := range map[string]string{
		"no AOF":           redistest.StartWaiting(t).URL(),
		"maybe no WAITAOF": redistest.Start(t, "--appendonly", "yes").URL(),
		"not allowed": withUser(redistest.StartWaiting(t, "--appendonly", "yes", "--appendfsync", "no",
			"--user", "someone", "on", ">word", "~*", "+@all", "-waitaof").URL(), "someone:word"),
	} {
		f := newFixtureAt(t, url)
		begin := time.Now()
		if _, err := f.CreateTenant(t.Context(), newTenant("acme")); err != nil {
			t.Errorf("%s: %v", name, err)
		}
		if took := time.Since(begin); took > 2500*time.Millisecond {
			t.Errorf("%s: took %v", name, took)
		}
	}
}

// withUser returns a URL with a user in it.
func withUser(url, user string) string { return strings.Replace(url, "://", "://"+user+"@", 1) }

// Many registrations at a time, each of which waits, leave connections for those
// who need tokens.
func TestChangesThatWaitForTheDiskDoNotHoldUpTokens(t *testing.T) {
	t.Parallel()
	f := newFixture(t, redistest.StartWaiting(t, "--appendonly", "yes", "--appendfsync", "no").URL())
	ctx, cancel := context.WithCancel(t.Context())
	var changes sync.WaitGroup
	for n := range 200 {
		changes.Go(func() { _, _ = f.CreateTenant(ctx, newTenant(fmt.Sprint("t", n))) })
	}
	eventually(t, "some wait", func() bool { return calledTimes(t, f.raw, "waitaof") != "0" || blocked(t, f.raw) })
	for range 50 {
		begin := time.Now()
		if held, _ := f.load(t, keyOf("acme")); held != nil {
			t.Errorf("loaded %s", text(held))
		}
		if took := time.Since(begin); took > 500*time.Millisecond {
			t.Errorf("a token took %v", took)
		}
	}
	cancel()
	changes.Wait()
}

// blocked says whether a server has somebody wait.
func blocked(t *testing.T, c *redis.Client) bool {
	t.Helper()
	return !strings.Contains(c.Info(t.Context(), "clients").Val(), "blocked_clients:0\r\n")
}

// A server that is demoted while a change waits for its disk has not got it there,
// and is not the one that has to.
func TestAChangeThatWaitsWhenItsServerIsDemotedIsNotAcknowledged(t *testing.T) {
	t.Parallel()
	f := newFixture(t, redistest.StartWaiting(t, "--appendonly", "yes", "--appendfsync", "no").URL())
	done := make(chan error, 1)
	go func() {
		_, err := f.CreateTenant(t.Context(), newTenant("acme"))
		done <- err
	}()
	eventually(t, "the change waits", func() bool {
		return strings.Contains(f.raw.Info(t.Context(), "clients").Val(), "blocked_clients:1\r\n")
	})
	if err := f.raw.ReplicaOf(t.Context(), "127.0.0.1", "1").Err(); err != nil {
		t.Fatal(err)
	}
	if err := <-done; !isOutage(err) || !strings.Contains(err.Error(), "UNBLOCKED") {
		t.Errorf("CreateTenant = %v", err)
	}
}

package redisstore_test

import (
	"testing"
	"time"

	"smokeball.internal/tokenbroker/internal/redisstore"
)

// When the connection breaks before the answer is there, the client sends the
// command again, though Redis has done it: it must not find itself in its way.
func TestCommandWhoseAnswerWasLostSucceeds(t *testing.T) {
	onBoth(t, func(t *testing.T, f *fixture) {
		ctx, k := t.Context(), keyOf("acme")
		line := newLine(t, f.url)
		s := f.openAt(t, line.url(), f.keyset)
		// From now on Redis knows the scripts.
		etag := f.create(t, newTenant("before")).Etag
		f.save(t, keyOf("before"), newToken("before", 0, time.Hour))
		if _, err := f.Lease(ctx, keyOf("before"), "a", time.Minute); err != nil {
			t.Fatal(err)
		}
		created := newTenant("acme")

		for _, step := range []struct {
			name, command string
			do            func(*redisstore.Store) error
		}{
			{"create", "evalsha", func(s *redisstore.Store) error {
				stored, err := s.CreateTenant(ctx, created)
				if err == nil {
					created = *stored
				}
				return err
			}},
			{"update", "evalsha", func(s *redisstore.Store) error {
				stored, err := s.UpdateTenant(ctx, created)
				if err == nil {
					created = *stored
				}
				return err
			}},
			{"delete", "evalsha", func(s *redisstore.Store) error { return s.DeleteTenant(ctx, "before", etag) }},
			{"save", "evalsha", func(s *redisstore.Store) error {
				saved := newToken("saved twice", 0, time.Hour)
				kept, err := s.Save(ctx, k, saved)
				if err == nil && (text(kept) != text(saved) || !near(time.Until(kept.Expires), time.Hour)) {
					t.Errorf("kept %s until %v", text(kept), kept.Expires)
				}
				return err
			}},
			{"lease", "evalsha", func(s *redisstore.Store) error {
				acquired, err := s.Lease(ctx, k, "a", time.Minute)
				if err == nil && !acquired {
					t.Error("lease: it stands in its own way")
				}
				return err
			}},
		} {
			if err := s.Ping(ctx); err != nil { // So that the connection's own commands are over.
				t.Fatal(err)
			}
			before := line.answersLost()
			line.loseAnswer(step.command)
			if err := step.do(s); err != nil {
				t.Errorf("%s: %v", step.name, err)
			}
			if line.answersLost() != before+1 {
				t.Errorf("%s: no answer was lost", step.name)
			}
		}
		if got, err := f.Tenant(ctx, "acme"); err != nil || got.Etag != created.Etag {
			t.Errorf("stored %+v, error %v", got, err)
		}
		if n := f.raw.XLen(ctx, changesKey).Val(); n != 9 {
			t.Errorf("%d changes announced, want one for each of four of tenants, one for each of three that were repeated, and two of tokens", n)
		}
	})
}

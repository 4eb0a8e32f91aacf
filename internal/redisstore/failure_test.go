package redisstore_test

import (
	"errors"
	"slices"
	"testing"
	"time"

	"smokeball.internal/tokenbroker/internal/token"
)

func newFailure(class token.Class, hold time.Duration) *token.Failure {
	return &token.Failure{
		Class: class, Message: "the issuer said so", Streak: 3, RetryAfter: time.Second,
		RetryAt: time.Now().Add(hold), Cause: errors.New("a cause is this process's own"),
	}
}

func TestFailureIsKeptUntilTheNextTry(t *testing.T) {
	onBoth(t, func(t *testing.T, f *fixture) {
		for _, class := range []token.Class{
			token.CredentialsRejected, token.GrantRejected, token.ScopeRejected, token.Throttled,
			token.Blocked, token.Unavailable, token.Malformed,
		} {
			k, saved := keyOf(string(class)), newFailure(class, 10*time.Minute)
			if err := f.SaveFailure(t.Context(), k, saved); err != nil {
				t.Fatal(err)
			}
			held, got := f.load(t, k)
			if held != nil || got == nil {
				t.Fatalf("loaded %s, failure %v", text(held), got)
			}
			if got.Class != class || got.Message != saved.Message || got.Streak != saved.Streak || got.Cause != nil {
				t.Errorf("loaded %+v, saved %+v", got, saved)
			}
			if !near(got.RetryAt.Sub(saved.RetryAt), 0) {
				t.Errorf("RetryAt is off by %v", got.RetryAt.Sub(saved.RetryAt))
			}
			if left := f.pttl(t, failureKey(k)); !near(left, 10*time.Minute) {
				t.Errorf("kept for %v", left)
			}
		}
	})
}

func TestFailureIsForgotten(t *testing.T) {
	onBoth(t, func(t *testing.T, f *fixture) {
		k := keyOf("acme")
		if err := f.SaveFailure(t.Context(), k, newFailure(token.Unavailable, 300*time.Millisecond)); err != nil {
			t.Fatal(err)
		}
		eventually(t, "the failure is gone", func() bool {
			_, failure := f.load(t, k)
			return failure == nil
		})
		// One that was over when it came is not kept at all, least of all for ever.
		for _, hold := range []time.Duration{0, -time.Minute, time.Microsecond} {
			if err := f.SaveFailure(t.Context(), k, newFailure(token.Unavailable, hold)); err != nil {
				t.Fatal(err)
			}
			if keys := f.keys(t); slices.Contains(keys, failureKey(k)) {
				t.Errorf("a failure that holds for %v is kept", hold)
			}
		}
	})
}

func TestFailureStandsBesideTheToken(t *testing.T) {
	onBoth(t, func(t *testing.T, f *fixture) {
		k := keyOf("acme")
		f.save(t, k, newToken("still good", 50*time.Minute, time.Hour))
		for streak := 1; streak <= 2; streak++ {
			failure := newFailure(token.Unavailable, time.Minute)
			failure.Streak = streak
			if err := f.SaveFailure(t.Context(), k, failure); err != nil {
				t.Fatal(err)
			}
			held, got := f.load(t, k)
			if text(held) != "still good" || got == nil || got.Streak != streak {
				t.Errorf("loaded %s, failure %+v", text(held), got)
			}
		}
	})
}

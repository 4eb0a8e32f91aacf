package redisstore_test

import (
	"slices"
	"strings"
	"testing"
	"time"

	"smokeball.internal/tokenbroker/internal/token"
)

func TestTokenComesBackAsItWasSaved(t *testing.T) {
	onBoth(t, func(t *testing.T, f *fixture) {
		k, saved := keyOf("acme"), newToken("the token", 10*time.Minute, time.Hour)
		saved.Replaced = "another"
		if kept := f.save(t, k, saved); kept != saved {
			t.Errorf("Save kept %s", text(kept))
		}
		got, failure := f.load(t, k)
		if got == nil || failure != nil {
			t.Fatalf("loaded %s, failure %v", text(got), failure)
		}
		if got.ID != saved.ID || text(got) != text(saved) || !slices.Equal(got.Scopes, saved.Scopes) || got.Replaced != saved.Replaced {
			t.Errorf("loaded %s %s %v, saved %s %s %v", got.ID, text(got), got.Scopes, saved.ID, text(saved), saved.Scopes)
		}
		for name, times := range map[string][2]time.Time{
			"Issued":    {got.Issued, saved.Issued},
			"Expires":   {got.Expires, saved.Expires},
			"RefreshAt": {got.RefreshAt, saved.RefreshAt},
		} {
			if d := times[0].Sub(times[1]); !near(d, 0) {
				t.Errorf("%s is off by %v", name, d)
			}
		}
		// Too late an end has callers use a dead token; too early costs nothing.
		if late := got.Expires.Sub(saved.Expires); late > 100*time.Millisecond {
			t.Errorf("loaded token ends %v after the saved one", late)
		}
		if other, _ := f.load(t, keyOf("globex")); other != nil {
			t.Errorf("another key has %s", text(other))
		}
	})
}

func TestTokenIsKeptForTheRestOfItsLife(t *testing.T) {
	onBoth(t, func(t *testing.T, f *fixture) {
		for _, test := range []struct {
			name            string
			age, life, want time.Duration
		}{
			{"an hour", 0, 3600 * time.Second, 3600 * time.Second},
			{"five minutes", 0, 300 * time.Second, 300 * time.Second},
			{"five seconds", 0, 5 * time.Second, 5 * time.Second},
			{"saved late", 50 * time.Minute, time.Hour, 10 * time.Minute},
		} {
			k := keyOf(test.name)
			f.save(t, k, newToken(test.name, test.age, test.life))
			if left := f.pttl(t, tokenKey(k)); left > test.want || !near(left, test.want) {
				t.Errorf("%s: kept for %v, want %v", test.name, left, test.want)
			}
			if got, _ := f.load(t, k); got == nil || !near(got.Lifetime(), test.life) {
				t.Errorf("%s: loaded %s", test.name, text(got))
			}
		}
	})
}

func TestExpiredTokenIsGone(t *testing.T) {
	onBoth(t, func(t *testing.T, f *fixture) {
		k := keyOf("acme")
		f.save(t, k, newToken("short", 0, 300*time.Millisecond))
		eventually(t, "the token is gone", func() bool {
			got, _ := f.load(t, k)
			return got == nil
		})
		eventually(t, "its key is gone", func() bool { return !slices.Contains(f.keys(t), tokenKey(k)) })
	})
}

func TestTokenWithoutFutureIsNotStored(t *testing.T) {
	onBoth(t, func(t *testing.T, f *fixture) {
		for _, dead := range []*token.Token{
			newToken("expired", time.Hour, 59*time.Minute),
			newToken("ends now", time.Minute, time.Minute),
			newToken("no life", 0, 0),
			newToken("negative life", 0, -time.Minute),
		} {
			f.save(t, keyOf("acme"), dead)
			if keys := f.keys(t); len(keys) != 0 {
				t.Errorf("%s: stored %q", text(dead), keys)
			}
		}
	})
}

// What does not end by itself fills Redis, or is believed for ever.
func TestOnlyTenantsAreKeptForEver(t *testing.T) {
	onBoth(t, func(t *testing.T, f *fixture) {
		k := keyOf("acme")
		warm := newTenant("acme")
		warm.KeepWarm = true
		f.create(t, warm)
		admit(t, f.Store, k.Endpoint, turnRequest)
		f.save(t, k, newToken("a", time.Minute, time.Hour))
		f.save(t, k, newToken("b", 0, time.Minute))
		f.save(t, k, newToken("a", time.Minute, time.Hour))
		if err := f.SaveFailure(t.Context(), k, newFailure(token.Throttled, time.Minute)); err != nil {
			t.Fatal(err)
		}
		if acquired, err := f.Lease(t.Context(), k, "a", time.Minute); !acquired || err != nil {
			t.Fatalf("acquired %v, error %v", acquired, err)
		}
		keys := f.keys(t)
		if len(keys) != 12 {
			t.Errorf("keys %q, want token, failure, exchanges, lease, budget and its buyers, and six of the tenants", keys)
		}
		for _, key := range keys {
			if !strings.HasPrefix(key, prefix) {
				t.Errorf("%q is not under the prefix", key)
			}
			forEver := strings.HasPrefix(key, prefix+"{tenants}:")
			if left := f.pttl(t, key); (left < 0) != forEver {
				t.Errorf("%q has %v left", key, left)
			}
		}
	})
}

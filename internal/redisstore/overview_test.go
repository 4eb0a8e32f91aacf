package redisstore_test

import (
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/redis/go-redis/v9"

	"smokeball.internal/tokenbroker/internal/redisstore/redistest"
	"smokeball.internal/tokenbroker/internal/token"
)

func exchangesKey(k token.Key) string { return prefix + "exchanges:{" + k.Digest() + "}" }

// history returns what is counted for a key.
func (f *fixture) history(t *testing.T, k token.Key) token.History {
	t.Helper()
	all, err := f.LoadAll(t.Context(), []token.Key{k})
	if err != nil || len(all) != 1 {
		t.Fatalf("%d keys, error %v", len(all), err)
	}
	return all[0].History
}

// hour returns Redis's, now. A test that needs one does nothing at the end of it.
func (f *fixture) hour(t *testing.T) int64 {
	t.Helper()
	for {
		now, err := f.raw.Time(t.Context()).Result()
		if err != nil {
			t.Fatal(err)
		}
		if left := now.Truncate(time.Hour).Add(time.Hour).Sub(now); left > 10*time.Second {
			return now.Unix() / 3600
		}
		time.Sleep(time.Second)
	}
}

func TestExchangesAreCountedForADay(t *testing.T) {
	onBoth(t, func(t *testing.T, f *fixture) {
		k, now := keyOf("acme"), f.hour(t)
		// What was counted in the two days before, up to a day between one and the next.
		var fields []any
		for ago := range int64(50) {
			fields = append(fields, fmt.Sprintf("%d.ok", now-ago), ago+1, fmt.Sprintf("%d.failed", now-ago), 100+ago)
		}
		odd := []any{"", "1", "x.ok", "1", fmt.Sprint(now), "1", fmt.Sprintf("%d.odd", now), "1", fmt.Sprintf("%d.ok", now+1), "1", fmt.Sprintf("%d.ok.ok", now), "7"}
		if err := f.raw.HSet(t.Context(), exchangesKey(k), append(fields, odd...)...).Err(); err != nil {
			t.Fatal(err)
		}
		if err := f.raw.HDel(t.Context(), exchangesKey(k), fmt.Sprintf("%d.ok", now)).Err(); err != nil {
			t.Fatal(err)
		}
		f.save(t, k, newToken("a", 0, time.Hour))
		h := f.history(t, k)
		for i, hour := range h {
			ago := token.HistoryHours - 1 - i
			want := token.Exchanges{OK: ago + 1, Failed: 100 + ago}
			if hour != want {
				t.Errorf("%d hours ago: %+v, want %+v", ago, hour, want)
			}
		}
		kept, err := f.raw.HKeys(t.Context(), exchangesKey(k)).Result()
		if most := 2*token.HistoryHours + len(odd)/2; err != nil || len(kept) > most {
			t.Errorf("%d fields are kept, want %d at most; error %v", len(kept), most, err)
		}
		if left := f.pttl(t, exchangesKey(k)); left > 25*time.Hour || left < 24*time.Hour {
			t.Errorf("it ends in %v", left)
		}
	})
}

// Whoever can write to Redis can have no sum overflow, nor an answer be long.
func TestCountsThatNobodyCanHaveComeTo(t *testing.T) {
	onBoth(t, func(t *testing.T, f *fixture) {
		k, now := keyOf("acme"), f.hour(t)
		fields := []any{fmt.Sprintf("%d.ok", now), "9223372036854775807", fmt.Sprintf("%d.failed", now), "-5", fmt.Sprintf("%d.ok", now-1), "9223372036854775807", fmt.Sprintf("%d.failed", now-1), "7"}
		for n := range 1000 {
			fields = append(fields, fmt.Sprint("planted-", n), "1")
		}
		if err := f.raw.HSet(t.Context(), exchangesKey(k), fields...).Err(); err != nil {
			t.Fatal(err)
		}
		if h := f.history(t, k); h.Sum() != (token.Exchanges{Failed: 7}) {
			t.Errorf("counted: %+v", h.Sum())
		}
	})
}

// What is counted is for people. Nothing else may fail for it.
func TestASaveDoesNotFailForWhatCannotBeCounted(t *testing.T) {
	works := func(t *testing.T, f *fixture) {
		t.Helper()
		k := keyOf("acme")
		if err := f.SaveFailure(t.Context(), k, newFailure(token.Throttled, time.Minute)); err != nil {
			t.Error(err)
		}
		if _, failure := f.load(t, k); failure == nil {
			t.Error("the failure is not kept")
		}
		f.save(t, k, newToken("a", 0, time.Hour))
		all, err := f.LoadAll(t.Context(), []token.Key{k})
		if err != nil || text(all[0].Token) != "a" || all[0].Failure != nil || all[0].History.Sum() != (token.Exchanges{}) {
			t.Errorf("%+v, error %v", all, err)
		}
	}
	t.Run("something else is there", func(t *testing.T) {
		onBoth(t, func(t *testing.T, f *fixture) {
			if err := f.raw.Set(t.Context(), exchangesKey(keyOf("acme")), "odd", 0).Err(); err != nil {
				t.Fatal(err)
			}
			works(t, f)
		})
	})
	// As a user has it that was made for an earlier version.
	t.Run("it is not allowed", func(t *testing.T) {
		t.Parallel()
		server := redistest.Start(t)
		if err := server.Client().Do(t.Context(), "ACL", "SETUSER", "tokenbroker", "on", ">word", "~*", "+@all", "-hincrby", "-hgetall", "-zrevrange").Err(); err != nil {
			t.Fatal(err)
		}
		f := newFixture(t, withUser(server.URL(), "tokenbroker:word"))
		works(t, f)
		if log := f.log.String(); strings.Contains(log, "level=ERROR") {
			t.Errorf("logged: %s", log)
		}
	})
}

// A server that was restarted does not know the script that was sent to it before.
func TestLoadAllSendsItsScriptToWhoDoesNotKnowIt(t *testing.T) {
	t.Parallel()
	f := newFixture(t, redistest.Start(t).URL())
	k := keyOf("acme")
	f.save(t, k, newToken("a", 0, time.Hour))
	for range 2 {
		if all, err := f.LoadAll(t.Context(), []token.Key{k, keyOf("globex")}); err != nil || len(all) != 2 || text(all[0].Token) != "a" || all[1].Token != nil {
			t.Errorf("%+v, error %v", all, err)
		}
		if err := f.raw.ScriptFlush(t.Context()).Err(); err != nil {
			t.Fatal(err)
		}
	}
}

// Many ids are searched in several steps.
func TestTenantsAreFoundAmongMany(t *testing.T) {
	t.Parallel()
	f := newFixture(t, redistest.Start(t).URL())
	const many = 12_000
	members := make([]redis.Z, many)
	for n := range members {
		members[n].Member = fmt.Sprintf("firm-%05d", n)
	}
	if err := f.raw.ZAdd(t.Context(), indexKey, members...).Err(); err != nil {
		t.Fatal(err)
	}
	for _, id := range []string{"firm-00007", "firm-05007", "firm-11999"} {
		f.create(t, newTenant(id))
	}
	if n, err := f.CountTenants(t.Context()); err != nil || n != many {
		t.Errorf("%d tenants, error %v", n, err)
	}
	// Of those without a record, nothing is shown.
	for part, want := range map[string]string{"05007": "[firm-05007]", "11999": "[firm-11999]", "firm-1199": "[firm-11999]", "nowhere": "[]"} {
		found, next, err := f.FindTenants(t.Context(), part, "", 50)
		if got := fmt.Sprint(ids(found)); err != nil || next != "" || got != want {
			t.Errorf("%q: %v, next %q, error %v", part, got, next, err)
		}
	}
}

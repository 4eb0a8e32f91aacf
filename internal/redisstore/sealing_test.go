package redisstore_test

import (
	"context"
	"errors"
	"strings"
	"testing"
	"time"

	"smokeball.internal/tokenbroker/internal/tenant"
	"smokeball.internal/tokenbroker/internal/token"
)

// spoil changes what Redis holds, as somebody could who has got into it.
type spoil struct {
	name string
	do   func(ctx context.Context, f *fixture, key, record string) error
}

func put(change func(record string) string) func(context.Context, *fixture, string, string) error {
	return func(ctx context.Context, f *fixture, key, record string) error {
		return f.raw.Set(ctx, key, change(record), time.Hour).Err()
	}
}

func TestSpoiltTokenIsAMiss(t *testing.T) {
	onBoth(t, func(t *testing.T, f *fixture) {
		k := keyOf("acme")
		f.save(t, keyOf("globex"), newToken("globex's", 0, 2*time.Hour))
		others, err := f.raw.Get(t.Context(), tokenKey(keyOf("globex"))).Result()
		if err != nil {
			t.Fatal(err)
		}
		part := func(record string, i int) string { return strings.SplitN(record, ".", 3)[i] }
		for _, s := range []spoil{
			{"another key's record", put(func(string) string { return others })},
			{"another key's header", put(func(r string) string {
				return part(others, 0) + "." + part(others, 1) + "." + part(r, 2)
			})},
			{"another id", put(func(r string) string {
				return strings.Repeat("0", 32) + "." + part(r, 1) + "." + part(r, 2)
			})},
			{"a longer life", put(func(r string) string { return part(r, 0) + ".86400000." + part(r, 2) })},
			{"a shorter life", put(func(r string) string { return part(r, 0) + ".1." + part(r, 2) })},
			{"no life", put(func(r string) string { return part(r, 0) + "." + part(r, 2) })},
			{"a header only", put(func(r string) string { return part(r, 0) + "." + part(r, 1) + "." })},
			{"no header", put(func(r string) string { return part(r, 2) })},
			{"no dot", put(func(string) string { return "junk" })},
			{"nothing", put(func(string) string { return "" })},
			{"an end", put(func(r string) string { return r + "x" })},
			{"no end", put(func(r string) string { return r[:len(r)-1] })},
			{"more time left than its life", func(ctx context.Context, f *fixture, key, _ string) error {
				return f.raw.PExpire(ctx, key, 3*time.Hour).Err()
			}},
			{"no TTL", func(ctx context.Context, f *fixture, key, _ string) error { return f.raw.Persist(ctx, key).Err() }},
		} {
			if err := f.raw.Del(t.Context(), tokenKey(k)).Err(); err != nil {
				t.Fatal(err)
			}
			f.save(t, k, newToken("acme's", 0, 2*time.Hour))
			record, err := f.raw.Get(t.Context(), tokenKey(k)).Result()
			if err != nil {
				t.Fatal(err)
			}
			if err := s.do(t.Context(), f, tokenKey(k), record); err != nil {
				t.Fatal(err)
			}
			if got, _ := f.load(t, k); got != nil {
				t.Errorf("with %s: loaded %s", s.name, text(got))
			}
			// It must not be in the way of a good one, either.
			f.save(t, k, newToken("the next", 0, 2*time.Hour))
			got, _ := f.load(t, k)
			if text(got) != "the next" {
				t.Errorf("with %s: after the next was saved, loaded %s", s.name, text(got))
			}
		}
		if log := f.log.String(); !strings.Contains(log, tokenKey(k)) || strings.Contains(log, "acme's") {
			t.Errorf("log: %s", log)
		}
	})
}

// Each bit counts: the header is compared with what is sealed, and the rest is.
func TestFlippedBitIsRefused(t *testing.T) {
	onBoth(t, func(t *testing.T, f *fixture) {
		ctx, k := t.Context(), keyOf("acme")
		f.save(t, k, newToken("a token", 0, time.Hour))
		tokenRecord, err := f.raw.Get(ctx, tokenKey(k)).Result()
		if err != nil {
			t.Fatal(err)
		}
		f.create(t, newTenant("acme"))
		tenantRecord, err := f.raw.HGet(ctx, recordsKey, "acme").Result()
		if err != nil {
			t.Fatal(err)
		}
		if err := f.SaveFailure(ctx, keyOf("globex"), newFailure(token.CredentialsRejected, time.Hour)); err != nil {
			t.Fatal(err)
		}
		failureRecord, err := f.raw.Get(ctx, failureKey(keyOf("globex"))).Result()
		if err != nil {
			t.Fatal(err)
		}
		for i := range len(failureRecord) {
			if err := f.raw.Set(ctx, failureKey(keyOf("globex")), flip(failureRecord, i), time.Hour).Err(); err != nil {
				t.Fatal(err)
			}
			if _, got := f.load(t, keyOf("globex")); got != nil {
				t.Errorf("failure with byte %d changed: loaded %v", i, got)
			}
		}
		for i := range len(tokenRecord) {
			if err := f.raw.Set(ctx, tokenKey(k), flip(tokenRecord, i), time.Hour).Err(); err != nil {
				t.Fatal(err)
			}
			if got, _ := f.load(t, k); got != nil {
				t.Errorf("token with byte %d changed: loaded %s", i, text(got))
			}
		}
		for i := range len(tenantRecord) {
			if err := f.raw.HSet(ctx, recordsKey, "acme", flip(tenantRecord, i)).Err(); err != nil {
				t.Fatal(err)
			}
			if got, err := f.Tenant(ctx, "acme"); !errors.Is(err, tenant.ErrUnreadable) {
				t.Errorf("tenant with byte %d changed: %v, error %v", i, got, err)
			}
		}
	})
}

func flip(s string, i int) string {
	b := []byte(s)
	b[i] ^= 1
	return string(b)
}

func TestMovedRecordIsRefused(t *testing.T) {
	onBoth(t, func(t *testing.T, f *fixture) {
		ctx, from, to := t.Context(), keyOf("acme"), keyOf("globex")
		if err := f.SaveFailure(ctx, from, newFailure(token.CredentialsRejected, time.Hour)); err != nil {
			t.Fatal(err)
		}
		failure, err := f.raw.Get(ctx, failureKey(from)).Result()
		if err != nil {
			t.Fatal(err)
		}
		if err := f.raw.Set(ctx, failureKey(to), failure, time.Hour).Err(); err != nil {
			t.Fatal(err)
		}
		if held, got := f.load(t, to); held != nil || got != nil {
			t.Errorf("failure of another key: loaded %s, failure %v", text(held), got)
		}

		f.create(t, newTenant("acme"))
		record, err := f.raw.HGet(ctx, recordsKey, "acme").Result()
		if err != nil {
			t.Fatal(err)
		}
		if err := f.raw.HSet(ctx, recordsKey, "globex", record).Err(); err != nil {
			t.Fatal(err)
		}
		if got, err := f.Tenant(ctx, "globex"); !errors.Is(err, tenant.ErrUnreadable) {
			t.Errorf("record of another tenant: %v, error %v", got, err)
		}
	})
}

func TestAnotherKeysetOpensNothing(t *testing.T) {
	onBoth(t, func(t *testing.T, f *fixture) {
		ctx, k := t.Context(), keyOf("acme")
		created := f.create(t, newTenant("acme"))
		f.save(t, k, newToken("sealed", time.Minute, time.Hour))
		stranger := f.open(t, newKeyset(t))
		if _, err := stranger.Tenant(ctx, "acme"); !errors.Is(err, tenant.ErrUnreadable) {
			t.Errorf("tenant: error %v", err)
		}
		if got, failure, err := stranger.Load(ctx, k); got != nil || failure != nil || err != nil {
			t.Errorf("loaded %s, failure %v, error %v", text(got), failure, err)
		}
		// It cannot say which token is kept, and so does not pretend.
		if kept, err := stranger.Save(ctx, k, newToken("older", 2*time.Minute, time.Hour)); err == nil {
			t.Errorf("saved an older token, kept %s", text(kept))
		}
		younger := newToken("younger", 0, time.Hour)
		if kept, err := stranger.Save(ctx, k, younger); kept != younger || err != nil {
			t.Errorf("saved a younger token, kept %s, error %v", text(kept), err)
		}
		// What cannot be opened can still be removed by who knows its version.
		if err := stranger.DeleteTenant(ctx, "acme", created.Etag); err != nil {
			t.Error(err)
		}
	})
}

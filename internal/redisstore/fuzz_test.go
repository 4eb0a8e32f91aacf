package redisstore_test

import (
	"context"
	"errors"
	"log/slog"
	"testing"
	"time"

	"github.com/redis/go-redis/v9"

	"smokeball.internal/tokenbroker/internal/redisstore"
	"smokeball.internal/tokenbroker/internal/seal"
	"smokeball.internal/tokenbroker/internal/tenant"
	"smokeball.internal/tokenbroker/internal/token"
)

// Whatever is written in the place of a record, or over a part of it, a token and
// a failure are missing and a tenant is unreadable, and a reseal finds all three.
func FuzzStoredRecords(f *testing.F) {
	embedded, err := redisstore.StartEmbedded()
	if err != nil {
		f.Fatal(err)
	}
	f.Cleanup(embedded.Close)
	keyset, err := seal.Ephemeral()
	if err != nil {
		f.Fatal(err)
	}
	s, err := redisstore.Open(redisstore.Config{URL: embedded.URL(), Prefix: prefix, Keyset: keyset, Logger: slog.New(slog.DiscardHandler)})
	if err != nil {
		f.Fatal(err)
	}
	f.Cleanup(func() { _ = s.Close() })
	options, err := redis.ParseURL(embedded.URL())
	if err != nil {
		f.Fatal(err)
	}
	raw := redis.NewClient(options)
	f.Cleanup(func() { _ = raw.Close() })

	ctx, held, failed := context.Background(), keyOf("held"), keyOf("failed")
	if _, err := s.CreateTenant(ctx, newTenant("acme")); err != nil {
		f.Fatal(err)
	}
	if _, err := s.Save(ctx, held, newToken("a token", 0, time.Hour)); err != nil {
		f.Fatal(err)
	}
	if err := s.SaveFailure(ctx, failed, newFailure(token.CredentialsRejected, time.Hour)); err != nil {
		f.Fatal(err)
	}
	records := []string{raw.HGet(ctx, recordsKey, "acme").Val(), raw.Get(ctx, tokenKey(held)).Val(), raw.Get(ctx, failureKey(failed)).Val()}

	f.Fuzz(func(t *testing.T, given []byte, at, length uint16) {
		for _, put := range []func(record string) string{
			func(string) string { return string(given) },
			func(record string) string {
				changed := []byte(record)
				copy(changed[int(at)%len(changed):], given)
				return string(changed[:min(int(length), len(changed))])
			},
		} {
			changed := []string{put(records[0]), put(records[1]), put(records[2])}
			for _, err := range []error{
				raw.HSet(ctx, recordsKey, "acme", changed[0]).Err(),
				raw.Set(ctx, tokenKey(held), changed[1], 50*time.Minute).Err(),
				raw.Set(ctx, failureKey(failed), changed[2], 50*time.Minute).Err(),
			} {
				if err != nil {
					t.Fatal(err)
				}
			}
			good := 0
			got, err := s.Tenant(ctx, "acme")
			if changed[0] == records[0] {
				good++
			} else if !errors.Is(err, tenant.ErrUnreadable) || got.ClientID != "" {
				t.Errorf("tenant %q is %+v, %v", changed[0], got, err)
			}
			tok, _, err := s.Load(ctx, held)
			if changed[1] == records[1] {
				good++
			} else if tok != nil || err != nil {
				t.Errorf("token %q is %s, %v", changed[1], text(tok), err)
			}
			_, failure, err := s.Load(ctx, failed)
			if changed[2] == records[2] {
				good++
			} else if failure != nil || err != nil {
				t.Errorf("failure %q is %v, %v", changed[2], failure, err)
			}
			if r, err := s.Reseal(ctx, redisstore.ResealOptions{}); err != nil || r.Current != good || r.Anew != 0 || len(r.Unreadable) != 3-good {
				t.Errorf("Reseal = %+v, %v, want %d current", r, err, good)
			}
		}
	})
}

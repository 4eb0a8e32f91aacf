package redisstore_test

import (
	"errors"
	"fmt"
	"testing"

	"github.com/redis/go-redis/v9"

	"smokeball.internal/tokenbroker/internal/redisstore"
)

func TestReadableTellsTheFleetsKeysetFromAnother(t *testing.T) {
	onBoth(t, func(t *testing.T, f *fixture) {
		want := func(s *redisstore.Store, tried, readable int) {
			t.Helper()
			gotTried, gotReadable, err := s.Readable(t.Context())
			if err != nil || gotTried != tried || gotReadable != readable {
				t.Errorf("tried %d, readable %d, %v; want %d and %d", gotTried, gotReadable, err, tried, readable)
			}
		}
		stranger := f.open(t, newKeyset(t))
		want(stranger, 0, 0)
		for n := range 12 {
			if _, err := f.CreateTenant(t.Context(), newTenant(fmt.Sprint("firm-", n))); err != nil {
				t.Fatal(err)
			}
		}
		want(f.Store, 10, 10)
		want(stranger, 12, 0)
		if err := f.raw.HSet(t.Context(), recordsKey, "firm-1", "no record").Err(); err != nil {
			t.Fatal(err)
		}
		if err := f.raw.HDel(t.Context(), recordsKey, "firm-10").Err(); err != nil { // Behind the index's back.
			t.Fatal(err)
		}
		want(f.Store, 9, 8)
	})
}

// Ten records that nobody can open, with ids that come before all others, keep no
// replica from starting.
func TestRecordsThatAreNoneDoNotHideTheFleets(t *testing.T) {
	onBoth(t, func(t *testing.T, f *fixture) {
		for n := range 25 {
			if _, err := f.CreateTenant(t.Context(), newTenant(fmt.Sprint("firm-", n))); err != nil {
				t.Fatal(err)
			}
		}
		for n := range 12 {
			id := fmt.Sprint("a-", n)
			if err := errors.Join(f.raw.HSet(t.Context(), recordsKey, id, "no record").Err(), f.raw.ZAdd(t.Context(), indexKey, redis.Z{Member: id}).Err()); err != nil {
				t.Fatal(err)
			}
		}
		tried, readable, err := f.Readable(t.Context())
		if err != nil || tried <= 12 || readable == 0 {
			t.Errorf("tried %d, readable %d, %v", tried, readable, err)
		}
		if tried, readable, err := f.open(t, newKeyset(t)).Readable(t.Context()); err != nil || tried <= 12 || readable != 0 {
			t.Errorf("with another keyset: tried %d, readable %d, %v", tried, readable, err)
		}
	})
}

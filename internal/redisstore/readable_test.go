package redisstore_test

import (
	"fmt"
	"testing"

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
		want(stranger, 10, 0)
		if err := f.raw.HSet(t.Context(), recordsKey, "firm-1", "no record").Err(); err != nil {
			t.Fatal(err)
		}
		if err := f.raw.HDel(t.Context(), recordsKey, "firm-10").Err(); err != nil { // Behind the index's back.
			t.Fatal(err)
		}
		want(f.Store, 9, 8)
	})
}

package redisstore_test

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"reflect"
	"slices"
	"sync"
	"testing"
	"time"

	"smokeball.internal/tokenbroker/internal/tenant"
)

func TestTenantComesBackAsItWasRegistered(t *testing.T) {
	onBoth(t, func(t *testing.T, f *fixture) {
		for _, registered := range []tenant.Tenant{newTenant("small"), fullTenant("full")} {
			created := f.create(t, registered)
			got, err := f.Tenant(t.Context(), registered.ID)
			if err != nil {
				t.Fatal(err)
			}
			wantSame(t, got, created)
			if got.Secret.ID == "" || (got.Fallback.ID == "") != registered.Fallback.Value.IsZero() {
				t.Errorf("%s: names of the secrets %q and %q", got.ID, got.Secret.ID, got.Fallback.ID)
			}
			if !near(time.Since(got.Created), 0) || !near(time.Since(got.Updated), 0) || got.Etag == "" {
				t.Errorf("%s: created %v, updated %v, etag %q", got.ID, got.Created, got.Updated, got.Etag)
			}
			// But for what the registry sets it is what was registered.
			registered.Etag, registered.Created, registered.Updated = got.Etag, got.Created, got.Updated
			registered.SecretUpdated = got.SecretUpdated
			registered.Secret.ID, registered.Fallback.ID = got.Secret.ID, got.Fallback.ID
			wantSame(t, got, &registered)
		}
	})
}

func wantSame(t *testing.T, got, want *tenant.Tenant) {
	t.Helper()
	g, w := *got, *want
	for _, times := range [][2]*time.Time{{&g.Created, &w.Created}, {&g.Updated, &w.Updated}, {&g.FallbackUntil, &w.FallbackUntil}, {&g.SecretUpdated, &w.SecretUpdated}} {
		if !times[0].Equal(*times[1]) {
			t.Errorf("%s: time %v, want %v", want.ID, times[0], times[1])
		}
		*times[0], *times[1] = time.Time{}, time.Time{}
	}
	if !reflect.DeepEqual(g, w) {
		t.Errorf("got %+v, want %+v", g, w)
	}
}

func TestTenantChangesOnlyAtTheVersionNamed(t *testing.T) {
	onBoth(t, func(t *testing.T, f *fixture) {
		ctx := t.Context()
		var etags []string
		at := func(etag string) tenant.Tenant {
			acme := newTenant("acme")
			acme.Etag = etag
			return acme
		}
		step := func(what string, err, want error) {
			t.Helper()
			if !errors.Is(err, want) || want == nil && err != nil {
				t.Errorf("%s: %v, want %v", what, err, want)
			}
		}
		change := func(what string, changed *tenant.Tenant, err error) string {
			t.Helper()
			if err != nil {
				t.Fatalf("%s: %v", what, err)
			}
			if slices.Contains(etags, changed.Etag) {
				t.Errorf("%s: version %s was there before", what, changed.Etag)
			}
			etags = append(etags, changed.Etag)
			return changed.Etag
		}

		_, err := f.Tenant(ctx, "acme")
		step("read what is not there", err, tenant.ErrNotFound)
		_, err = f.UpdateTenant(ctx, at("0123456789abcdef01234567"))
		step("update what is not there", err, tenant.ErrNotFound)

		created, err := f.CreateTenant(ctx, at(""))
		first := change("create", created, err)
		_, err = f.CreateTenant(ctx, at(""))
		step("create what is there", err, tenant.ErrExists)

		updated, err := f.UpdateTenant(ctx, at(first))
		second := change("update", updated, err)
		_, err = f.UpdateTenant(ctx, at(first))
		step("update the version before", err, tenant.ErrConflict)
		step("delete the version before", f.DeleteTenant(ctx, "acme", first), tenant.ErrConflict)
		if got, err := f.Tenant(ctx, "acme"); err != nil || got.Etag != second {
			t.Errorf("after refused changes: %+v, error %v", got, err)
		}

		step("delete", f.DeleteTenant(ctx, "acme", second), nil)
		_, err = f.Tenant(ctx, "acme")
		step("read what was deleted", err, tenant.ErrNotFound)
		// It cannot be told from a delete whose answer was lost.
		step("delete again", f.DeleteTenant(ctx, "acme", second), nil)

		created, err = f.CreateTenant(ctx, at(""))
		change("create again", created, err)
		_, err = f.UpdateTenant(ctx, at(second))
		step("update the version before the delete", err, tenant.ErrConflict)
	})
}

func TestOneOfConcurrentUpdatesWins(t *testing.T) {
	onBoth(t, func(t *testing.T, f *fixture) {
		created := f.create(t, newTenant("acme"))
		var mu sync.Mutex
		var won []string
		var updaters sync.WaitGroup
		for i := range 16 {
			updaters.Go(func() {
				next := *created
				next.DisplayName = fmt.Sprint("by ", i)
				_, err := f.UpdateTenant(context.WithoutCancel(t.Context()), next)
				mu.Lock()
				defer mu.Unlock()
				if err == nil {
					won = append(won, next.DisplayName)
				} else if !errors.Is(err, tenant.ErrConflict) {
					t.Error(err)
				}
			})
		}
		updaters.Wait()
		got, err := f.Tenant(t.Context(), "acme")
		if err != nil || len(won) != 1 || got.DisplayName != won[0] {
			t.Errorf("won: %q; stored: %+v, error %v", won, got, err)
		}
	})
}

func TestIndexAndRecordsAgree(t *testing.T) {
	onBoth(t, func(t *testing.T, f *fixture) {
		var changers sync.WaitGroup
		for range 4 {
			changers.Go(func() {
				for range 100 {
					if err := changeAtRandom(t.Context(), f, fmt.Sprintf("t%d", rand.N(8))); err != nil {
						t.Error(err)
					}
				}
			})
		}
		changers.Wait()
		records, err := f.raw.HKeys(t.Context(), recordsKey).Result()
		if err != nil {
			t.Fatal(err)
		}
		slices.Sort(records)
		index, err := f.raw.ZRangeWithScores(t.Context(), indexKey, 0, -1).Result()
		if err != nil {
			t.Fatal(err)
		}
		var ids []string
		for _, member := range index {
			ids = append(ids, member.Member.(string))
			if member.Score != 0 {
				t.Errorf("score of %v is %v: ids are not in order", member.Member, member.Score)
			}
		}
		if !slices.Equal(ids, records) {
			t.Errorf("index %q, records %q", ids, records)
		}
		var listed []string
		listAll(t, f, 3, func(page []*tenant.Tenant) {
			for _, each := range page {
				listed = append(listed, each.ID)
			}
		})
		if !slices.Equal(listed, records) {
			t.Errorf("listed %q, records %q", listed, records)
		}
	})
}

// changeAtRandom does one of the three changes, which may lose against others.
func changeAtRandom(ctx context.Context, f *fixture, id string) error {
	current, err := f.Tenant(ctx, id)
	switch {
	case errors.Is(err, tenant.ErrNotFound):
		_, err = f.CreateTenant(ctx, newTenant(id))
	case err != nil:
		return err
	case rand.N(2) == 0:
		_, err = f.UpdateTenant(ctx, *current)
	default:
		err = f.DeleteTenant(ctx, id, current.Etag)
	}
	for _, lost := range []error{tenant.ErrNotFound, tenant.ErrExists, tenant.ErrConflict} {
		if errors.Is(err, lost) {
			return nil
		}
	}
	return err
}

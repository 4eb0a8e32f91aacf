package redisstore_test

import (
	"errors"
	"slices"
	"testing"

	"smokeball.internal/tokenbroker/internal/tenant"
)

func TestATenantThatWasLostIsToldFromOneThatWasDeleted(t *testing.T) {
	onBoth(t, func(t *testing.T, f *fixture) {
		ctx := t.Context()
		kept, deleted := f.create(t, newTenant("kept")), f.create(t, newTenant("deleted"))
		l := follow(t, f.Store)
		if err := f.DeleteTenant(ctx, "deleted", deleted.Etag); err != nil {
			t.Fatal(err)
		}
		if _, err := f.Tenant(ctx, "deleted"); !errors.Is(err, tenant.ErrNotFound) {
			t.Errorf("deleted: %v", err)
		}
		l.await(t, "after the delete", "tenant deleted")
		if err := f.raw.FlushAll(ctx).Err(); err != nil {
			t.Fatal(err)
		}
		l.await(t, "after the loss", resync)
		if _, err := f.Tenant(ctx, "kept"); !errors.Is(err, tenant.ErrLost) {
			t.Errorf("lost: %v", err)
		}
		// A new registry is not the old one.
		f.create(t, newTenant("new"))
		if _, err := f.Tenant(ctx, "kept"); !errors.Is(err, tenant.ErrLost) {
			t.Errorf("lost, and a new registry begun: %v", err)
		}
		if _, err := f.Tenant(ctx, "new"); err != nil {
			t.Errorf("new: %v", err)
		}
		// Who has seen no other goes by this one.
		if _, err := f.open(t, f.keyset).Tenant(ctx, kept.ID); !errors.Is(err, tenant.ErrNotFound) {
			t.Errorf("for a replica that was started since: %v", err)
		}
	})
}

func TestTenantsThatAreKeptWarmAreListed(t *testing.T) {
	onBoth(t, func(t *testing.T, f *fixture) {
		ctx := t.Context()
		f.create(t, newTenant("before"))
		l := follow(t, f.Store)
		warm := func(id string) tenant.Tenant {
			r := newTenant(id)
			r.KeepWarm = true
			return r
		}
		a, _, _, cold := f.create(t, warm("a")), f.create(t, warm("b")), f.create(t, warm("c")), f.create(t, newTenant("d"))
		l.await(t, "after four", "tenant a, warm", "tenant b, warm", "tenant c, warm", "tenant d")
		list := func(after string, limit int, want []string, wantNext string) {
			t.Helper()
			ids, next, err := f.WarmTenants(ctx, after, limit)
			if err != nil || !slices.Equal(ids, want) || next != wantNext {
				t.Errorf("behind %q: %v, next %q, error %v", after, ids, next, err)
			}
		}
		list("", 2, []string{"a", "b"}, "b")
		list("b", 2, []string{"c"}, "")
		a.KeepWarm = false
		cold.KeepWarm = true
		for _, change := range []*tenant.Tenant{a, cold} {
			if _, err := f.UpdateTenant(ctx, *change); err != nil {
				t.Fatal(err)
			}
		}
		c, err := f.Tenant(ctx, "c")
		if err != nil {
			t.Fatal(err)
		}
		if err := f.DeleteTenant(ctx, "c", c.Etag); err != nil {
			t.Fatal(err)
		}
		list("", 10, []string{"b", "d"}, "")
	})
}

func TestAFollowerIsToldThatItHears(t *testing.T) {
	onBoth(t, func(t *testing.T, f *fixture) {
		l := follow(t, f.Store)
		before := l.heard.Load()
		eventually(t, "heard again", func() bool { return l.heard.Load() >= before+2 })
	})
}

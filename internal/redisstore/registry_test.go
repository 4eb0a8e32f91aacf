package redisstore_test

import (
	"errors"
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

func TestAFollowerIsToldThatItHears(t *testing.T) {
	onBoth(t, func(t *testing.T, f *fixture) {
		l := follow(t, f.Store)
		before := l.heard.Load()
		eventually(t, "heard again", func() bool { return l.heard.Load() >= before+2 })
	})
}

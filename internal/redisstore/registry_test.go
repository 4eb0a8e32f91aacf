package redisstore_test

import (
	"bytes"
	"errors"
	"testing"

	"smokeball.internal/tokenbroker/internal/redisstore"
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
		// No new one is begun by who may still have what is to be restored.
		if _, err := f.CreateTenant(ctx, newTenant("new")); !errors.Is(err, tenant.ErrLost) {
			t.Errorf("registered in its place: %v", err)
		}
		// Who has seen no other goes by what there is.
		late := f.open(t, f.keyset)
		if _, err := late.Tenant(ctx, kept.ID); !errors.Is(err, tenant.ErrNotFound) {
			t.Errorf("for a replica that was started since: %v", err)
		}
		if _, err := late.CreateTenant(ctx, newTenant("new")); err != nil {
			t.Errorf("registered by a replica that was started since: %v", err)
		}
		// Which is another registry than the one that was lost.
		if _, err := f.Tenant(ctx, "kept"); !errors.Is(err, tenant.ErrLost) {
			t.Errorf("lost, and a new registry begun: %v", err)
		}
		if _, err := f.Tenant(ctx, "new"); err != nil {
			t.Errorf("new: %v", err)
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

// Eviction may take an index alone.
func TestAnImportBringsTheIndexesBack(t *testing.T) {
	onBoth(t, func(t *testing.T, f *fixture) {
		ctx := t.Context()
		warm := newTenant("warm")
		warm.KeepWarm = true
		f.create(t, warm)
		f.create(t, newTenant("cold"))
		var file bytes.Buffer
		if _, err := f.Export(ctx, &file); err != nil {
			t.Fatal(err)
		}
		backup, err := redisstore.ReadBackup(&file)
		if err != nil {
			t.Fatal(err)
		}
		if err := f.raw.Del(ctx, indexKey, warmKey, secretsKey).Err(); err != nil {
			t.Fatal(err)
		}
		if done, err := f.Import(ctx, backup, redisstore.ImportOptions{}); err != nil || done.Same != 2 {
			t.Errorf("Import = %+v, %v", done, err)
		}
		if all, _, err := f.ListTenants(ctx, "", 10); err != nil || len(all) != 2 {
			t.Errorf("listed %d, error %v", len(all), err)
		}
		if ids, _, err := f.WarmTenants(ctx, "", 10); err != nil || len(ids) != 1 {
			t.Errorf("warm: %q, error %v", ids, err)
		}
		if n := f.raw.ZCard(ctx, secretsKey).Val(); n != 2 {
			t.Errorf("%d in the index of secrets", n)
		}
	})
}

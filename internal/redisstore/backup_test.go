package redisstore_test

import (
	"bytes"
	"errors"
	"fmt"
	"log/slog"
	"maps"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"smokeball.internal/tokenbroker/internal/redisstore"
	"smokeball.internal/tokenbroker/internal/seal"
	"smokeball.internal/tokenbroker/internal/secret"
	"smokeball.internal/tokenbroker/internal/tenant"
)

const (
	warmKey     = prefix + "{tenants}:warm"
	registryKey = prefix + "{tenants}:registry"
)

// fullTenant has every field.
func fullTenant(id string) tenant.Tenant {
	full := newTenant(id)
	full.DisplayName, full.AccountID = "Full & Söhne \"LLP\"", "4b8d"
	full.Environment = tenant.Staging
	full.Fallback = tenant.Secret{Value: secret.New("secret before")}
	full.FallbackUntil = time.Now().Add(time.Hour).UTC()
	full.APIKey = secret.New("api key")
	full.Scopes = []string{"documents/write", "matters/read"}
	full.Disabled, full.KeepWarm = true, true
	full.Labels = map[string]string{"team": "billing", "empty": ""}
	return full
}

// export returns a backup of all there is.
func export(t *testing.T, s *redisstore.Store) (string, redisstore.Exported) {
	t.Helper()
	var file bytes.Buffer
	done, err := s.Export(t.Context(), &file)
	if err != nil {
		t.Fatal(err)
	}
	return file.String(), done
}

func readBackup(t *testing.T, file string) *redisstore.Backup {
	t.Helper()
	backup, err := redisstore.ReadBackup(strings.NewReader(file))
	if err != nil {
		t.Fatal(err)
	}
	return backup
}

// wantImported imports a backup and compares what is said of it.
func wantImported(t *testing.T, s *redisstore.Store, file string, o redisstore.ImportOptions, want redisstore.Imported) {
	t.Helper()
	done, err := s.Import(t.Context(), readBackup(t, file), o)
	if err != nil || fmt.Sprintf("%+v", done) != fmt.Sprintf("%+v", want) {
		t.Errorf("imported %+v, want %+v, error %v", done, want, err)
	}
}

// registry returns all that Redis holds of the registry but the changes.
func (f *fixture) registry(t *testing.T) map[string]string {
	t.Helper()
	all := map[string]string{}
	for _, key := range f.keys(t) {
		if strings.Contains(key, "{tenants}") && key != changesKey {
			_, all[key] = f.dump(t, key)
		}
	}
	return all
}

func (f *fixture) flush(t *testing.T) {
	t.Helper()
	if err := f.raw.FlushAll(t.Context()).Err(); err != nil {
		t.Fatal(err)
	}
}

func TestALostRegistryComesBackFromABackup(t *testing.T) {
	onBoth(t, func(t *testing.T, f *fixture) {
		ctx := t.Context()
		var want []*tenant.Tenant
		for _, registered := range []tenant.Tenant{newTenant("small"), fullTenant("full")} {
			want = append(want, f.create(t, registered))
		}
		if err := f.DeleteTenant(ctx, "deleted", f.create(t, newTenant("deleted")).Etag); err != nil {
			t.Fatal(err)
		}
		there := f.open(t, f.keyset)
		l := follow(t, there)
		before := f.registry(t)
		if len(before) != 5 {
			t.Fatalf("keys of a registry: %v", slices.Collect(maps.Keys(before)))
		}
		file, exported := export(t, f.Store)
		if exported.Tenants != 2 || len(exported.Unreadable) != 0 || exported.Strange != 0 {
			t.Errorf("exported %+v", exported)
		}

		f.flush(t)
		l.await(t, "after the loss", resync)
		if _, err := there.Tenant(ctx, "small"); !errors.Is(err, tenant.ErrLost) {
			t.Errorf("lost: %v", err)
		}
		wantImported(t, f.Store, file, redisstore.ImportOptions{}, redisstore.Imported{Created: 2})
		if got := f.registry(t); !maps.Equal(got, before) {
			t.Errorf("registry\n%q, before the loss\n%q", got, before)
		}
		for _, registered := range want {
			got, err := there.Tenant(ctx, registered.ID)
			if err != nil {
				t.Fatal(err)
			}
			wantSame(t, got, registered)
		}
		// The registry is the one it was: what it does not have was deleted.
		if _, err := there.Tenant(ctx, "deleted"); !errors.Is(err, tenant.ErrNotFound) {
			t.Errorf("deleted: %v", err)
		}
		eventually(t, "it is told that the registry is back", func() bool { return strings.Contains(f.log.String(), "is back") })

		told := f.raw.XLen(ctx, changesKey).Val()
		wantImported(t, f.Store, file, redisstore.ImportOptions{Overwrite: true}, redisstore.Imported{Same: 2})
		if now := f.raw.XLen(ctx, changesKey).Val(); told != 2 || now != told || !maps.Equal(f.registry(t), before) {
			t.Errorf("the second time: %d changes told of, %d before, registry %q", now, told, f.registry(t))
		}
	})
}

func TestTenantsThatWereChangedSinceAreLeftOrReplaced(t *testing.T) {
	onBoth(t, func(t *testing.T, f *fixture) {
		ctx := t.Context()
		f.create(t, newTenant("same"))
		first, cold := f.create(t, fullTenant("changed")), f.create(t, newTenant("cold"))
		file, _ := export(t, f.Store)
		warmed := *cold
		warmed.KeepWarm = true
		if _, err := f.UpdateTenant(ctx, warmed); err != nil {
			t.Fatal(err)
		}
		second := *first
		second.DisplayName, second.KeepWarm = "Another", false
		if _, err := f.UpdateTenant(ctx, second); err != nil {
			t.Fatal(err)
		}
		l, changed := follow(t, f.open(t, f.keyset)), f.registry(t)
		there := redisstore.Imported{Same: 1, Different: []string{"changed", "cold"}}

		wantImported(t, f.Store, file, redisstore.ImportOptions{}, there)
		wantImported(t, f.Store, file, redisstore.ImportOptions{DryRun: true, Overwrite: true}, there)
		if got := f.registry(t); !maps.Equal(got, changed) {
			t.Errorf("it was to be left: %q, before %q", got, changed)
		}
		wantImported(t, f.Store, file, redisstore.ImportOptions{Overwrite: true}, there)
		l.await(t, "after they were replaced", "tenant changed, warm", "tenant cold")
		got, err := f.Tenant(ctx, "changed")
		if err != nil {
			t.Fatal(err)
		}
		wantSame(t, got, first)
		if ids, _, err := f.WarmTenants(ctx, "", 10); err != nil || !slices.Equal(ids, []string{"changed"}) {
			t.Errorf("kept warm: %q, error %v", ids, err)
		}

		// A record that is damaged is in another version; one that is deleted is missing.
		if err := f.raw.HSet(ctx, recordsKey, "changed", "junk").Err(); err != nil {
			t.Fatal(err)
		}
		same, err := f.Tenant(ctx, "same")
		if err != nil {
			t.Fatal(err)
		}
		if err := f.DeleteTenant(ctx, "same", same.Etag); err != nil {
			t.Fatal(err)
		}
		want := redisstore.Imported{Created: 1, Same: 1, Different: []string{"changed"}}
		damaged := f.registry(t)
		wantImported(t, f.Store, file, redisstore.ImportOptions{DryRun: true}, want)
		if got := f.registry(t); !maps.Equal(got, damaged) {
			t.Errorf("a dry run: %q, before %q", got, damaged)
		}
		wantImported(t, f.Store, file, redisstore.ImportOptions{Overwrite: true}, want)
		l.await(t, "after both came back", "tenant same", "tenant changed, warm", "tenant same")
		if got, err := f.Tenant(ctx, "changed"); err != nil || got.Etag != first.Etag {
			t.Errorf("after the damage: %+v, %v", got, err)
		}
	})
}

func TestABackupIsImportedUnderAnotherPrefix(t *testing.T) {
	onBoth(t, func(t *testing.T, f *fixture) {
		want := f.create(t, fullTenant("full"))
		f.create(t, newTenant("small"))
		file, _ := export(t, f.Store)
		elsewhere, err := redisstore.Open(redisstore.Config{URL: f.url, Prefix: "elsewhere:", Keyset: f.keyset, Logger: slog.New(slog.DiscardHandler)})
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { _ = elsewhere.Close() })
		wantImported(t, elsewhere, file, redisstore.ImportOptions{}, redisstore.Imported{Created: 2})
		wantImported(t, elsewhere, file, redisstore.ImportOptions{}, redisstore.Imported{Same: 2})
		got, err := elsewhere.Tenant(t.Context(), "full")
		if err != nil {
			t.Fatal(err)
		}
		wantSame(t, got, want)
		// And back.
		back, exported := export(t, elsewhere)
		if len(exported.Unreadable) != 0 {
			t.Errorf("unreadable: %q", exported.Unreadable)
		}
		wantImported(t, f.Store, back, redisstore.ImportOptions{}, redisstore.Imported{Same: 2})
	})
}

func TestAnImportWithAnotherKeysetChangesNothing(t *testing.T) {
	onBoth(t, func(t *testing.T, f *fixture) {
		for _, id := range []string{"a", "b"} {
			f.create(t, newTenant(id))
		}
		file, _ := export(t, f.Store)
		f.flush(t)
		done, err := f.open(t, newKeyset(t)).Import(t.Context(), readBackup(t, file), redisstore.ImportOptions{Overwrite: true})
		if !errors.Is(err, redisstore.ErrWrongKeyset) || done.Created != 0 || len(f.keys(t)) != 0 {
			t.Errorf("imported %+v, error %v, keys %q", done, err, f.keys(t))
		}
	})
}

func TestWhatCannotBeOpenedIsExportedAndNotImported(t *testing.T) {
	onBoth(t, func(t *testing.T, f *fixture) {
		ctx := t.Context()
		f.create(t, newTenant("ours"))
		stranger := f.open(t, newKeyset(t))
		theirs, err := stranger.CreateTenant(ctx, newTenant("theirs"))
		if err != nil {
			t.Fatal(err)
		}
		if err := f.raw.HSet(ctx, recordsKey, "No Tenant\n", "junk").Err(); err != nil {
			t.Fatal(err)
		}
		there := f.open(t, f.keyset)
		l := follow(t, there)
		file, exported := export(t, f.Store)
		if exported.Tenants != 2 || !slices.Equal(exported.Unreadable, []string{"theirs"}) || exported.Strange != 1 {
			t.Errorf("exported %+v", exported)
		}
		f.flush(t)
		l.await(t, "after the loss", resync)
		wantImported(t, f.Store, file, redisstore.ImportOptions{}, redisstore.Imported{Created: 1, Unreadable: []string{"theirs"}})
		// It is not known to be deleted: who has it in memory goes on with it.
		if _, err := there.Tenant(ctx, "theirs"); !errors.Is(err, tenant.ErrLost) {
			t.Errorf("what was not restored: %v", err)
		}
		wantImported(t, stranger, file, redisstore.ImportOptions{}, redisstore.Imported{Created: 1, Unreadable: []string{"ours"}})
		if got, err := stranger.Tenant(ctx, "theirs"); err != nil || got.Etag != theirs.Etag {
			t.Errorf("with the other keyset: %+v, %v", got, err)
		}
	})
}

func TestABackupFromBeforeARotationIsImportedAfterIt(t *testing.T) {
	onBoth(t, func(t *testing.T, f *fixture) {
		path := filepath.Join(t.TempDir(), "keyset.json")
		if err := seal.Create(t.Context(), path, ""); err != nil {
			t.Fatal(err)
		}
		load := func() *redisstore.Store {
			keyset, err := seal.Load(t.Context(), path)
			if err != nil {
				t.Fatal(err)
			}
			return f.open(t, keyset)
		}
		before := load()
		want, err := before.CreateTenant(t.Context(), fullTenant("full"))
		if err != nil {
			t.Fatal(err)
		}
		file, _ := export(t, before)
		f.flush(t)
		if _, err := seal.Rotate(t.Context(), path, 0); err != nil {
			t.Fatal(err)
		}
		after := load()
		wantImported(t, after, file, redisstore.ImportOptions{}, redisstore.Imported{Created: 1})
		got, err := after.Tenant(t.Context(), "full")
		if err != nil {
			t.Fatal(err)
		}
		wantSame(t, got, want)
	})
}

func TestARegistryThatWasBegunAnewKeepsItsName(t *testing.T) {
	onBoth(t, func(t *testing.T, f *fixture) {
		f.create(t, newTenant("before"))
		file, _ := export(t, f.Store)
		f.flush(t)
		f.create(t, newTenant("after"))
		name := f.raw.Get(t.Context(), registryKey).Val()
		wantImported(t, f.Store, file, redisstore.ImportOptions{Overwrite: true}, redisstore.Imported{Created: 1, OtherRegistry: true})
		if got := f.raw.Get(t.Context(), registryKey).Val(); got != name || name == "" {
			t.Errorf("name %q, before %q", got, name)
		}
	})
}

// The first answer is lost, and the client sends the batch again.
func TestAnImportWhoseAnswerWasLostSucceeds(t *testing.T) {
	onBoth(t, func(t *testing.T, f *fixture) {
		f.create(t, newTenant("acme"))
		file, _ := export(t, f.Store)
		wantImported(t, f.Store, file, redisstore.ImportOptions{}, redisstore.Imported{Same: 1}) // Redis knows the script.
		f.flush(t)
		line := newLine(t, f.url)
		s := f.openAt(t, line.url(), f.keyset)
		if err := s.Ping(t.Context()); err != nil {
			t.Fatal(err)
		}
		line.loseAnswer("evalsha")
		wantImported(t, s, file, redisstore.ImportOptions{}, redisstore.Imported{Same: 1})
		if n := f.raw.XLen(t.Context(), changesKey).Val(); n != 1 || line.answersLost() != 1 {
			t.Errorf("%d changes told of, %d answers lost", n, line.answersLost())
		}
	})
}

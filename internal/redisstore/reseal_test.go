package redisstore_test

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"smokeball.internal/tokenbroker/internal/redisstore"
	"smokeball.internal/tokenbroker/internal/redisstore/redistest"
	"smokeball.internal/tokenbroker/internal/seal"
	"smokeball.internal/tokenbroker/internal/tenant"
	"smokeball.internal/tokenbroker/internal/token"
)

// keysetFile is a keyset in a file, which is rotated and pruned.
type keysetFile struct {
	t    *testing.T
	path string
}

func newKeysetFile(t *testing.T) *keysetFile {
	t.Helper()
	k := &keysetFile{t, filepath.Join(t.TempDir(), "keyset.json")}
	if err := seal.Create(t.Context(), k.path, ""); err != nil {
		t.Fatal(err)
	}
	return k
}

func (k *keysetFile) load() *seal.Keyset {
	k.t.Helper()
	keyset, err := seal.Load(k.t.Context(), k.path)
	if err != nil {
		k.t.Fatal(err)
	}
	return keyset
}

// rotated adds a key that seals once a while has passed.
func (k *keysetFile) rotated(while time.Duration) *seal.Keyset {
	k.t.Helper()
	if _, err := seal.Rotate(k.t.Context(), k.path, while); err != nil {
		k.t.Fatal(err)
	}
	return k.load()
}

// settled has the newest key seal since long ago.
func (k *keysetFile) settled() *seal.Keyset {
	k.t.Helper()
	content, err := os.ReadFile(k.path)
	if err != nil {
		k.t.Fatal(err)
	}
	var f map[string]any
	if err := json.Unmarshal(content, &f); err != nil {
		k.t.Fatal(err)
	}
	f["rotation"].(map[string]any)["effective_time"] = time.Now().UTC().Add(-2 * seal.Settle)
	if content, err = json.Marshal(f); err != nil {
		k.t.Fatal(err)
	}
	if err := os.WriteFile(k.path, content, 0o600); err != nil {
		k.t.Fatal(err)
	}
	return k.load()
}

// pruned is the keyset without the keys before the one that seals.
func (k *keysetFile) pruned() *seal.Keyset {
	k.t.Helper()
	k.settled()
	if _, err := seal.Prune(k.t.Context(), k.path, func(*seal.Keyset) error { return nil }); err != nil {
		k.t.Fatal(err)
	}
	return k.load()
}

// sealedWith gives a fixture the keyset of a file.
func (f *fixture) sealedWith(t *testing.T, k *seal.Keyset) *fixture {
	t.Helper()
	f.keyset = k
	f.Store = f.open(t, k)
	return f
}

// records returns the records of tenants as they are in Redis.
func (f *fixture) records(t *testing.T) map[string]string {
	t.Helper()
	records, err := f.raw.HGetAll(t.Context(), recordsKey).Result()
	if err != nil {
		t.Fatal(err)
	}
	return records
}

func wantResealed(t *testing.T, s *redisstore.Store, dry bool, anew, current int) {
	t.Helper()
	done, err := s.Reseal(t.Context(), redisstore.ResealOptions{DryRun: dry})
	if err != nil || done.Anew != anew || done.Current != current || len(done.Unreadable) > 0 || done.Changed > 0 || done.Strange > 0 {
		t.Errorf("Reseal (dry %v) = %+v, %v, want %d anew and %d current", dry, done, err, anew, current)
	}
}

func TestResealLeavesNothingForTheKeysBefore(t *testing.T) {
	onBoth(t, func(t *testing.T, f *fixture) {
		ctx, file := t.Context(), newKeysetFile(t)
		f.sealedWith(t, file.load())
		acme, err := f.UpdateTenant(ctx, *f.create(t, fullTenant("acme")))
		if err != nil {
			t.Fatal(err)
		}
		globex := f.create(t, newTenant("globex"))
		saved := newToken("of acme", time.Minute, time.Hour)
		saved.Replaced = token.ID(newToken("before", 0, 0).AccessToken)
		f.save(t, keyOf("acme"), saved)
		if err := f.SaveFailure(ctx, keyOf("globex"), newFailure("throttled", 10*time.Minute)); err != nil {
			t.Fatal(err)
		}
		heard := follow(t, f.open(t, f.keyset))
		before := f.records(t)

		rotated := f.open(t, file.rotated(0))
		initech, err := rotated.CreateTenant(ctx, newTenant("initech"))
		if err != nil {
			t.Fatal(err)
		}
		heard.await(t, "created", "tenant initech")
		wantResealed(t, rotated, true, 4, 1)
		if now := f.records(t); now["acme"] != before["acme"] || now["globex"] != before["globex"] {
			t.Error("a dry run has changed a record")
		}
		wantResealed(t, rotated, false, 4, 1)
		wantResealed(t, rotated, false, 0, 5)

		pruned := f.open(t, file.pruned())
		wantResealed(t, pruned, true, 0, 5)
		for _, want := range []*tenant.Tenant{acme, globex, initech} {
			got, err := pruned.Tenant(ctx, want.ID)
			if err != nil {
				t.Fatal(err)
			}
			wantSame(t, got, want)
		}
		got, _, err := pruned.Load(ctx, keyOf("acme"))
		if err != nil || text(got) != "of acme" || !near(time.Until(got.Expires), 59*time.Minute) || got.Replaced != saved.Replaced || got.Lifetime() != time.Hour {
			t.Errorf("token %+v, error %v", got, err)
		}
		_, failure, err := pruned.Load(ctx, keyOf("globex"))
		if err != nil || failure == nil || failure.Class != "throttled" || !near(time.Until(failure.RetryAt), 10*time.Minute) {
			t.Errorf("failure %+v, error %v", failure, err)
		}
		// The versions are the same, so that a change that was begun before is made.
		if _, err := pruned.UpdateTenant(ctx, *acme); err != nil {
			t.Errorf("a change of the version before: %v", err)
		}
		heard.await(t, "nobody was told of a reseal", "tenant acme, warm")
	})
}

func TestResealReportsWhatItCannotOpenAndDoesTheRest(t *testing.T) {
	onBoth(t, func(t *testing.T, f *fixture) {
		ctx, file := t.Context(), newKeysetFile(t)
		f.sealedWith(t, file.load())
		stranger := newKeyset(t)
		for _, id := range []string{"edited", "good", "moved"} {
			f.create(t, newTenant(id))
		}
		if _, err := f.open(t, stranger).CreateTenant(ctx, newTenant("gone")); err != nil {
			t.Fatal(err)
		}
		for _, name := range []string{"good", "edited", "headed"} {
			f.save(t, keyOf(name), newToken(name, 0, time.Hour))
		}
		records := f.records(t)
		edited := f.raw.Get(ctx, tokenKey(keyOf("edited"))).Val()
		headed := f.raw.Get(ctx, tokenKey(keyOf("headed"))).Val()
		for name, err := range map[string]error{
			"edited":  f.raw.HSet(ctx, recordsKey, "edited", flip(records["edited"], 60)).Err(),
			"moved":   f.raw.HSet(ctx, recordsKey, "moved", records["good"]).Err(),
			"strange": f.raw.HSet(ctx, recordsKey, "No Id\x1b[31m", records["good"]).Err(),
			"token":   f.raw.Set(ctx, tokenKey(keyOf("edited")), flip(edited, len(edited)-1), time.Hour).Err(),
			// The head is not sealed, and counts nonetheless.
			"head":    f.raw.Set(ctx, tokenKey(keyOf("headed")), flip(headed, 0), time.Hour).Err(),
			"failure": f.raw.Set(ctx, failureKey(keyOf("edited")), "junk", time.Hour).Err(),
			"other":   f.raw.Set(ctx, prefix+"token:{\x1b[31m}", "junk", time.Hour).Err(),
			"list":    f.raw.LPush(ctx, tokenKey(keyOf("list")), "junk").Err(),
		} {
			if err != nil {
				t.Fatal(name, err)
			}
		}
		done, err := f.open(t, file.rotated(0)).Reseal(ctx, redisstore.ResealOptions{})
		if err != nil || done.Anew != 2 || done.Current != 0 || done.Strange != 1 {
			t.Errorf("Reseal = %+v, %v", done, err)
		}
		want := map[string]string{
			"tenants/edited": "cannot be opened", "tenants/gone": fmt.Sprintf("no key %d", stranger.Status().Seals), "tenants/moved": "cannot be opened",
			tokenKey(keyOf("edited")): "cannot be opened", tokenKey(keyOf("headed")): "not what its place says", failureKey(keyOf("edited")): "cannot be opened",
		}
		for _, u := range done.Unreadable {
			if want[u.Name] == "" || !strings.Contains(u.Err.Error(), want[u.Name]) {
				t.Errorf("unreadable: %q: %v", u.Name, u.Err)
			}
			delete(want, u.Name)
		}
		if len(want) > 0 {
			t.Errorf("not reported: %v", want)
		}
		if now := f.records(t); now["edited"] != flip(records["edited"], 60) || now["moved"] != records["good"] {
			t.Error("what cannot be opened was changed")
		}
	})
}

func TestThereIsNothingToResealWithoutARegistry(t *testing.T) {
	onBoth(t, func(t *testing.T, f *fixture) {
		f.save(t, keyOf("acme"), newToken("sealed", 0, time.Hour))
		if _, err := f.Reseal(t.Context(), redisstore.ResealOptions{}); !errors.Is(err, redisstore.ErrNoRegistry) {
			t.Errorf("Reseal = %v", err)
		}
		if n := f.raw.Exists(t.Context(), prefix+"{tenants}:registry").Val(); n != 0 {
			t.Error("a registry was begun")
		}
	})
}

// What two replicas do while the file is on its way to them, and afterwards.
func TestReplicasReadEachOthersRecordsThroughoutARotation(t *testing.T) {
	t.Parallel()
	f := newFixture(t, redistest.Start(t).URL())
	file := newKeysetFile(t)
	f.sealedWith(t, file.load())
	readEachOthers := func(when string, replicas ...*redisstore.Store) {
		t.Helper()
		for i, from := range replicas {
			name := fmt.Sprintf("%s-%d", when, i)
			created, err := from.CreateTenant(t.Context(), newTenant(name))
			if err != nil {
				t.Fatal(err)
			}
			if _, err := from.Save(t.Context(), keyOf(name), newToken(name, 0, time.Hour)); err != nil {
				t.Fatal(err)
			}
			for j, to := range replicas {
				if got, err := to.Tenant(t.Context(), name); err != nil || got.Etag != created.Etag {
					t.Errorf("%s: %d does not read the tenant of %d: %v", when, j, i, err)
				}
				if got, _, err := to.Load(t.Context(), keyOf(name)); err != nil || text(got) != name {
					t.Errorf("%s: %d does not read the token of %d: %s, %v", when, j, i, text(got), err)
				}
			}
		}
	}
	old, pending := f.Store, f.open(t, file.rotated(time.Hour))
	readEachOthers("on-its-way", old, pending)
	wantResealed(t, pending, true, 0, 4) // All is sealed with the key before, and that is right.
	effective := f.open(t, file.settled())
	readEachOthers("clock-behind", pending, effective)
	wantResealed(t, effective, false, 6, 2)
	pruned := f.open(t, file.pruned())
	readEachOthers("in-effect", effective, pruned)
	// The one that was forgotten: what it cannot open it reports, and does not serve.
	if got, err := old.Tenant(t.Context(), "in-effect-0"); !errors.Is(err, tenant.ErrUnreadable) {
		t.Errorf("tenant %+v, error %v", got, err)
	}
	if got, _, err := old.Load(t.Context(), keyOf("in-effect-0")); got != nil || err != nil {
		t.Errorf("token %s, error %v", text(got), err)
	}
}

func TestARecordOfAKeyThatIsGoneIsReportedAndNotServed(t *testing.T) {
	onBoth(t, func(t *testing.T, f *fixture) {
		ctx, file := t.Context(), newKeysetFile(t)
		f.sealedWith(t, file.load())
		k := keyOf("acme")
		created := f.create(t, newTenant("acme"))
		f.save(t, k, newToken("of-the-key-that-is-gone", time.Minute, time.Hour))
		if err := f.SaveFailure(ctx, keyOf("globex"), newFailure("throttled", time.Hour)); err != nil {
			t.Fatal(err)
		}
		file.rotated(0)
		s := f.open(t, file.pruned()) // Without a reseal.
		got, err := s.Tenant(ctx, "acme")
		if !errors.Is(err, tenant.ErrUnreadable) || got.ID != "acme" || got.Etag != created.Etag || got.ClientID != "" {
			t.Errorf("tenant %+v, error %v", got, err)
		}
		if page, _, err := s.ListTenants(ctx, "", 10); err != nil || len(page) != 1 || page[0].ClientID != "" {
			t.Errorf("listed %+v, error %v", page, err)
		}
		if got, _, err := s.Load(ctx, k); got != nil || err != nil {
			t.Errorf("token %s, error %v", text(got), err)
		}
		if _, got, err := s.Load(ctx, keyOf("globex")); got != nil || err != nil {
			t.Errorf("failure %v, error %v", got, err)
		}
		log := f.log.String()
		for _, want := range []string{"tenant=acme", tokenKey(k), failureKey(keyOf("globex")), fmt.Sprintf("no key %d in the keyset", f.keyset.Status().Seals)} {
			if !strings.Contains(log, want) {
				t.Errorf("the log does not say %q: %s", want, log)
			}
		}
		// The next token takes its place, and the tenant that of the record.
		if kept, err := s.Save(ctx, k, newToken("next", 0, time.Hour)); err != nil || text(kept) != "next" {
			t.Errorf("saved %s, error %v", text(kept), err)
		}
		if got, _, err := s.Load(ctx, k); err != nil || text(got) != "next" {
			t.Errorf("then there is %s, error %v", text(got), err)
		}
		anew := newTenant("acme")
		anew.Etag = created.Etag
		if _, err := s.UpdateTenant(ctx, anew); err != nil {
			t.Errorf("registered anew: %v", err)
		}
	})
}

// Interrupted anywhere, it has done what it has done.
func TestAResealThatIsInterruptedIsFinishedByTheNext(t *testing.T) {
	t.Parallel()
	f := newFixture(t, redistest.Start(t).URL())
	file := newKeysetFile(t)
	f.sealedWith(t, file.load())
	const n = 300
	for i := range n {
		f.create(t, newTenant(fmt.Sprint("firm-", i)))
		f.save(t, keyOf(fmt.Sprint("firm-", i)), newToken(fmt.Sprint("token-", i), 0, time.Hour))
	}
	rotated := f.open(t, file.rotated(0))
	interrupted := 0
	for wait := 500 * time.Microsecond; ; wait = wait * 5 / 4 {
		ctx, cancel := context.WithTimeout(t.Context(), wait)
		_, err := rotated.Reseal(ctx, redisstore.ResealOptions{})
		cancel()
		if left, err := rotated.Reseal(t.Context(), redisstore.ResealOptions{DryRun: true}); err != nil || left.Anew+left.Current != 2*n {
			t.Fatalf("after %v: %+v, %v", wait, left, err)
		} else if left.Anew > 0 && left.Current > 0 {
			interrupted++
		}
		if err == nil {
			break
		}
	}
	if interrupted == 0 {
		t.Error("not interrupted in the middle")
	}
	wantResealed(t, f.open(t, file.pruned()), true, 0, 2*n)
}

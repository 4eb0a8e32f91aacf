package redisstore_test

import (
	"bytes"
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"smokeball.internal/tokenbroker/internal/redisstore"
	"smokeball.internal/tokenbroker/internal/redisstore/redistest"
)

func TestThereIsNoBackupOfARegistryThatIsGone(t *testing.T) {
	onBoth(t, func(t *testing.T, f *fixture) {
		if done, err := f.Export(t.Context(), &bytes.Buffer{}); !errors.Is(err, redisstore.ErrNoRegistry) {
			t.Errorf("exported %+v, error %v", done, err)
		}
		// One without tenants is there.
		if err := f.DeleteTenant(t.Context(), "acme", f.create(t, newTenant("acme")).Etag); err != nil {
			t.Fatal(err)
		}
		file, _ := export(t, f.Store)
		f.flush(t)
		wantImported(t, f.Store, file, redisstore.ImportOptions{}, redisstore.Imported{})
		if name := f.raw.Get(t.Context(), registryKey).Val(); name == "" {
			t.Error("it has no name")
		}
	})
}

// writer calls a function before each write.
type writer func()

func (w writer) Write(p []byte) (int, error) { w(); return len(p), nil }

func TestAnExportDuringWhichTheRegistryIsLostFails(t *testing.T) {
	onBoth(t, func(t *testing.T, f *fixture) {
		for n := range 600 {
			f.create(t, newTenant(fmt.Sprint("firm-", n)))
		}
		done, err := f.Export(t.Context(), writer(func() { f.flush(t) }))
		if !errors.Is(err, redisstore.ErrRegistryChanged) || done.Tenants == 0 || done.Tenants == 600 {
			t.Errorf("exported %+v, error %v", done, err)
		}
	})
}

func TestAnExportWhileTenantsChangeHasAllThatStay(t *testing.T) {
	onBoth(t, func(t *testing.T, f *fixture) {
		var staying []string
		for n := range 600 {
			id := fmt.Sprintf("stays-%03d", n)
			f.create(t, newTenant(id))
			staying = append(staying, id)
		}
		stop := make(chan struct{})
		var changer sync.WaitGroup
		changer.Go(func() {
			for {
				select {
				case <-stop:
					return
				default:
				}
				for n := range 8 {
					if err := changeAtRandom(t.Context(), f, fmt.Sprint("passes-", n)); err != nil {
						t.Error(err)
					}
				}
				updated, err := f.Tenant(t.Context(), "stays-300")
				if err == nil {
					_, err = f.UpdateTenant(t.Context(), *updated)
				}
				if err != nil {
					t.Error(err)
				}
			}
		})
		for range 5 {
			file, exported := export(t, f.Store)
			var got []string
			for _, line := range strings.Split(file, "\n") {
				if _, id, ok := strings.Cut(line, `{"id":"stays-`); ok {
					got = append(got, "stays-"+id[:3])
				}
			}
			if !slices.Equal(got, staying) || len(exported.Unreadable) > 0 {
				t.Errorf("%d of those that stay, unreadable %q", len(got), exported.Unreadable)
			}
			readBackup(t, file)
		}
		close(stop)
		changer.Wait()
	})
}

func TestNoSecretIsInABackup(t *testing.T) {
	onBoth(t, func(t *testing.T, f *fixture) {
		plant(t, f)
		file, _ := export(t, f.Store)
		wantNoSecrets(t, "file", file)
		line := strings.Split(file, "\n")[1]
		var record struct{ ID, Record string }
		if err := json.Unmarshal([]byte(line), &record); err != nil || record.ID != "acme-in-plain" {
			t.Fatalf("%s: %v", line, err)
		}
		sealed, err := base64.StdEncoding.DecodeString(record.Record)
		if err != nil || len(sealed) < 100 {
			t.Fatalf("%d bytes, error %v", len(sealed), err)
		}
		wantNoSecrets(t, "record", string(sealed))
	})
}

func TestTwentyThousandTenantsComeBackInSeconds(t *testing.T) {
	t.Parallel()
	f := newFixture(t, redistest.Start(t).URL())
	const count = 20_000
	var creators sync.WaitGroup
	for c := range 8 {
		creators.Go(func() {
			for n := c; n < count; n += 8 {
				if _, err := f.CreateTenant(t.Context(), newTenant(fmt.Sprint("firm-", n))); err != nil {
					t.Error(err)
					return
				}
			}
		})
	}
	creators.Wait()
	began := time.Now()
	file, exported := export(t, f.Store)
	took := time.Since(began)
	f.flush(t)
	began = time.Now()
	wantImported(t, f.Store, file, redisstore.ImportOptions{}, redisstore.Imported{Created: count})
	t.Logf("%d tenants, %d bytes: exported in %v, imported in %v", exported.Tenants, len(file), took, time.Since(began))
	if n := f.raw.ZCard(t.Context(), indexKey).Val(); n != count || exported.Tenants != count {
		t.Errorf("exported %d, imported %d", exported.Tenants, n)
	}
	if all := took + time.Since(began); all > 2*patience {
		t.Errorf("took %v", all)
	}
}

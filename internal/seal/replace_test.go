package seal_test

import (
	"errors"
	"slices"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"smokeball.internal/tokenbroker/internal/seal"
)

// A replica takes up each version of the file while it runs.
func TestAKeysetIsReplacedThroughoutARotation(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		path := create(t)
		k := load(t, path)
		takeUp := func(when string) {
			t.Helper()
			now := load(t, path)
			if err := k.Replace(now); err != nil {
				t.Fatalf("%s: %v", when, err)
			}
			if got, want := k.Status(), now.Status(); !slices.Equal(got.Keys, want.Keys) || got.Seals != want.Seals {
				t.Errorf("%s: %+v, want %+v", when, got, want)
			}
		}
		first := sealed(t, k, "first", "name")
		takeUp("unchanged")
		rotateIn(t, path, time.Hour)
		takeUp("a key is added")
		wantOpen(t, k, first, "name", "first")
		time.Sleep(time.Hour + seal.Settle)
		second := sealed(t, k, "second", "name")
		if _, err := seal.Prune(t.Context(), path, func(*seal.Keyset) error { return nil }); err != nil {
			t.Fatal(err)
		}
		takeUp("a key is removed")
		wantOpen(t, k, second, "name", "second")
		wantUnreadable(t, k, first, "name")
	})
}

func TestAKeysetThatWouldLoseRecordsDoesNotReplace(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		path := create(t)
		before := copyOf(t, path)
		rotateIn(t, path, time.Hour)
		k := load(t, path)
		if err := k.Replace(ephemeral(t)); !errors.Is(err, seal.ErrOtherNames) {
			t.Errorf("another fleet's: %v", err)
		}
		time.Sleep(time.Hour)
		b := sealed(t, k, "plaintext", "name")
		// An old copy was put in place of the file: what is sealed since would not open.
		if err := k.Replace(load(t, before)); !errors.Is(err, seal.ErrKeyMissing) {
			t.Errorf("the one from before: %v", err)
		}
		// Rotated elsewhere, from the same file.
		rotateIn(t, before, 0)
		if err := k.Replace(load(t, before)); !errors.Is(err, seal.ErrKeyMissing) {
			t.Errorf("the one that was rotated elsewhere: %v", err)
		}
		wantOpen(t, k, b, "name", "plaintext")
		if len(k.Status().Keys) != 2 {
			t.Errorf("it has changed: %+v", k.Status())
		}
	})
}

// The file is what outlives the process: a key that is not in it any more must not begin to seal.
func TestARotationCanBeTakenBackBeforeItsTime(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		path := create(t)
		before := copyOf(t, path)
		rotateIn(t, path, time.Hour)
		k := load(t, path)
		if err := k.Replace(load(t, before)); err != nil {
			t.Fatal(err)
		}
		time.Sleep(2 * time.Hour)
		wantOpen(t, load(t, before), sealed(t, k, "plaintext", "name"), "name", "plaintext")
	})
}

func TestAKeysetIsReplacedWhileItIsUsed(t *testing.T) {
	path := create(t)
	k := load(t, path)
	rotate(t, path)
	versions := []*seal.Keyset{load(t, path), nil}
	rotate(t, path)
	versions[1] = load(t, path)
	done := make(chan struct{})
	var users sync.WaitGroup
	for range 4 {
		users.Go(func() {
			for {
				select {
				case <-done:
					return
				default:
				}
				b, err := k.Seal([]byte("plaintext"), "name")
				if err != nil {
					t.Error(err)
					return
				}
				wantOpen(t, versions[1], b, "name", "plaintext")
				k.Current(b)
			}
		})
	}
	for i := range 200 {
		// There and back again, once the last seals: that one is refused.
		err := k.Replace(versions[i%2])
		if wantRefused := i%2 == 0 && i > 0; (err != nil) != wantRefused {
			t.Errorf("replacement %d: %v", i, err)
		}
	}
	close(done)
	users.Wait()
}

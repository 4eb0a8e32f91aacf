package seal_test

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"os"
	"slices"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"smokeball.internal/tokenbroker/internal/seal"
	"smokeball.internal/tokenbroker/internal/secret"
)

func unseen(*seal.Keyset) error { return errors.New("looked, though it is refused anyway") }

func TestPruneKeepsTheKeyThatSealsAlone(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		path := create(t)
		oldest := sealed(t, load(t, path), "oldest", "name")
		rotateIn(t, path, 0)
		older := sealed(t, load(t, path), "older", "name")
		rotateIn(t, path, time.Hour)
		time.Sleep(time.Hour + seal.Settle)
		k := load(t, path)
		now := sealed(t, k, "now", "name")
		names, err := k.Name(secret.New("s"))
		if err != nil {
			t.Fatal(err)
		}
		var seen *seal.Keyset
		removed, err := seal.Prune(t.Context(), path, func(k *seal.Keyset) error {
			seen = k
			if _, err := seal.Rotate(t.Context(), path, 0); err == nil {
				t.Error("somebody else changes the file meanwhile")
			}
			return nil
		})
		if keys := k.Status().Keys; err != nil || !slices.Equal(removed, keys[:2]) {
			t.Errorf("removed %v of %v, error %v", removed, keys, err)
		}
		wantOpen(t, seen, oldest, "name", "oldest")
		wantPrivate(t, path)
		wantOnly(t, path)
		pruned := load(t, path)
		wantOpen(t, pruned, now, "name", "now")
		wantUnreadable(t, pruned, older, "name")
		wantUnreadable(t, pruned, oldest, "name")
		if s := pruned.Status(); !slices.Equal(s.Keys, []uint32{k.Status().Seals}) || !s.Since.IsZero() {
			t.Errorf("left is %+v", s)
		}
		if after, err := pruned.Name(secret.New("s")); err != nil || after != names {
			t.Error("secrets have other names")
		}
		// And again there is nothing to do, nor to look at.
		before := contentOf(t, path)
		if removed, err := seal.Prune(t.Context(), path, unseen); removed != nil || err != nil || !bytes.Equal(contentOf(t, path), before) {
			t.Errorf("again: removed %v, error %v", removed, err)
		}
		rotateIn(t, path, 0)
	})
}

func TestNothingIsPrunedTooEarlyOrAgainstAdvice(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		path := create(t)
		rotateIn(t, path, time.Hour)
		before := contentOf(t, path)
		for _, test := range []struct {
			name, says string
			wait       time.Duration
			look       func(*seal.Keyset) error
		}{
			{"does not seal yet", "not in effect yet", 0, unseen},
			{"a second before it seals", "not in effect yet", time.Hour - time.Second, unseen},
			{"clocks may be behind", "wait until 10m0s have passed", time.Second, unseen},
			{"a second before all clocks agree", "wait until 10m0s have passed", seal.Settle - time.Second, unseen},
			{"something is sealed with it", "still needed", time.Second, func(*seal.Keyset) error { return errors.New("still needed") }},
		} {
			time.Sleep(test.wait)
			if removed, err := seal.Prune(t.Context(), path, test.look); removed != nil || err == nil || !strings.Contains(err.Error(), test.says) {
				t.Errorf("%s: removed %v, error %v", test.name, removed, err)
			}
		}
		ctx, cancel := context.WithCancel(t.Context())
		_, err := seal.Prune(ctx, path, func(*seal.Keyset) error { cancel(); return ctx.Err() })
		if !errors.Is(err, context.Canceled) {
			t.Errorf("interrupted: %v", err)
		}
		if !bytes.Equal(contentOf(t, path), before) {
			t.Error("the file was changed")
		}
		wantOnly(t, path)
	})
}

func TestARecordOfAKeyThatIsGoneSaysSo(t *testing.T) {
	k := ephemeral(t)
	b := sealed(t, k, "plaintext", "name")
	_, err := ephemeral(t).Open(b, "name")
	if want := fmt.Sprintf("no key %d in the keyset", k.Status().Seals); !errors.Is(err, seal.ErrUnreadable) || !strings.Contains(err.Error(), want) {
		t.Errorf("Open = %v, want %q", err, want)
	}
	// Of another place, or edited: the key is there.
	if _, err := k.Open(b, "other"); !errors.Is(err, seal.ErrUnreadable) || strings.Contains(err.Error(), "no key") {
		t.Errorf("under another name: %v", err)
	}
}

func TestAFileThatEverybodyMayReadIsFound(t *testing.T) {
	path := create(t)
	for mode, want := range map[os.FileMode]bool{0o600: false, 0o440: false, 0o644: true, 0o604: true} {
		if err := os.Chmod(path, mode); err != nil {
			t.Fatal(err)
		}
		if got, err := seal.WorldReadable(path); got != want || err != nil {
			t.Errorf("%v: %v, %v", mode, got, err)
		}
		rotate(t, path)
		if info, err := os.Stat(path); err != nil || info.Mode() != mode {
			t.Errorf("rotation makes %v of %v (%v)", info.Mode(), mode, err)
		}
	}
	if _, err := seal.WorldReadable(path + "-missing"); !os.IsNotExist(err) {
		t.Errorf("a file that is missing: %v", err)
	}
}

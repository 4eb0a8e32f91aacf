package seal_test

import (
	"bytes"
	"encoding/hex"
	"errors"
	"path/filepath"
	"strings"
	"sync"
	"testing"

	"smokeball.internal/tokenbroker/internal/seal"
	"smokeball.internal/tokenbroker/internal/secret"
)

// create makes a keyset file and returns its path.
func create(t *testing.T) string {
	t.Helper()
	path := filepath.Join(t.TempDir(), "keyset.json")
	if err := seal.Create(t.Context(), path, ""); err != nil {
		t.Fatal(err)
	}
	return path
}

func load(t *testing.T, path string) *seal.Keyset {
	t.Helper()
	k, err := seal.Load(t.Context(), path)
	if err != nil {
		t.Fatal(err)
	}
	return k
}

func ephemeral(t *testing.T) *seal.Keyset {
	t.Helper()
	k, err := seal.Ephemeral()
	if err != nil {
		t.Fatal(err)
	}
	return k
}

func sealed(t *testing.T, k *seal.Keyset, plaintext, name string) []byte {
	t.Helper()
	b, err := k.Seal([]byte(plaintext), name)
	if err != nil {
		t.Fatal(err)
	}
	return b
}

func wantOpen(t *testing.T, k *seal.Keyset, b []byte, name, want string) {
	t.Helper()
	if got, err := k.Open(b, name); err != nil || string(got) != want {
		t.Errorf("Open = %q, %v, want %q", got, err, want)
	}
}

func wantUnreadable(t *testing.T, k *seal.Keyset, b []byte, name string) {
	t.Helper()
	if got, err := k.Open(b, name); got != nil || !errors.Is(err, seal.ErrUnreadable) {
		t.Errorf("Open = %q, %v, want nothing and ErrUnreadable", got, err)
	}
}

func TestWhatIsSealedOpensUnderItsOwnName(t *testing.T) {
	k := ephemeral(t)
	for _, plaintext := range []string{"", "x", strings.Repeat("planted-token ", 10_000)} {
		for _, name := range []string{"", "token:abc"} {
			b := sealed(t, k, plaintext, name)
			if len(plaintext) > 1 && bytes.Contains(b, []byte("planted")) {
				t.Error("what is sealed can be read")
			}
			if bytes.Equal(b, sealed(t, k, plaintext, name)) {
				t.Error("the same text sealed twice looks the same")
			}
			wantOpen(t, k, b, name, plaintext)
		}
	}
}

func TestSealedRecordIsRefusedUnderAnotherName(t *testing.T) {
	k := ephemeral(t)
	b := sealed(t, k, "plaintext", "token:abc")
	for _, name := range []string{"", "token:ab", "token:abcd", "token:abd", "Token:abc", "token:abc\x00"} {
		wantUnreadable(t, k, b, name)
	}
}

func TestSealedRecordIsRefusedWithAnyByteChanged(t *testing.T) {
	k := ephemeral(t)
	b := sealed(t, k, "plaintext", "name")
	for i := range b {
		for _, flip := range []byte{0x01, 0x80, 0xff} {
			changed := bytes.Clone(b)
			changed[i] ^= flip
			wantUnreadable(t, k, changed, "name")
		}
	}
	for i := range b {
		wantUnreadable(t, k, b[:i], "name")
	}
	wantUnreadable(t, k, append(bytes.Clone(b), 0), "name")
	wantUnreadable(t, k, nil, "name")
	wantUnreadable(t, k, []byte("plaintext"), "name")
}

func TestSealedRecordIsRefusedByAnotherKeyset(t *testing.T) {
	b := sealed(t, ephemeral(t), "plaintext", "name")
	wantUnreadable(t, ephemeral(t), b, "name")
	wantUnreadable(t, load(t, create(t)), b, "name")
}

func TestNameStandsForASecretWithoutShowingIt(t *testing.T) {
	path := create(t)
	k, again, other := load(t, path), load(t, path), load(t, create(t))
	name := func(k *seal.Keyset, s string) string {
		t.Helper()
		n, err := k.Name(secret.New(s))
		if err != nil {
			t.Fatal(err)
		}
		return n
	}
	n := name(k, "planted-secret")
	if raw, err := hex.DecodeString(n); err != nil || len(raw) != 16 {
		t.Errorf("Name = %q, want 32 hexadecimal digits", n)
	}
	if name(k, "planted-secret") != n || name(again, "planted-secret") != n {
		t.Error("the same secret has two names under one keyset file: its tokens would be bought again at each start")
	}
	if name(k, "planted-secret2") == n {
		t.Error("two secrets have one name")
	}
	// Else a name found in Redis could be looked up in a list of names of likely secrets.
	if name(other, "planted-secret") == n {
		t.Error("the name does not depend on the keyset")
	}
	if got := name(k, ""); got != "" {
		t.Errorf("no text has the name %q", got)
	}
}

func TestKeysetServesManyAtOnce(t *testing.T) {
	k := ephemeral(t)
	want, err := k.Name(secret.New("s"))
	if err != nil {
		t.Fatal(err)
	}
	var all sync.WaitGroup
	for range 8 {
		all.Go(func() {
			for range 50 {
				b, err := k.Seal([]byte("plaintext"), "name")
				if err != nil {
					t.Error(err)
					return
				}
				wantOpen(t, k, b, "name", "plaintext")
				if got, err := k.Name(secret.New("s")); err != nil || got != want {
					t.Errorf("Name = %q, %v, want %q", got, err, want)
				}
			}
		})
	}
	all.Wait()
}

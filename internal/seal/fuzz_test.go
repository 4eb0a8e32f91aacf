package seal_test

import (
	"bytes"
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"smokeball.internal/tokenbroker/internal/seal"
)

// Whatever stands where a sealed record should, nothing opens but the record
// itself, in its own place. What is given is tried as it is, behind the mark of
// the key that seals, and in the place of a part of a record.
func FuzzOpen(f *testing.F) {
	k, err := seal.Ephemeral()
	if err != nil {
		f.Fatal(err)
	}
	record, err := k.Seal([]byte("plaintext"), "name")
	if err != nil {
		f.Fatal(err)
	}
	f.Fuzz(func(t *testing.T, given []byte, at, length uint16, name string) {
		changed := bytes.Clone(record)
		copy(changed[int(at)%len(changed):], given)
		changed = changed[:min(int(length), len(changed))]
		for _, b := range [][]byte{given, append(bytes.Clone(record[:5]), given...), changed} {
			k.Current(b)
			got, err := k.Open(b, name)
			if bytes.Equal(b, record) && name == "name" {
				if string(got) != "plaintext" || err != nil {
					t.Errorf("the record itself: %q, %v", got, err)
				}
				continue
			}
			if got != nil || !errors.Is(err, seal.ErrUnreadable) {
				t.Errorf("%x under %q opens: %q, %v", b, name, got, err)
			}
		}
	})
}

// Whatever stands in a keyset file, it is a keyset that works or an error that
// quotes nothing. A KMS is not asked: nothing that can name one is tried.
func FuzzParse(f *testing.F) {
	path := filepath.Join(f.TempDir(), "keyset.json")
	if err := seal.Create(f.Context(), path, ""); err != nil {
		f.Fatal(err)
	}
	if _, err := seal.Rotate(f.Context(), path, time.Hour); err != nil {
		f.Fatal(err)
	}
	good, err := os.ReadFile(path)
	if err != nil {
		f.Fatal(err)
	}
	f.Add(good)
	f.Fuzz(func(t *testing.T, content []byte) {
		if bytes.Contains(content, []byte("aws-kms")) || bytes.Contains(content, []byte(`\`)) {
			return
		}
		k, err := seal.Parse(t.Context(), "file", content)
		if err != nil {
			if k != nil || !strings.HasPrefix(err.Error(), "keyset file: ") || len(err.Error()) > 150 {
				t.Errorf("Parse = %v, %v", k, err)
			}
			return
		}
		sealed, err := k.Seal([]byte("plaintext"), "name")
		if err != nil {
			t.Fatal(err)
		}
		if got, err := k.Open(sealed, "name"); err != nil || string(got) != "plaintext" || !k.Current(sealed) {
			t.Errorf("Open = %q, %v", got, err)
		}
	})
}

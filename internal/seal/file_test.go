package seal_test

import (
	"bytes"
	"encoding/json"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"smokeball.internal/tokenbroker/internal/seal"
	"smokeball.internal/tokenbroker/internal/secret"
)

func contentOf(t *testing.T, path string) []byte {
	t.Helper()
	b, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	return b
}

func write(t *testing.T, path string, content []byte) {
	t.Helper()
	if err := os.WriteFile(path, content, 0o600); err != nil {
		t.Fatal(err)
	}
}

// wantOnly fails if anything but path is left in its directory: a temporary file there would be a copy of the keys.
func wantOnly(t *testing.T, path string) {
	t.Helper()
	entries, err := os.ReadDir(filepath.Dir(path))
	if err != nil {
		t.Fatal(err)
	}
	if len(entries) != 1 || entries[0].Name() != filepath.Base(path) {
		t.Errorf("the directory holds %v, want only %s", entries, filepath.Base(path))
	}
}

func wantPrivate(t *testing.T, path string) {
	t.Helper()
	info, err := os.Stat(path)
	if err != nil {
		t.Fatal(err)
	}
	if info.Mode() != 0o600 {
		t.Errorf("the mode of the keyset file is %v, want -rw-------", info.Mode())
	}
}

// rotate adds a key that seals at once.
func rotate(t *testing.T, path string) {
	t.Helper()
	if _, err := seal.Rotate(t.Context(), path, 0); err != nil {
		t.Fatal(err)
	}
}

func TestNewKeysetFileIsReadableByItsOwnerOnly(t *testing.T) {
	path := create(t)
	wantPrivate(t, path)
	wantOnly(t, path)
	if other := create(t); bytes.Equal(contentOf(t, path), contentOf(t, other)) {
		t.Error("two new keysets are the same")
	}
}

func TestCreateNeverWritesOverAnything(t *testing.T) {
	dir := t.TempDir()
	aim := filepath.Join(t.TempDir(), "aim")
	write(t, filepath.Join(dir, "file"), []byte("precious"))
	if err := os.Mkdir(filepath.Join(dir, "dir"), 0o700); err != nil {
		t.Fatal(err)
	}
	// A link that dangles is something, too: to write through it would put the keys at a place somebody else chose.
	if err := os.Symlink(aim, filepath.Join(dir, "link")); err != nil {
		t.Fatal(err)
	}
	for _, name := range []string{"file", "dir", "link"} {
		if err := seal.Create(t.Context(), filepath.Join(dir, name), ""); err == nil || !strings.Contains(err.Error(), "exists") {
			t.Errorf("%s: Create = %v, want it refused because it exists", name, err)
		}
	}
	if got := contentOf(t, filepath.Join(dir, "file")); string(got) != "precious" {
		t.Errorf("the file now holds %q", got)
	}
	if _, err := os.Lstat(aim); err == nil {
		t.Error("the keyset was written where the link points")
	}
	if err := seal.Create(t.Context(), filepath.Join(dir, "no such directory", "keyset.json"), ""); err == nil {
		t.Error("a keyset was created in a directory that does not exist")
	}
}

func TestRotatedKeysetOpensWhatWasSealedBefore(t *testing.T) {
	path := create(t)
	var records [][]byte
	for range 3 {
		records = append(records, sealed(t, load(t, path), "plaintext", "name"))
		rotate(t, path)
		wantPrivate(t, path)
		wantOnly(t, path)
	}
	k := load(t, path)
	for _, b := range records {
		wantOpen(t, k, b, "name", "plaintext")
	}
}

func TestRotatedKeysetSealsWithTheNewKey(t *testing.T) {
	path := create(t)
	copied := filepath.Join(t.TempDir(), "copy.json")
	write(t, copied, contentOf(t, path))
	rotate(t, path)
	b := sealed(t, load(t, path), "plaintext", "name")
	wantUnreadable(t, load(t, copied), b, "name")
	wantOpen(t, load(t, path), b, "name", "plaintext")
}

func TestRotationKeepsTheNamesOfSecrets(t *testing.T) {
	path := create(t)
	before, err := load(t, path).Name(secret.New("client secret"))
	if err != nil {
		t.Fatal(err)
	}
	rotate(t, path)
	if after, err := load(t, path).Name(secret.New("client secret")); err != nil || after != before {
		t.Errorf("the name was %q and is %q (%v): every token would be bought again", before, after, err)
	}
}

// damaged are contents that are no keyset. Each that could be quoted holds the text "planted".
func damaged(t *testing.T) map[string][]byte {
	t.Helper()
	good := contentOf(t, create(t))
	var parts map[string]json.RawMessage
	if err := json.Unmarshal(good, &parts); err != nil {
		t.Fatal(err)
	}
	with := func(part, value string) []byte {
		changed := map[string]json.RawMessage{"aead": parts["aead"], "prf": parts["prf"], part: json.RawMessage(value)}
		b, err := json.Marshal(changed)
		if err != nil {
			t.Fatal(err)
		}
		return b
	}
	flipped := bytes.Replace(good, []byte(`"value":`), []byte(`"value":"planted*&",  "x":`), 1)
	if bytes.Equal(flipped, good) {
		t.Fatal("the form of the file has changed: nothing was damaged")
	}
	return map[string][]byte{
		"empty":                   {},
		"text":                    []byte("planted"),
		"a string":                []byte(`"planted"`),
		"cut off":                 good[:len(good)/2],
		"another object":          []byte(`{"planted":"planted"}`),
		"no prf":                  []byte(`{"aead":` + string(parts["aead"]) + `}`),
		"no aead":                 []byte(`{"prf":` + string(parts["prf"]) + `}`),
		"null aead":               with("aead", "null"),
		"aead of another form":    with("aead", `{"planted":"planted"}`),
		"aead without keys":       with("aead", `{"primaryKeyId":1,"key":[]}`),
		"prf without keys":        with("prf", `{"primaryKeyId":1,"key":[]}`),
		"prf of another form":     with("prf", `["planted"]`),
		"prf in place of aead":    with("aead", string(parts["prf"])),
		"aead in place of prf":    with("prf", string(parts["aead"])),
		"a key that is not one":   flipped,
		"a rotation of no key":    with("rotation", `{"previous_key_id":1,"effective_time":"2026-11-24T16:00:00Z"}`),
		"a rotation of text":      with("rotation", `"planted"`),
		"a time that is none":     with("rotation", `{"previous_key_id":1,"effective_time":"planted"}`),
		"a KMS that is none":      with("kms_key_uri", `"planted://planted"`),
		"a KMS that is not known": with("kms_key_uri", `"gcp-kms://projects/planted/locations/x/keyRings/x/cryptoKeys/x"`),
		"a key without a mark":    bytes.Replace(good, []byte(`"outputPrefixType": "TINK"`), []byte(`"outputPrefixType": "RAW"`), 1),
		"a value of another type": with("aead", `{"primaryKeyId":1,"key":[{"keyData":{"typeUrl":"planted","value":"cGxhbnRlZA==","keyMaterialType":"SYMMETRIC"},"status":"ENABLED","keyId":1,"outputPrefixType":"TINK"}]}`),
	}
}

func TestLoadRefusesADamagedFileWithoutQuotingIt(t *testing.T) {
	for name, content := range damaged(t) {
		t.Run(name, func(t *testing.T) {
			path := filepath.Join(t.TempDir(), "keyset.json")
			write(t, path, content)
			k, err := seal.Load(t.Context(), path)
			if k != nil || err == nil {
				t.Fatalf("Load = %v, %v", k, err)
			}
			if !strings.Contains(err.Error(), path) {
				t.Errorf("the error does not say which file: %v", err)
			}
			said := strings.ReplaceAll(err.Error(), path, "")
			for _, part := range append(bytes.Fields(content), []byte("planted"), []byte("cGxhbnRlZA")) {
				if len(part) > 6 && strings.Contains(said, strings.Trim(string(part), `",`)) {
					t.Errorf("the error quotes the file: %v", err)
				}
			}
		})
	}
}

func TestRotateLeavesADamagedFileAsItIs(t *testing.T) {
	for name, content := range damaged(t) {
		t.Run(name, func(t *testing.T) {
			path := filepath.Join(t.TempDir(), "keyset.json")
			write(t, path, content)
			if _, err := seal.Rotate(t.Context(), path, 0); err == nil {
				t.Error("Rotate took it for a keyset")
			}
			if !bytes.Equal(contentOf(t, path), content) {
				t.Error("the file was changed")
			}
			wantOnly(t, path)
		})
	}
}

func TestMissingFileIsSaidToBeMissing(t *testing.T) {
	path := filepath.Join(t.TempDir(), "keyset.json")
	if _, err := seal.Load(t.Context(), path); !os.IsNotExist(err) {
		t.Errorf("Load = %v", err)
	}
	if _, err := seal.Rotate(t.Context(), path, 0); !os.IsNotExist(err) {
		t.Errorf("Rotate = %v", err)
	}
	if _, err := os.Lstat(path); err == nil {
		t.Error("Rotate made a new keyset in place of the missing one")
	}
}

// A file that cannot be replaced stays as it is, and usable. The file's name is nearly as long as a name may be, so that
// there is none for the file beside it: unlike permission bits, that stops root too.
func TestRotateLeavesAFileItCannotReplace(t *testing.T) {
	path := filepath.Join(t.TempDir(), strings.Repeat("k", 250))
	if err := seal.Create(t.Context(), path, ""); err != nil {
		t.Fatal(err)
	}
	before := contentOf(t, path)
	b := sealed(t, load(t, path), "plaintext", "name")
	if _, err := seal.Rotate(t.Context(), path, 0); err == nil {
		t.Error("Rotate says that it replaced the file")
	}
	if !bytes.Equal(contentOf(t, path), before) {
		t.Error("the file was changed")
	}
	wantOnly(t, path)
	wantOpen(t, load(t, path), b, "name", "plaintext")
}

package redisstore_test

import (
	"crypto/sha256"
	"errors"
	"fmt"
	"io"
	"regexp"
	"slices"
	"strings"
	"testing"
	"testing/iotest"

	"smokeball.internal/tokenbroker/internal/redisstore"
)

const (
	header = `{"format":"tokenbroker-tenants","version":1,"created":"2026-11-24T03:00:00Z","prefix":"fleet:","registry":"0123456789abcdef01234567"}`
	acme   = `{"id":"acme","record":"MDEyMzQ1Njc4OWFiY2RlZjAxMjM0NTY3LnBsYW50ZWQ="}`
	globex = `{"id":"globex","record":"MDEyMzQ1Njc4OWFiY2RlZjAxMjM0NTY4LnBsYW50ZWQ="}`
)

// summed ends lines as a backup ends.
func summed(lines ...string) string {
	body := strings.Join(lines, "\n") + "\n"
	return fmt.Sprintf("%s{\"count\":%d,\"sha256\":\"%x\"}\n", body, len(lines)-1, sha256.Sum256([]byte(body)))
}

func TestWhatIsNoWholeBackupIsRefused(t *testing.T) {
	t.Parallel()
	whole := summed(header, acme, globex)
	if _, err := redisstore.ReadBackup(strings.NewReader(whole)); err != nil {
		t.Fatal(err)
	}
	other := summed(header, strings.Replace(acme, "acme", "initech", 1))
	lines := func(file string) []string { return strings.SplitAfter(file, "\n") }
	for _, test := range []struct {
		name, file string
		want       error
	}{
		{"nothing", "", redisstore.ErrNoBackup},
		{"something else", "firm,secret\nacme,planted\n", redisstore.ErrNoBackup},
		{"JSON of something else", `{"aead":{"key":"planted"}}` + "\n", redisstore.ErrNoBackup},
		{"another format", summed(strings.Replace(header, "tokenbroker-tenants", "planted", 1), acme), redisstore.ErrNoBackup},
		{"no version", summed(strings.Replace(header, `"version":1`, `"version":0`, 1), acme), redisstore.ErrNoBackup},
		{"a newer version", summed(strings.Replace(header, `"version":1`, `"version":2`, 1), `{"planted":1}`), redisstore.ErrNewerBackup},
		{"no header", strings.Join(lines(whole)[1:], ""), redisstore.ErrNoBackup},
		{"a record less", strings.Replace(whole, acme+"\n", "", 1), redisstore.ErrDamagedBackup},
		{"a record of another", strings.Replace(whole, acme, lines(other)[1], 1), redisstore.ErrDamagedBackup},
		{"the end of another", lines(whole)[0] + lines(whole)[1] + lines(whole)[2] + lines(other)[2], redisstore.ErrDamagedBackup},
		{"two of them", whole + other, redisstore.ErrDamagedBackup},
		{"the same twice", whole + whole, redisstore.ErrDamagedBackup},
		{"a line more", whole + "\n", redisstore.ErrDamagedBackup},
		{"other ends of lines", strings.ReplaceAll(whole, "\n", "\r\n"), redisstore.ErrDamagedBackup},
		{"a tenant twice", summed(header, acme, acme), redisstore.ErrDamagedBackup},
		{"another order", summed(header, globex, acme), redisstore.ErrDamagedBackup},
		{"no tenant's id", summed(header, strings.Replace(acme, "acme", `pl\u001b[2Janted`, 1)), redisstore.ErrDamagedBackup},
		{"no id", summed(header, `{"record":"cGxhbnRlZA=="}`), redisstore.ErrDamagedBackup},
		{"no base64", summed(header, `{"id":"acme","record":"planted!"}`), redisstore.ErrDamagedBackup},
	} {
		backup, err := redisstore.ReadBackup(strings.NewReader(test.file))
		if !errors.Is(err, test.want) || backup != nil {
			t.Errorf("%s: %v", test.name, err)
			continue
		}
		wantNothingQuoted(t, err)
	}
	for n := range len(whole) {
		if _, err := redisstore.ReadBackup(strings.NewReader(whole[:n])); err == nil {
			t.Errorf("the first %d bytes of %d are read", n, len(whole))
		}
		for bit := range 8 {
			changed := []byte(whole)
			changed[n] ^= 1 << bit
			if _, err := redisstore.ReadBackup(strings.NewReader(string(changed))); err == nil {
				t.Errorf("bit %d of byte %d changed: read", bit, n)
			} else {
				wantNothingQuoted(t, err)
			}
		}
	}
}

// What cannot be read is not taken for damage.
func TestAnErrorOfTheDiskIsTold(t *testing.T) {
	t.Parallel()
	broken := errors.New("disk broken")
	whole := summed(header, acme)
	for n := range len(whole) + 1 {
		_, err := redisstore.ReadBackup(io.MultiReader(strings.NewReader(whole[:n]), iotest.ErrReader(broken)))
		if !errors.Is(err, broken) {
			t.Fatalf("after %d bytes: %v", n, err)
		}
	}
}

// A file made by hand has a sum that is right; what counts is that it opens.
func TestARecordOfAnotherTenantIsNotImported(t *testing.T) {
	onBoth(t, func(t *testing.T, f *fixture) {
		for _, id := range []string{"a", "b"} {
			f.create(t, newTenant(id))
		}
		file, _ := export(t, f.Store)
		lines := strings.Split(file, "\n")
		forged := summed(lines[0], lines[1], strings.Replace(lines[1], `"id":"a"`, `"id":"c"`, 1))
		f.flush(t)
		wantImported(t, f.Store, forged, redisstore.ImportOptions{}, redisstore.Imported{Created: 1, Unreadable: []string{"c"}})
		// The version is what decides whether a tenant is there already.
		version := regexp.MustCompile(`"record":"....`)
		forged = summed(lines[0], version.ReplaceAllString(lines[1], `"record":"MDAw`))
		if done, err := f.Import(t.Context(), readBackup(t, forged), redisstore.ImportOptions{}); !errors.Is(err, redisstore.ErrWrongKeyset) {
			t.Errorf("with another version: %+v, %v", done, err)
		}
		elsewhere := summed(strings.Replace(lines[0], prefix, "planted:", 1), lines[1], lines[2])
		if done, err := f.Import(t.Context(), readBackup(t, elsewhere), redisstore.ImportOptions{}); !errors.Is(err, redisstore.ErrWrongKeyset) {
			t.Errorf("with another prefix in the header: %+v, %v", done, err)
		}
	})
}

var known = []*regexp.Regexp{
	regexp.MustCompile(`^this is no backup of tenants$`),
	regexp.MustCompile(`^the backup has a newer format than this program reads \(1\)$`),
	regexp.MustCompile(`^the backup is damaged: (its end is missing|its tenant \d+ is none|its sum or its count is another|more follows its end)$`),
}

func wantNothingQuoted(t *testing.T, err error) {
	t.Helper()
	if !slices.ContainsFunc(known, func(r *regexp.Regexp) bool { return r.MatchString(err.Error()) }) {
		t.Errorf("the error says %q", err)
	}
}

func FuzzReadBackup(f *testing.F) {
	for _, seed := range []string{"", "\n", header, header + "\n", summed(header), summed(header, acme), summed(header, acme, globex),
		summed(strings.Replace(header, `1`, `2`, 1)), summed(header, acme) + summed(header)} {
		f.Add([]byte(seed))
	}
	f.Fuzz(func(t *testing.T, content []byte) {
		backup, err := redisstore.ReadBackup(strings.NewReader(string(content)))
		if (backup == nil) != (err != nil) {
			t.Fatalf("both or neither: %v, %v", backup, err)
		}
		if err != nil {
			wantNothingQuoted(t, err)
			return
		}
		// The sum of what was before the last line is in it.
		lines := strings.Split(strings.TrimSuffix(string(content), "\n"), "\n")
		if string(content) != summed(lines[:len(lines)-1]...) {
			t.Error("read, and not what was written")
		}
	})
}

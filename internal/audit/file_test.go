package audit_test

import (
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"

	"smokeball.internal/tokenbroker/internal/audit"
)

// logPath returns where a log may be made.
func logPath(t testing.TB) string { return filepath.Join(t.TempDir(), "audit.log") }

func put(t testing.TB, path, text string) {
	t.Helper()
	if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
}

// session writes n changes to a log in a file, from start to stop.
func session(t testing.TB, path string, n int) {
	t.Helper()
	l := run(t, audit.Config{Sink: "file:" + path})
	for i := range n {
		l.change(t, fmt.Sprint("tenants/firm-", i))
	}
	l.stop()
}

func TestAFileIsItsOwnersAloneAndGoesOn(t *testing.T) {
	t.Parallel()
	path := logPath(t)
	for range 3 {
		session(t, path, 2)
	}
	info, err := os.Stat(path)
	if err != nil || info.Mode().Perm() != 0o600 {
		t.Errorf("%v, %v", info.Mode(), err)
	}
	report := wantSound(t, content(t, path))
	if len(report.Writers) != 1 || report.Writers[0].LastSeq != 12 || report.Writers[0].Crashes != 0 || !report.Writers[0].Stopped {
		t.Errorf("%+v", report.Writers[0])
	}
}

func TestAFileBelongsToOneLog(t *testing.T) {
	t.Parallel()
	path := logPath(t)
	l := run(t, audit.Config{Sink: "file:" + path})
	l.change(t, "tenants/acme")
	_, err := audit.Open(audit.Config{Sink: "file:" + path})
	if err == nil || !strings.Contains(err.Error(), path+": another process writes to it") {
		t.Errorf("opened twice: %v", err)
	}
	l.stop()
	session(t, path, 1)
	wantSound(t, content(t, path))
}

func TestManyMayWriteAtOnce(t *testing.T) {
	t.Parallel()
	path := logPath(t)
	l := run(t, audit.Config{Sink: "file:" + path})
	var writers sync.WaitGroup
	for n := range 8 {
		writers.Go(func() {
			for i := range 200 {
				_ = l.Decision(audit.Record{TokenID: fmt.Sprint("decision-", n, "-", i)})
				if i%20 == 0 {
					l.change(t, fmt.Sprint("change-", n, "-", i))
				}
				_ = l.Stats()
			}
		})
	}
	writers.Wait()
	l.stop()
	text := content(t, path)
	if report := wantSound(t, text); report.Records != 2+8*200+8*10 {
		t.Errorf("%d records", report.Records)
	}
	for n := range 8 { // Each caller's are in the order in which it has made them.
		at := 0
		for i := range 200 {
			next := strings.Index(text[at:], fmt.Sprintf(`"decision-%d-%d"`, n, i))
			if next < 0 {
				t.Fatalf("decision %d of %d is not behind the one before", i, n)
			}
			at += next
		}
	}
	if stats := l.Stats(); stats != (audit.Stats{Written: 8*200 + 8*10}) {
		t.Errorf("%+v", stats)
	}
}

func TestATornEndIsAcceptedIfItIsAnnounced(t *testing.T) {
	t.Parallel()
	path := logPath(t)
	session(t, path, 2)
	whole := content(t, path)
	last := strings.LastIndex(strings.TrimSuffix(whole, "\n"), "\n") + 1
	for end := last; end <= len(whole); end++ {
		put(t, path, whole[:end])
		left := whole[last:end]
		// All is there, but for the newline perhaps; or nothing of the line.
		isTorn := len(left) > 0 && end < len(whole)-1
		if torn := verify(t, audit.VerifyOptions{}, whole[:end]); (len(torn.Findings) == 1) != isTorn {
			t.Fatalf("after %d bytes and before the restart: %q", len(left), torn.Findings)
		}
		session(t, path, 1)
		report := wantSound(t, content(t, path))
		var notes []string
		if isTorn {
			notes = append(notes, "a: line 4: is not a whole record, but what a crash has left: line 5 says so")
		}
		if end < len(whole)-1 {
			notes = append(notes, fmt.Sprintf("a: line %d: begins a process where the one before had not said that it stops: it crashed, or could not write any more", 4+len(notes)))
		}
		if !slices.Equal(report.Notes, notes) {
			t.Fatalf("after %d bytes: notes: %q, want %q", len(left), report.Notes, notes)
		}
		if !isTorn {
			continue
		}
		// What was left may not be changed either.
		begin := whole[:last]
		after := content(t, path)[end:]
		for what, changed := range map[string]string{
			"removed":         begin + after[1:],
			"another":         begin + "#" + left[1:] + after,
			"longer":          begin + left + "#" + after,
			"with a line":     begin + left + "\n" + after,
			"the whole":       whole + after[1:],
			"somewhere else":  begin + after[1:] + left + "\n",
			"of another line": begin + whole[:len(left)] + "x" + after,
		} {
			if report := verify(t, audit.VerifyOptions{}, changed); len(report.Findings) == 0 {
				t.Errorf("after %d bytes: what was left is %s, and that is not found", len(left), what)
			}
		}
	}
}

func TestACrashDuringTheAnnouncementIsAnnouncedToo(t *testing.T) {
	t.Parallel()
	path := logPath(t)
	session(t, path, 1)
	whole := content(t, path)
	for _, left := range []string{"\n", `{"cha`, `{"cha` + "\n", `{"chain":"12` + "\n" + `{"chain":"34`, `{"chain":"12` + "\n" + `{"chain":"34` + "\n", strings.Repeat("\x00", 1<<20)} {
		put(t, path, whole+left)
		session(t, path, 1)
		if report := wantSound(t, content(t, path)); len(report.Notes) != 1 {
			t.Errorf("%q: notes: %q", left, report.Notes)
		}
	}
	// There may be no record before it.
	for _, left := range []string{`{`, `{"chain":"12`, `{"chain":"12` + "\n"} {
		put(t, path, left)
		session(t, path, 1)
		wantSound(t, content(t, path))
	}
}

func TestALastRecordThatWasChangedIsNotHiddenByARestart(t *testing.T) {
	t.Parallel()
	path := logPath(t)
	session(t, path, 2)
	whole := content(t, path)
	for name, text := range map[string]string{
		"edited": strings.Replace(whole, `"stop"`, `"step"`, 1), "edited, without a newline": strings.TrimSuffix(strings.Replace(whole, `"stop"`, `"step"`, 1), "\n"),
	} {
		put(t, path, text)
		var log journal
		l := run(t, audit.Config{Sink: "file:" + path, Logger: log.logger()})
		l.change(t, "tenants/acme")
		l.stop()
		wantFindings(t, verify(t, audit.VerifyOptions{}, content(t, path)), "a: line 4: was changed after it was written (seq 4, as it says now)")
		if said := log.said("the last record of the audit file was changed after it was written"); len(said) != 1 || said[0]["seq"] != 4.0 {
			t.Errorf("%s: said %v", name, said)
		}
	}
}

func TestWhatIsNoAuditLogIsNotWrittenTo(t *testing.T) {
	t.Parallel()
	whole := written(t, 1)
	for name, text := range map[string]string{
		"another file":         "127.0.0.1 localhost\n",
		"something else":       "planted",
		"a newline":            "\n",
		"a long one":           strings.Repeat("planted\n", 1<<20),
		"a long end":           whole + strings.Repeat("planted\n", 1<<20),
		"a long one alike":     strings.Repeat(`{"chain":"12345`+"\n", 1<<19),
		"a last line unlinked": strings.Replace(whole, `"seq":3`, `"seq":x`, 1),
	} {
		path := logPath(t)
		put(t, path, text)
		_, err := audit.Open(audit.Config{Sink: "file:" + path})
		if err == nil || !strings.Contains(err.Error(), path) || strings.Contains(err.Error(), "planted") {
			t.Errorf("%s: %v", name, err)
		}
		if content(t, path) != text {
			t.Errorf("%s was written to", name)
		}
	}
	for _, path := range []string{t.TempDir(), "/dev/null", filepath.Join(t.TempDir(), "missing", "audit.log")} {
		if _, err := audit.Open(audit.Config{Sink: "file:" + path}); err == nil {
			t.Errorf("%s is opened", path)
		}
	}
}

func TestRotationLosesNothing(t *testing.T) {
	t.Parallel()
	for name, rotate := range map[string]func(path, old string) error{
		"renamed": os.Rename,
		"renamed and another created": func(path, old string) error {
			if err := os.Rename(path, old); err != nil {
				return err
			}
			return os.WriteFile(path, nil, 0o640)
		},
		"linked and removed": func(path, old string) error {
			if err := os.Link(path, old); err != nil {
				return err
			}
			return os.Remove(path)
		},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			path := logPath(t)
			l := run(t, audit.Config{Sink: "file:" + path})
			var texts []string
			for n := range 3 {
				old := fmt.Sprint(path, ".", n)
				l.change(t, "tenants/before")
				if err := rotate(path, old); err != nil {
					t.Fatal(err)
				}
				l.change(t, "tenants/after")
				if err := l.Decision(decision()); err != nil {
					t.Fatal(err)
				}
				texts = append(texts, content(t, old))
			}
			l.stop()
			texts = append(texts, content(t, path))
			report := wantSound(t, texts...)
			if report.Records != 2+9 || len(report.Writers) != 1 || !report.Writers[0].Stopped || len(report.Notes) > 0 {
				t.Errorf("%+v", report)
			}
			// And a restart goes on with the newest file.
			session(t, path, 1)
			texts[3] = content(t, path)
			wantSound(t, texts...)
			if report := wantSound(t, texts[2], texts[3]); len(report.Notes) != 1 {
				t.Errorf("notes: %q", report.Notes)
			}
		})
	}
}

func TestCopyingAndTruncatingIsSeenToLoseRecords(t *testing.T) {
	t.Parallel()
	path := logPath(t)
	l := run(t, audit.Config{Sink: "file:" + path})
	l.change(t, "tenants/copied")
	old := content(t, path)
	l.change(t, "tenants/lost")
	if err := os.Truncate(path, 0); err != nil {
		t.Fatal(err)
	}
	l.change(t, "tenants/kept")
	l.stop()
	wantFindings(t, verify(t, audit.VerifyOptions{}, old, content(t, path)), "b: line 1: seq 3 is missing (after 2 comes 4)")
}

func TestAFileThatAnotherHoldsIsNotRotatedInto(t *testing.T) {
	t.Parallel()
	path := logPath(t)
	other := run(t, audit.Config{Sink: "file:" + path + ".other"})
	other.change(t, "tenants/acme")
	var log journal
	l := run(t, audit.Config{Sink: "file:" + path, Logger: log.logger()})
	l.change(t, "tenants/acme")
	for _, rename := range [][2]string{{path, path + ".1"}, {path + ".other", path}} {
		if err := os.Rename(rename[0], rename[1]); err != nil {
			t.Fatal(err)
		}
	}
	if err := l.Change(t.Context(), audit.Record{Tenant: "tenants/late"}); err == nil {
		t.Error("written to the other's file")
	}
	if len(log.said("audit records cannot be written")) == 0 {
		t.Error("nothing is said")
	}
	if err := os.Rename(path, path+".other"); err != nil {
		t.Fatal(err)
	}
	l.change(t, "tenants/acme")
	l.stop()
	other.stop()
	wantSound(t, content(t, path+".1"), content(t, path))
	wantSound(t, content(t, path+".other"))
}

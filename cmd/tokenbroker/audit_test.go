package main_test

import (
	"context"
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"smokeball.internal/tokenbroker/internal/audit"
)

// auditLog returns a log in a file that was rotated after the second of three
// changes, and the lines of both files.
func auditLog(t *testing.T) (rotated, current string, lines []string) {
	t.Helper()
	current = filepath.Join(t.TempDir(), "audit.log")
	rotated = current + ".1"
	l, err := audit.Open(audit.Config{Sink: "file:" + current})
	if err != nil {
		t.Fatal(err)
	}
	ctx, stop := context.WithCancel(t.Context())
	ended := make(chan struct{})
	go func() { defer close(ended); l.Run(ctx) }()
	for n := range 3 {
		if n == 2 {
			if err := os.Rename(current, rotated); err != nil {
				t.Fatal(err)
			}
		}
		if err := l.Change(ctx, audit.Record{Event: "change", Tenant: fmt.Sprint("tenants/firm-", n)}); err != nil {
			t.Fatal(err)
		}
	}
	stop()
	<-ended
	return rotated, current, strings.SplitAfter(read(t, rotated)+read(t, current), "\n")
}

func read(t *testing.T, path string) string {
	t.Helper()
	b, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	return string(b)
}

// summary is what the verb says of the writer of lines.
func summary(t *testing.T, end string, lines ...string) string {
	t.Helper()
	type record struct {
		Chain, Time, Hash string
		Seq               int
	}
	var first, last record
	if err := json.Unmarshal([]byte(lines[0]), &first); err != nil {
		t.Fatal(err)
	}
	if err := json.Unmarshal([]byte(lines[len(lines)-1]), &last); err != nil {
		t.Fatal(err)
	}
	return fmt.Sprintf("writer %s: seq %d to %d, %s to %s, head %s, %s\n", first.Chain, first.Seq, last.Seq, first.Time, last.Time, last.Hash, end)
}

func TestAnAuditLogIsVerified(t *testing.T) {
	t.Parallel()
	const clean, cut = "ended cleanly", "no stop record: it runs, or crashed, or its end was cut off"
	rotated, current, lines := auditLog(t) // seq 1 to 5
	var records []struct{ Hash string }
	for _, line := range lines[:5] {
		records = append(records, struct{ Hash string }{})
		if err := json.Unmarshal([]byte(line), &records[len(records)-1]); err != nil {
			t.Fatal(err)
		}
	}
	whole := summary(t, clean, lines[:5]...)
	file := func(name string, lines ...string) string {
		path := filepath.Join(t.TempDir(), name)
		if err := os.WriteFile(path, []byte(strings.Join(lines, "")), 0o600); err != nil {
			t.Fatal(err)
		}
		return path
	}
	missing, edited, empty := file("missing", lines[0], lines[2]), file("edited", lines[0], strings.Replace(lines[1], "firm-0", "firm-9", 1)), file("empty")
	const counts = "records %d, writers 1, with something before them %d, other lines %d, findings %d\n"
	const failed = "tokenbroker: the audit log is not as it was written\n"
	for _, test := range []struct {
		name           string
		stdin          string
		args           []string
		stdout, stderr string
		code           int
	}{
		{"two files", "", []string{rotated, current}, whole + fmt.Sprintf(counts, 5, 0, 0, 0), "", 0},
		{"with its head", "", []string{rotated, current, "--head", records[4].Hash, "--head", records[1].Hash}, whole + fmt.Sprintf(counts, 5, 0, 0, 0), "", 0},
		{"with its head in what is not there", "", []string{rotated, "--head", records[4].Hash}, summary(t, cut, lines[:3]...) + fmt.Sprintf(counts, 3, 0, 0, 1),
			"no record has the hash " + records[4].Hash + ": it was removed, or all from some record on was written anew\n" + failed, 1},
		{"the newer alone", "", []string{current},
			current + ": line 1: is the first of its writer, with seq 4: what was before is in none of these files\n" + summary(t, clean, lines[3:5]...) + fmt.Sprintf(counts, 2, 0, 0, 0), "", 0},
		{"standard input", strings.Join(lines, ""), []string{"-"}, whole + fmt.Sprintf(counts, 5, 0, 0, 0), "", 0},
		{"what was collected", "starting\nhost: " + strings.Join(lines[:5], "host: "), []string{"-", "--mixed"}, whole + fmt.Sprintf(counts, 5, 5, 1, 0), "", 0},
		{"one is missing", "", []string{missing}, summary(t, cut, lines[0], lines[2]) + fmt.Sprintf(counts, 2, 0, 0, 1),
			missing + ": line 2: seq 2 is missing (after 1 comes 3)\n" + failed, 1},
		{"one is edited", "", []string{edited}, summary(t, cut, lines[0]) + fmt.Sprintf(counts, 1, 0, 0, 1),
			edited + ": line 2: was changed after it was written (seq 2, as it says now)\n" + failed, 1},
		{"many lines are something else", strings.Join(lines, "") + strings.Repeat("x\n", 25), []string{"-"}, whole + fmt.Sprintf(counts, 5, 0, 0, 25), "", 1},
		{"nothing", "", []string{empty}, "records 0, writers 0, with something before them 0, other lines 0, findings 1\n", "there is no record\n" + failed, 1},
		{"no file", "", []string{empty + ".log"}, "", "tokenbroker: open " + empty + ".log: no such file or directory\n", 1},
		{"no argument", "", nil, "", "tokenbroker: expected \"<file> ...\"\nTry \"tokenbroker --help\".\n", 2},
	} {
		t.Run(test.name, func(t *testing.T) {
			t.Parallel()
			stdout, stderr, code := verb(t, test.stdin, append([]string{"audit", "verify"}, test.args...)...)
			if test.name == "many lines are something else" {
				if n := strings.Count(stderr, ": is no record\n"); n != 20 || !strings.Contains(stderr, "and 5 findings more\n") {
					t.Errorf("says %s", stderr)
				}
				test.stderr = stderr
			}
			if stdout != test.stdout || stderr != test.stderr || code != test.code {
				t.Errorf("exit code %d\n%s\n%s\nwant %d\n%s\n%s", code, stdout, stderr, test.code, test.stdout, test.stderr)
			}
		})
	}
}

package audit_test

import (
	"bytes"
	"crypto/sha256"
	"errors"
	"fmt"
	"io"
	"runtime"
	"slices"
	"strings"
	"testing"
	"testing/iotest"

	"smokeball.internal/tokenbroker/internal/audit"
)

// wantFindings verifies texts, of which exactly this must be found.
func wantFindings(t *testing.T, report *audit.Report, findings ...string) {
	t.Helper()
	if !slices.Equal(report.Findings, findings) {
		t.Errorf("findings:\n%s\nwant:\n%s", strings.Join(report.Findings, "\n"), strings.Join(findings, "\n"))
	}
}

// head returns the hash of a line.
func head(line string) string {
	_, hash, _ := strings.Cut(line, `"hash":"`)
	return hash[:64]
}

// forge returns line with old replaced by new and a hash that is right for it.
func forge(line, old, replacement string) string {
	body, _, _ := strings.Cut(strings.Replace(line, old, replacement, 1), `,"hash":"`)
	return fmt.Sprintf("%s,\"hash\":\"%x\"}\n", body, sha256.Sum256([]byte(body)))
}

func TestEachChangeOfALogIsFound(t *testing.T) {
	t.Parallel()
	lines := strings.SplitAfter(strings.TrimSuffix(written(t, 8), "\n"), "\n") // seq 1 to 10 in lines 1 to 10
	lines[9] += "\n"
	edited := strings.Replace(lines[4], "tenants/acme", "tenants/evil", 1)
	forged := forge(lines[4], "tenants/acme", "tenants/evil")
	other := strings.SplitAfter(written(t, 8), "\n")
	replace := func(i int, line ...string) []string { return slices.Concat(lines[:i], line, lines[i+1:]) }
	for _, test := range []struct {
		name     string
		lines    []string
		findings []string
		notes    int
		stopped  bool
	}{
		{"nothing", lines, nil, 0, true},
		{"the first is removed", lines[1:], nil, 1, true},
		{"one is removed", replace(4), []string{"a: line 5: seq 5 is missing (after 4 comes 6)"}, 0, true},
		{"two are removed", slices.Concat(lines[:4], lines[6:]), []string{"a: line 5: seq 5 to 6 are missing (after 4 comes 7)"}, 0, true},
		{"the last is removed", lines[:9], nil, 0, false},
		{"one is edited", replace(4, edited), []string{"a: line 5: was changed after it was written (seq 5, as it says now)"}, 0, true},
		{"one is edited and its hash is right", replace(4, forged), []string{"a: line 6: seq 6 was written after another seq 5 than the one that is there"}, 0, true},
		{"one is edited and the next removed", slices.Concat(lines[:4], []string{edited}, lines[6:]), []string{
			"a: line 5: was changed after it was written (seq 5, as it says now)",
			"a: line 6: seq 5 to 6 are missing (after 4 comes 7)"}, 0, true},
		{"the seq of one is edited", replace(4, strings.Replace(lines[4], `"seq":5`, `"seq":9`, 1)), []string{"a: line 5: was changed after it was written (seq 9, as it says now)"}, 0, true},
		{"the chain of one is edited", replace(4, `{"chain":"00000000`+lines[4][18:]), []string{"a: line 5: was changed after it was written (seq 5, as it says now)"}, 0, true},
		{"the hash of one is edited", replace(4, strings.Replace(lines[4], head(lines[4]), head(lines[5]), 1)), []string{"a: line 5: was changed after it was written (seq 5, as it says now)"}, 0, true},
		{"one is no JSON any more", replace(4, strings.Replace(lines[4], `"event"`, `"event`, 1)), []string{"a: line 5: was changed after it was written"}, 0, true},
		{"one is no JSON any more and its hash is right", replace(4, forge(lines[4], `"event"`, `"event`)), []string{"a: line 5: was changed after it was written"}, 0, true},
		{"one is of no writer and its hash is right", replace(4, forge(lines[4], `"chain":"`, `"chain":"\u001b`)), []string{"a: line 5: was changed after it was written"}, 0, true},
		{"one is before the first and its hash is right", append([]string{forge(lines[0], `"seq":1`, `"seq":0`)}, lines...), []string{"a: line 1: was changed after it was written"}, 0, true},
		{"one is of no time and its hash is right", replace(4, forge(lines[4], `"time":"2`, `"time":"x`)), []string{"a: line 5: was changed after it was written (seq 5, as it says now)"}, 0, true},
		{"one is cut off", replace(4, lines[4][:50]+"\n"), []string{"a: line 5: is not a whole record"}, 0, true},
		{"the last is cut off", replace(9, lines[9][:50]), []string{"a: line 10: is not a whole record"}, 0, false},
		{"one is emptied", replace(4, "\n"), []string{"a: line 5: is no record"}, 0, true},
		{"one is made something else", replace(4, "2026-11-24 nothing happened\n"), []string{"a: line 5: is no record"}, 0, true},
		{"one is made long", replace(4, strings.Repeat("x", 200_000)+"\n"), []string{"a: line 5: is longer than any record"}, 0, true},
		{"two are swapped", slices.Concat(lines[:4], []string{lines[5], lines[4]}, lines[6:]), []string{
			"a: line 5: seq 5 is missing (after 4 comes 6)",
			"a: line 6: has seq 5 behind seq 6: it was moved or inserted"}, 0, true},
		{"one is moved", slices.Concat(lines[:2], lines[3:7], lines[2:3], lines[7:]), []string{
			"a: line 3: seq 3 is missing (after 2 comes 4)",
			"a: line 7: has seq 3 behind seq 7: it was moved or inserted"}, 0, true},
		{"one is there twice", replace(4, lines[4], lines[4]), []string{"a: line 6: has seq 5 once more"}, 0, true},
		{"an old one is there again", replace(4, lines[4], lines[2]), []string{"a: line 6: has seq 3 behind seq 5: it was moved or inserted"}, 0, true},
		{"one is inserted", replace(4, lines[4], forged), []string{"a: line 6: has seq 5 behind seq 5: it was moved or inserted"}, 0, true},
		{"one with a wrong hash is inserted", replace(4, lines[4], edited), []string{"a: line 6: was changed after it was written (seq 5, as it says now)"}, 0, true},
		{"one of another is inserted", replace(4, lines[4], other[4]), nil, 1, true},
		{"the start of another is inserted", replace(4, lines[4], forge(other[0], `"prev":"0`, `"prev":"1`)), []string{
			"a: line 6: has seq 1 and says that there was a record before [writer " + other[0][10:18] + "]"}, 0, true},
		{"two are on one line", replace(4, strings.TrimSuffix(lines[4], "\n")), []string{
			"a: line 5: has the beginning of another record before its own",
		}, 0, true},
		{"all is removed", nil, []string{"there is no record"}, 0, false},
		{"the end is written anew", replace(9, forge(lines[9], `"stop"`, `"stop","tenant":"x"`)), nil, 0, true},
	} {
		t.Run(test.name, func(t *testing.T) {
			t.Parallel()
			report := verify(t, audit.VerifyOptions{}, strings.Join(test.lines, ""))
			wantFindings(t, report, test.findings...)
			if len(report.Notes) != test.notes {
				t.Errorf("notes: %q", report.Notes)
			}
			if len(report.Writers) > 0 && report.Writers[0].Stopped != test.stopped {
				t.Errorf("stopped: %t", report.Writers[0].Stopped)
			}
			// What a chain alone does not show.
			report = verify(t, audit.VerifyOptions{Heads: []string{head(lines[9])}}, strings.Join(test.lines, ""))
			if whole := strings.Contains(strings.Join(test.lines, ""), lines[9]); (len(report.Findings) == len(test.findings)) != whole {
				t.Errorf("with its head: %q", report.Findings)
			}
		})
	}
}

func TestNoByteCanBeChanged(t *testing.T) {
	t.Parallel()
	text := written(t, 1)
	check := func(what string, at int, text string) {
		t.Helper()
		report := verify(t, audit.VerifyOptions{}, text)
		// What is before a record is vouched for by nothing, and counted.
		if len(report.Findings) == 0 && report.Prefixed == 0 {
			t.Errorf("%s at %d is not found", what, at)
		}
	}
	for at := range text {
		for _, c := range []byte("0az\"{}\\,:\n\x00\xff ") {
			if text[at] == c {
				continue
			}
			check(fmt.Sprintf("%q in place of %q", c, text[at]), at, text[:at]+string(c)+text[at+1:])
			check(fmt.Sprintf("another %q", c), at, text[:at]+string(c)+text[at:])
		}
		if at != len(text)-1 {
			check("one that is left out", at, text[:at]+text[at+1:])
		}
	}
	wantSound(t, text[:len(text)-1]) // The last newline is no part of a record.
}

func TestSeveralWritersMayBeMixed(t *testing.T) {
	t.Parallel()
	var texts []string
	for range 3 {
		texts = append(texts, written(t, 5))
	}
	var mixed strings.Builder
	for n := range 7 {
		for i, text := range texts {
			fmt.Fprintf(&mixed, "Nov 24 16:34:05 host-%d tokenbroker-audit[%d]: %s", i, i, strings.SplitAfter(text, "\n")[n])
		}
	}
	report := wantSound(t, mixed.String())
	if report.Records != 21 || report.Prefixed != 21 || len(report.Writers) != 3 || len(report.Notes) > 0 {
		t.Errorf("%+v", report)
	}
	for i, w := range report.Writers {
		lines := strings.SplitAfter(texts[i], "\n")
		if w.Records != 7 || w.FirstSeq != 1 || w.LastSeq != 7 || w.Head != head(lines[6]) || !w.Stopped || !strings.Contains(lines[0], w.Chain) {
			t.Errorf("%+v", w)
		}
	}
	// One is missing from the second.
	lines := strings.SplitAfter(mixed.String(), "\n")
	missing := strings.Join(slices.Delete(slices.Clone(lines), 10, 11), "")
	wantFindings(t, verify(t, audit.VerifyOptions{}, missing), "a: line 13: seq 4 is missing (after 3 comes 5) [writer "+report.Writers[1].Chain[:8]+"]")

	others := "starting\n" + strings.ReplaceAll(mixed.String(), "\n", "\n{\"level\":\"INFO\"}\n") + strings.Repeat("x", 200_000)
	report = verify(t, audit.VerifyOptions{Mixed: true}, others)
	if wantFindings(t, report); report.Others != 23 || report.Records != 21 {
		t.Errorf("%+v", report)
	}
	if report = verify(t, audit.VerifyOptions{}, others); len(report.Findings) != 20 || report.MoreFindings != 3 {
		t.Errorf("%d findings and %d more", len(report.Findings), report.MoreFindings)
	}
}

func TestAChainGoesOnOverFiles(t *testing.T) {
	t.Parallel()
	text := written(t, 8)
	lines := strings.SplitAfter(text, "\n")
	first, second, third := strings.Join(lines[:3], ""), strings.Join(lines[3:6], ""), strings.Join(lines[6:], "")
	if report := wantSound(t, first, second, "", third); len(report.Notes) > 0 || len(report.Writers) != 1 || !report.Writers[0].Stopped {
		t.Errorf("%+v", report)
	}
	report := wantSound(t, second, third)
	if want := "a: line 1: is the first of its writer, with seq 4: what was before is in none of these files"; len(report.Notes) != 1 || report.Notes[0] != want {
		t.Errorf("notes: %q", report.Notes)
	}
	wantFindings(t, verify(t, audit.VerifyOptions{}, first, third), "b: line 1: seq 4 to 6 are missing (after 3 comes 7)")
	wantFindings(t, verify(t, audit.VerifyOptions{}, second, first, third),
		"b: line 1: has seq 1, and the file before ends with seq 6: the oldest file comes first",
		"c: line 1: seq 4 to 6 are missing (after 3 comes 7)")
}

func TestAHeadMustBeAHash(t *testing.T) {
	t.Parallel()
	text := written(t, 1)
	upper := strings.ToUpper(head(text))
	if report := verify(t, audit.VerifyOptions{Heads: []string{upper}}, text); len(report.Findings) > 0 {
		t.Errorf("%q", report.Findings)
	}
	none := strings.Repeat("ab", 32)
	wantFindings(t, verify(t, audit.VerifyOptions{Heads: []string{none, "planted\x1b"}}, text),
		"no record has the hash "+none+": it was removed, or all from some record on was written anew",
		"no record has the hash that was given (64 hex digits are one): it was removed, or all from some record on was written anew")
}

func TestALaterFormatIsNotTakenForThisOne(t *testing.T) {
	t.Parallel()
	text := forge(written(t, 0), `"format":1`, `"format":2`)
	wantFindings(t, verify(t, audit.VerifyOptions{}, text), "a: line 1: begins format 2, and this program reads 1")
}

func TestFindingsAreNotToldWithoutEnd(t *testing.T) {
	t.Parallel()
	text := written(t, 0)
	for _, line := range []string{"x\n", `{"chain":"` + "\n", strings.Replace(text[:strings.Index(text, "\n")+1], `"start"`, `"stop"`, 1)} {
		report := verify(t, audit.VerifyOptions{}, text+strings.Repeat(line, 25))
		if len(report.Findings) != 20 || report.MoreFindings != 5 {
			t.Errorf("%q: %d findings and %d more", line, len(report.Findings), report.MoreFindings)
		}
	}
}

func TestWritersAreNotToldApartWithoutEnd(t *testing.T) {
	t.Parallel()
	start, _, _ := strings.Cut(written(t, 0), "\n")
	var text strings.Builder
	for n := range 1<<16 + 2 {
		text.WriteString(forge(start, start[10:18], fmt.Sprintf("%08x", n)))
	}
	report := verify(t, audit.VerifyOptions{}, text.String())
	if wantFindings(t, report,
		"a: line 65537: is of another writer than the 65536 before, which are all that are told apart",
		"a: line 65538: is of another writer than the 65536 before, which are all that are told apart"); len(report.Writers) != 1<<16 {
		t.Errorf("%d writers", len(report.Writers))
	}
}

func TestVerifyKeepsLittleInMemory(t *testing.T) {
	// Not parallel: it measures.
	text := bytes.Repeat([]byte(written(t, 5000)), 2)
	var before runtime.MemStats
	runtime.GC()
	runtime.ReadMemStats(&before)
	var inputs []audit.Input
	for name, r := range map[string]io.Reader{
		"a line":     io.LimitReader(endless("x"), 16<<20),
		"lines":      io.LimitReader(endless("\n"), 1<<20),
		"beginnings": io.LimitReader(endless(`{"chain":"`+"\n"), 1<<20),
		"records":    bytes.NewReader(text),
	} {
		measure := func() {
			var now runtime.MemStats
			runtime.GC()
			runtime.ReadMemStats(&now)
			if grown := int64(now.HeapAlloc) - int64(before.HeapAlloc); grown > 1<<20 {
				t.Errorf("%s: %d bytes more are in use", name, grown)
			}
		}
		inputs = append(inputs, audit.Input{Name: name, Reader: io.MultiReader(r, atEnd(measure))})
	}
	report, err := audit.Verify(audit.VerifyOptions{}, inputs...)
	if err != nil || len(report.Findings) != 20 {
		t.Errorf("%v, %d findings", err, len(report.Findings))
	}
}

// atEnd is called when all before it is read.
type atEnd func()

func (f atEnd) Read([]byte) (int, error) {
	f()
	return 0, io.EOF
}

// endless repeats itself for ever.
type endless string

func (s endless) Read(p []byte) (n int, err error) {
	for n < len(p) {
		n += copy(p[n:], s)
	}
	return n, nil
}

func TestAnErrorOfReadingIsOne(t *testing.T) {
	t.Parallel()
	broken := errors.New("broken")
	_, err := audit.Verify(audit.VerifyOptions{}, audit.Input{Name: "a", Reader: iotest.ErrReader(broken)})
	if !errors.Is(err, broken) || !strings.HasPrefix(err.Error(), "a: ") {
		t.Error(err)
	}
}

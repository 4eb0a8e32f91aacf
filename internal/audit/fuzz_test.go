package audit_test

import (
	"bytes"
	"strings"
	"testing"
	"testing/iotest"

	"smokeball.internal/tokenbroker/internal/audit"
)

// FuzzVerify verifies whatever may be in a file, which split takes apart into two.
// Each "§" in the input stands for a hash that makes the line sound, so that the
// fuzzer gets past it.
func FuzzVerify(f *testing.F) {
	const chain, none = `{"chain":"0123456789abcdef0123456789abcdef","seq":`, `"prev":"0000000000000000000000000000000000000000000000000000000000000000"`
	const at = `,"time":"2026-11-24T16:34:05.123456Z",`
	f.Add([]byte(chain+`1`+at+`"event":"start","format":1,`+none+"§\n"+chain+`2`+at+`"event":"stop",`+none+"§\n"), 0, false)
	f.Add([]byte(chain+`1`+at+none+"§\nlevel=INFO\nprefix "+chain+`18446744073709551615`+at+`"dropped":18446744073709551615,`+none+"§"), 200, true)
	f.Add([]byte(`{"cha`+"\n"+chain+`7`+at+`"event":"start","torn_bytes":6,"torn_sha256":"b1",`+none+"§\n"), 3, false)
	f.Fuzz(func(t *testing.T, text []byte, split int, mixed bool) {
		var whole strings.Builder
		for line := range bytes.Lines(text) {
			begin, end, found := bytes.Cut(line, []byte("§"))
			if !found {
				whole.Write(line)
				continue
			}
			prefix := max(0, bytes.LastIndex(begin, []byte(`{"chain":"`)))
			whole.Write(begin[:prefix])
			whole.WriteString(strings.TrimSuffix(forge(string(begin[prefix:]), "", ""), "\n"))
			whole.Write(end)
		}
		s := whole.String()
		split = max(0, min(split, len(s)))
		options := audit.VerifyOptions{Mixed: mixed, Heads: []string{strings.Repeat("0", 64)}}
		report := verify(t, options, s[:split], s[split:])
		if len(report.Findings) == 0 || len(report.Findings) > 20 || len(report.Notes) > 20 {
			t.Errorf("findings: %q, notes: %q", report.Findings, report.Notes)
		}
		for _, sentence := range append(report.Findings, report.Notes...) {
			if len(sentence) > 300 || strings.ContainsFunc(sentence, func(r rune) bool { return r < ' ' || r > '~' }) {
				t.Errorf("sentence %q", sentence)
			}
		}
		if lines := uint64(bytes.Count([]byte(s), []byte("\n")) + 2); report.Records+report.Others > lines || report.Prefixed > report.Records+lines {
			t.Errorf("%d lines: %+v", lines, report)
		}
		var last uint64
		for _, w := range report.Writers {
			if w.Records == 0 || len(w.Chain) != 32 || len(w.Head) != 64 || w.String() == "" {
				t.Errorf("%+v", w)
			}
			last += w.Records
		}
		if last != report.Records {
			t.Errorf("%d records of writers, %d of all", last, report.Records)
		}
		// How it is read makes no difference.
		again, err := audit.Verify(options,
			audit.Input{Name: "a", Reader: iotest.OneByteReader(strings.NewReader(s[:split]))}, audit.Input{Name: "b", Reader: iotest.DataErrReader(strings.NewReader(s[split:]))})
		if err != nil || !bytes.Equal(mustJSON(t, report), mustJSON(t, again)) {
			t.Errorf("%v: %s, and by the byte %s", err, mustJSON(t, report), mustJSON(t, again))
		}
	})
}

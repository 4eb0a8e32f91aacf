package audit_test

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"log/slog"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"smokeball.internal/tokenbroker/internal/audit"
)

// running is a log that is written.
type running struct {
	*audit.Log
	stop func() // ends Run and waits for it
}

// run opens a log and runs it until stop is called, or the test ends.
func run(t testing.TB, c audit.Config) *running {
	t.Helper()
	l, err := audit.Open(c)
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	ended := make(chan struct{})
	go func() { defer close(ended); l.Run(ctx) }()
	stop := func() { cancel(); <-ended }
	t.Cleanup(stop)
	return &running{l, stop}
}

// change records a change of a tenant, which must be written.
func (r *running) change(t testing.TB, tenant string) {
	t.Helper()
	if err := r.Change(context.Background(), audit.Record{Event: "change", Phase: "begin", Tenant: tenant}); err != nil {
		t.Fatal(err)
	}
}

// output is a place to write to that may block or fail.
type output struct {
	mu    sync.Mutex
	text  bytes.Buffer
	gate  chan struct{} // not nil: writes wait until it is closed
	err   error         // not nil: writes fail after room more bytes
	room  int
	tries int
}

func (o *output) Write(p []byte) (int, error) {
	o.mu.Lock()
	gate := o.gate
	o.mu.Unlock()
	if gate != nil {
		<-gate
	}
	o.mu.Lock()
	defer o.mu.Unlock()
	o.tries++
	if o.err == nil {
		return o.text.Write(p)
	}
	n, _ := o.text.Write(p[:min(o.room, len(p))])
	if o.room -= n; n == len(p) {
		return n, nil
	}
	return n, o.err
}

func (o *output) block() {
	o.mu.Lock()
	defer o.mu.Unlock()
	o.gate = make(chan struct{})
}

func (o *output) unblock() {
	o.mu.Lock()
	defer o.mu.Unlock()
	close(o.gate)
	o.gate = nil
}

// fail has writes fail after room more bytes; nil: not any more.
func (o *output) fail(err error, room int) {
	o.mu.Lock()
	defer o.mu.Unlock()
	o.err, o.room = err, room
}

func (o *output) String() string {
	o.mu.Lock()
	defer o.mu.Unlock()
	return o.text.String()
}

// journal is what a logger was told.
type journal struct{ output }

func (j *journal) logger() *slog.Logger { return slog.New(slog.NewJSONHandler(j, nil)) }

// said returns the records with this message.
func (j *journal) said(message string) (records []map[string]any) {
	for line := range strings.Lines(j.String()) {
		var record map[string]any
		if json.Unmarshal([]byte(line), &record) == nil && record["msg"] == message {
			records = append(records, record)
		}
	}
	return records
}

// records returns the records of a log's text.
func records(t testing.TB, text string) (all []map[string]any) {
	t.Helper()
	for line := range strings.Lines(text) {
		var record map[string]any
		if err := json.Unmarshal([]byte(line), &record); err != nil {
			t.Fatalf("%v: %q", err, line)
		}
		all = append(all, record)
	}
	return all
}

// written returns the text of a log with n decisions between start and stop.
func written(t testing.TB, n int) string {
	t.Helper()
	var out output
	l := run(t, audit.Config{Sink: "stdout", Stdout: &out})
	for range n {
		if err := l.Decision(decision()); err != nil {
			t.Fatal(err)
		}
	}
	l.stop()
	return out.String()
}

// verify verifies texts that are called a, b, …
func verify(t testing.TB, o audit.VerifyOptions, texts ...string) *audit.Report {
	t.Helper()
	var inputs []audit.Input
	for i, text := range texts {
		inputs = append(inputs, audit.Input{Name: string(rune('a' + i)), Reader: strings.NewReader(text)})
	}
	report, err := audit.Verify(o, inputs...)
	if err != nil {
		t.Fatal(err)
	}
	return report
}

// wantSound verifies texts, which must be as they were written.
func wantSound(t testing.TB, texts ...string) *audit.Report {
	t.Helper()
	report := verify(t, audit.VerifyOptions{}, texts...)
	if len(report.Findings) > 0 {
		t.Errorf("findings: %q, in\n%s", report.Findings, strings.Join(texts, "\n"))
	}
	return report
}

func content(t testing.TB, path string) string {
	t.Helper()
	b, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	return string(b)
}

func TestARecordSaysAllThatItIsGiven(t *testing.T) {
	t.Parallel()
	var out output
	begin := time.Now().Truncate(time.Microsecond)
	l := run(t, audit.Config{Sink: "stdout", Stdout: &out})
	r := audit.Record{
		Event: "event", Phase: "phase", RequestID: "id", Principal: "principal", Peer: "peer", Method: "method", Tenant: "tenant", Scopes: []string{"a", "b"},
		Fields: []string{"c"}, TokenID: "token", Rule: "rule", Outcome: "outcome", Code: "code", Reason: "reason",
	}
	if err := l.Decision(r); err != nil {
		t.Fatal(err)
	}
	l.stop()
	var got audit.Record
	if err := json.Unmarshal([]byte(strings.Split(out.String(), "\n")[1]), &got); err != nil {
		t.Fatal(err)
	}
	if want, _ := json.Marshal(r); string(want) != string(mustJSON(t, got)) {
		t.Errorf("%s, want %s", mustJSON(t, got), want)
	}
	all := records(t, out.String())
	if len(all) != 3 || all[0]["event"] != "start" || all[2]["event"] != "stop" {
		t.Fatalf("records: %v", all)
	}
	host, _ := os.Hostname()
	if all[0]["format"] != 1.0 || all[0]["host"] != host {
		t.Errorf("start: %v", all[0])
	}
	for i, record := range all {
		at, err := time.Parse("2006-01-02T15:04:05.000000Z", record["time"].(string))
		if err != nil || at.Before(begin) || at.After(time.Now()) || record["seq"] != float64(i+1) || record["chain"] != all[0]["chain"] {
			t.Errorf("%v: %v", err, record)
		}
	}
	wantSound(t, out.String())
}

func mustJSON(t testing.TB, v any) []byte {
	t.Helper()
	b, err := json.Marshal(v)
	if err != nil {
		t.Fatal(err)
	}
	return b
}

func TestWhatCallersSendIsBoundedAndHarmless(t *testing.T) {
	t.Parallel()
	many := strings.Split(strings.Repeat("matters/read ", 10_000), " ")
	for name, r := range map[string]audit.Record{
		"lines":      {Principal: "a\nb\r\n{\"chain\":\"x\"}\u2028", Method: "\x00\x1b[2J\x7f\u009b"},
		"no UTF-8":   {Peer: "\xff\xfe" + strings.Repeat("\xc3", 300), Tenant: strings.Repeat("ö", 200)},
		"long":       {Event: strings.Repeat("e", 1<<20), Scopes: []string{strings.Repeat("s", 1<<20)}, Reason: strings.Repeat("r", 257)},
		"many":       {Scopes: many, Fields: many},
		"all of it":  {Principal: strings.Repeat("\x01", 9999), Peer: strings.Repeat("\x02", 9999), Method: strings.Repeat("😀", 9999), Rule: strings.Repeat("\\", 9999), TokenID: strings.Repeat("\x03", 9999), Scopes: []string{strings.Repeat("\x04", 999)}},
		"lists":      {Scopes: slices.Repeat([]string{strings.Repeat("s", 200)}, 10), Fields: slices.Repeat([]string{"f"}, 100)},
		"empty ones": {Scopes: make([]string, 100_000)},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			var out output
			l := run(t, audit.Config{Sink: "stdout", Stdout: &out})
			if err := l.Decision(r); err != nil {
				t.Fatal(err)
			}
			l.stop()
			if report := wantSound(t, out.String()); report.Records != 3 {
				t.Errorf("%d records", report.Records)
			}
			for line := range strings.Lines(out.String()) {
				if len(line) > 4096 || strings.ContainsFunc(strings.TrimSuffix(line, "\n"), func(r rune) bool { return r < ' ' || r > '~' }) {
					t.Errorf("line of %d bytes: %q", len(line), line)
				}
			}
			if all := records(t, out.String())[1]; name == "lists" {
				scopes, fields := all["scopes"].([]any), all["fields"].([]any)
				if len(scopes) != 6 || scopes[5] != "…" || len(fields) != 65 || fields[64] != "…" {
					t.Errorf("%d scopes, %d fields: %v", len(scopes), len(fields), all)
				}
			}
			if strings.Contains(out.String(), `"\u2026","\u2026"`) {
				t.Errorf("it says twice that it is clipped: %s", out.String())
			}
			if got, _ := records(t, out.String())[1]["tenant"].(string); r.Tenant != "" && got != strings.Repeat("ö", 126)+"…" {
				t.Errorf("clipped to %q", got)
			}
			if r.Reason != "" {
				if got := records(t, out.String())[1]["reason"]; got != strings.Repeat("r", 253)+"…" {
					t.Errorf("clipped to %v", got)
				}
			}
		})
	}
}

func TestALogOfNothingAllowsEverything(t *testing.T) {
	t.Parallel()
	none, err := audit.Open(audit.Config{Sink: "none", Strict: true})
	if err != nil {
		t.Fatal(err)
	}
	for _, l := range []*audit.Log{nil, none} {
		ctx, cancel := context.WithTimeout(t.Context(), 50*time.Millisecond)
		l.Run(ctx)
		if ctx.Err() == nil {
			t.Error("Run has not waited")
		}
		cancel()
		if err := errors.Join(l.Decision(decision()), l.Change(ctx, decision())); err != nil {
			t.Error(err)
		}
		if l.Stats() != (audit.Stats{}) {
			t.Errorf("%+v", l.Stats())
		}
	}
}

func TestSinksAreNamedExactly(t *testing.T) {
	t.Parallel()
	for _, sink := range []string{"stdout", "none", "file:a", "file:/var/log/a:b", "syslog", "syslog:udp://log.example:514", "syslog:tcp://[::1]:601"} {
		if err := audit.ValidateSink(sink); err != nil {
			t.Errorf("%s: %v", sink, err)
		}
	}
	for _, sink := range []string{"", "stderr", "Stdout", "stdout:", "none:", "file", "file:", "syslog:", "syslog:local", "syslog:udp://", "syslog:udp://host", "syslog:udp://:514",
		"syslog:udp://host:0", "syslog:udp://host:65536", "syslog:udp://host:syslog", "syslog:unix://host:1", "syslog:tcp://user:planted@host:1", "syslog:tcp://host:1/planted"} {
		err := audit.ValidateSink(sink)
		if err == nil || strings.Contains(err.Error(), "planted") {
			t.Errorf("%s: %v", sink, err)
		}
		if _, err := audit.Open(audit.Config{Sink: sink}); err == nil {
			t.Errorf("%s is opened", sink)
		}
	}
}

// TestAnotherProgramCanVerify runs the program of the package's documentation.
func TestAnotherProgramCanVerify(t *testing.T) {
	t.Parallel()
	python, err := exec.LookPath("python3")
	if err != nil {
		t.Skip("there is no python3")
	}
	_, program, _ := strings.Cut(content(t, "audit.go"), "//\timport hashlib")
	program, _, _ = strings.Cut(program, "//\n")
	program = "import hashlib" + strings.ReplaceAll(program, "\n//\t", "\n")
	text := written(t, 3)
	lines := strings.SplitAfter(text, "\n")
	for want, text := range map[string]string{
		"":                         text,
		"line 2 was changed\n":     strings.Replace(text, "tenants/acme", "tenants/acmf", 1),
		"line 3 does not follow\n": lines[0] + lines[1] + lines[3] + lines[4],
	} {
		path := filepath.Join(t.TempDir(), "audit.log")
		if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
		if out, err := exec.Command(python, "-c", program, path).CombinedOutput(); err != nil || string(out) != want {
			t.Errorf("%v: %s, want %q", err, out, want)
		}
	}
}

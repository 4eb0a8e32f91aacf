//go:build linux || darwin

package audit_test

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"os"
	"os/exec"
	"strings"
	"syscall"
	"testing"
	"time"

	"smokeball.internal/tokenbroker/internal/audit"
)

// The test binary is also what some tests start as another process: one that writes
// to the log in the file of the variable.
const fileVariable = "AUDIT_TEST_FILE"

func TestMain(m *testing.M) {
	path := os.Getenv(fileVariable)
	if path == "" {
		os.Exit(m.Run())
	}
	if err := record(path, os.Stdin); err != nil {
		fmt.Println(err)
		os.Exit(1)
	}
}

// record writes to the log at path. It says what it has done on standard output: a
// line for each change, with its number. It stops when standard input ends.
func record(path string, stdin io.Reader) error {
	l, err := audit.Open(audit.Config{Sink: "file:" + path})
	if err != nil {
		return err
	}
	ctx, cancel := context.WithCancel(context.Background())
	defer cancel()
	ended := make(chan struct{})
	go func() { defer close(ended); l.Run(ctx) }()
	stop := make(chan struct{})
	go func() { defer close(stop); _, _ = io.Copy(io.Discard, stdin) }()
	for i := 0; ; i++ {
		select {
		case <-stop:
			cancel()
			<-ended
			return nil
		default:
		}
		for range 20 {
			_ = l.Decision(decision())
		}
		if err := l.Change(ctx, audit.Record{Event: "change", Tenant: fmt.Sprintf("tenants/firm-%d-%d", os.Getpid(), i)}); err != nil {
			return err
		}
		fmt.Printf("tenants/firm-%d-%d\n", os.Getpid(), i)
	}
}

// other is another process that writes to a log.
type other struct {
	*exec.Cmd
	stdin io.Closer
	said  *bufio.Scanner
}

func startOther(t testing.TB, path string) *other {
	t.Helper()
	cmd := exec.Command(os.Args[0])
	cmd.Env = append(os.Environ(), fileVariable+"="+path)
	cmd.Stderr = os.Stderr
	stdin, err := cmd.StdinPipe()
	if err != nil {
		t.Fatal(err)
	}
	stdout, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = cmd.Process.Kill(); _ = cmd.Wait() })
	return &other{cmd, stdin, bufio.NewScanner(stdout)}
}

// next returns the next line that the process says; "": it has ended.
func (o *other) next() string {
	o.said.Scan()
	return o.said.Text()
}

// rest returns all lines that the process still says.
func (o *other) rest() (lines []string) {
	for o.said.Scan() {
		lines = append(lines, o.said.Text())
	}
	return lines
}

func TestTwoProcessesDoNotShareAFile(t *testing.T) {
	t.Parallel()
	path := logPath(t)
	first := startOther(t, path)
	if !strings.HasPrefix(first.next(), "tenants/") {
		t.Fatal("the first does not write")
	}
	if said := startOther(t, path).next(); said != "audit log: "+path+": another process writes to it, and each needs a file of its own" {
		t.Errorf("the second says %q", said)
	}
	_ = first.stdin.Close()
	first.rest()
	if err := first.Wait(); err != nil {
		t.Error(err)
	}
	if report := wantSound(t, content(t, path)); len(report.Notes) > 0 || !report.Writers[0].Stopped {
		t.Errorf("%+v", report)
	}
}

func TestAKilledProcessLosesNoChangeAndTheChainGoesOn(t *testing.T) {
	t.Parallel()
	path := logPath(t)
	var promised []string
	const kills = 10
	for range kills {
		o := startOther(t, path)
		promised = append(promised, o.next())
		time.Sleep(rand.N(50 * time.Millisecond))
		if err := o.Process.Kill(); err != nil {
			t.Fatal(err)
		}
		promised = append(promised, o.rest()...)
		_ = o.Wait()
	}
	session(t, path, 1)
	text := content(t, path)
	report := wantSound(t, text)
	if len(report.Writers) != 1 || report.Writers[0].Crashes != kills || !report.Writers[0].Stopped {
		t.Errorf("%+v", report.Writers[0])
	}
	for _, change := range promised {
		if !strings.Contains(text, `"`+change+`"`) {
			t.Errorf("%q was promised to be written", change)
		}
	}
	t.Logf("%d changes, %d records", len(promised), report.Records)
}

// TestAFileThatCannotGrowStaysWholeAndIsGoneOnWith has files of this process
// limited. So it is not parallel.
func TestAFileThatCannotGrowStaysWholeAndIsGoneOnWith(t *testing.T) {
	path := logPath(t)
	var before syscall.Rlimit
	if err := syscall.Getrlimit(syscall.RLIMIT_FSIZE, &before); err != nil {
		t.Fatal(err)
	}
	limit := func(size uint64) {
		if err := syscall.Setrlimit(syscall.RLIMIT_FSIZE, &syscall.Rlimit{Cur: size, Max: before.Max}); err != nil {
			t.Fatal(err)
		}
	}
	defer limit(before.Cur)
	l := run(t, audit.Config{Sink: "file:" + path})
	l.change(t, "tenants/before")
	limit(uint64(len(content(t, path)) + 1000)) // Some lines, and a part of one.
	for range 10 {
		_ = l.Decision(decision())
	}
	if err := l.Change(t.Context(), audit.Record{}); !errors.Is(err, audit.ErrUnavailable) {
		t.Errorf("a change: %v", err)
	}
	if text := content(t, path); !strings.HasSuffix(text, "\n") || l.Stats().Failed == 0 {
		t.Errorf("%+v, and the file ends in %q", l.Stats(), text[len(text)-10:])
	}
	limit(before.Cur)
	l.change(t, "tenants/after")
	l.stop()
	if report := wantSound(t, content(t, path)); report.Records != 15 || len(report.Notes) > 0 {
		t.Errorf("%+v", report)
	}
}

//go:build unix

package main_test

import (
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/creack/pty"
	"golang.org/x/term"

	"smokeball.internal/tokenbroker/internal/redisstore/redistest"
)

// terminal is a program that somebody uses at a terminal.
type terminal struct {
	t      *testing.T
	cmd    *exec.Cmd
	tty    *os.File // the side of the terminal
	side   *os.File // the program's side, kept open to look at its state
	screen *logBuffer
	exited chan struct{}
	seen   int        // of the screen, by wants
	before term.State // how the terminal was set at first
}

// atTerminal starts a program at a terminal, until the test ends.
func atTerminal(t *testing.T, program string, args ...string) *terminal {
	t.Helper()
	tty, side, err := pty.Open()
	if err != nil {
		t.Fatal(err)
	}
	if err := pty.Setsize(tty, &pty.Winsize{Rows: 50, Cols: 500}); err != nil { // No line is broken.
		t.Fatal(err)
	}
	x := &terminal{t: t, cmd: exec.Command(program, args...), tty: tty, side: side, screen: &logBuffer{}, exited: make(chan struct{})}
	x.cmd.Env = []string{"PATH=" + filepath.Dir(binary) + ":" + os.Getenv("PATH"), "TERM=dumb", "PS1=$ "}
	x.cmd.Stdin, x.cmd.Stdout, x.cmd.Stderr = side, side, side
	x.cmd.SysProcAttr = &syscall.SysProcAttr{Setsid: true, Setctty: true} // Its signals come from the terminal.
	x.before = x.state()
	if err := x.cmd.Start(); err != nil {
		t.Fatal(err)
	}
	read := make(chan struct{})
	go func() {
		defer close(read)
		buffer := make([]byte, 4096)
		for {
			n, err := tty.Read(buffer)
			x.screen.mu.Lock()
			x.screen.text.Write(buffer[:n])
			x.screen.mu.Unlock()
			if err != nil {
				return
			}
		}
	}()
	go func() { defer close(x.exited); _ = x.cmd.Wait() }()
	t.Cleanup(func() {
		_ = x.cmd.Process.Kill()
		<-x.exited
		_ = side.Close()
		_ = tty.Close()
		<-read
	})
	return x
}

// wants waits until text is on the screen, behind what was waited for before.
func (x *terminal) wants(text string) {
	x.t.Helper()
	for deadline := time.Now().Add(20 * time.Second); time.Now().Before(deadline); time.Sleep(10 * time.Millisecond) {
		if screen := x.screen.String(); strings.Contains(screen[x.seen:], text) {
			x.seen += strings.Index(screen[x.seen:], text) + len(text)
			return
		}
	}
	x.t.Fatalf("%q does not appear on\n%s", text, x.screen)
}

// types presses keys.
func (x *terminal) types(keys string) {
	x.t.Helper()
	if _, err := x.tty.WriteString(keys); err != nil {
		x.t.Fatal(err)
	}
}

// ends waits for the end of the program and returns its exit code.
func (x *terminal) ends() int {
	x.t.Helper()
	select {
	case <-x.exited:
		return x.cmd.ProcessState.ExitCode()
	case <-time.After(20 * time.Second):
		x.t.Fatalf("it does not end:\n%s", x.screen)
		return 0
	}
}

// state returns how the terminal is set, whether it echoes among others.
func (x *terminal) state() term.State {
	x.t.Helper()
	s, err := term.GetState(int(x.side.Fd()))
	if err != nil {
		x.t.Fatal(err)
	}
	return *s
}

const (
	ctrlC = "\x03"
	enter = "\r"
)

// asking starts a verb of tenants at a terminal.
func asking(t *testing.T, p *process, args ...string) *terminal {
	t.Helper()
	return atTerminal(t, binary, append(append([]string{"tenants"}, args...), "--insecure", "--addr="+p.grpc)...)
}

// silent waits until the terminal is set otherwise than at first, as it is while
// it shows nothing of what is typed.
func (x *terminal) silent() {
	x.t.Helper()
	until(x.t, "silent", func() bool { return x.state() != x.before })
}

func TestASecretIsAskedForWithoutEcho(t *testing.T) {
	t.Parallel()
	p := start(t, serveArgs(redistest.Start(t).URL(), keysetFile(t), startIssuer(t))...).ready()
	x := asking(t, p, "create", "typed", "--region=us", "--client-id=typed-client", "--api-key-file=-")
	x.wants("client secret: ")
	x.silent()
	x.types("planted-secret" + enter)
	x.wants("API key: ")
	x.silent()
	x.types("planted-key" + enter)
	x.wants("typed-client")
	if code := x.ends(); code != 0 || strings.Contains(x.screen.String(), "planted") || x.state() != x.before {
		t.Errorf("exit code %d, the terminal is as before: %v\n%s", code, x.state() == x.before, x.screen)
	}
}

func TestCtrlCAtAPromptChangesNothing(t *testing.T) {
	t.Parallel()
	p := start(t, serveArgs(redistest.Start(t).URL(), keysetFile(t), startIssuer(t))...).ready()
	register(t, p.connect(), startIssuer(t), "acme", time.Hour)
	for name, test := range map[string]struct {
		args   []string
		prompt string
		silent bool
	}{
		"a secret":       {[]string{"create", "other", "--region=us", "--client-id=client"}, "client secret: ", true},
		"another secret": {[]string{"rotate", "acme", "--skip-verification"}, "client secret: ", true},
		"a question":     {[]string{"delete", "acme"}, "to go on: ", false},
	} {
		x := asking(t, p, test.args...)
		x.wants(test.prompt)
		if test.silent {
			x.silent()
		}
		x.types("half-an-answer" + ctrlC)
		if code := x.ends(); code != 1 || x.state() != x.before {
			t.Errorf("%s: exit code %d, the terminal is as before: %v\n%s", name, code, x.state() == x.before, x.screen)
		}
	}
	stdout, _, _ := verb(t, "", "tenants", "list", "--insecure", "--addr="+p.grpc)
	if !strings.Contains(stdout, "acme") || strings.Contains(stdout, "other") {
		t.Errorf("there are\n%s", stdout)
	}
}

func TestDeleteAsks(t *testing.T) {
	t.Parallel()
	p := start(t, serveArgs(redistest.Start(t).URL(), keysetFile(t), startIssuer(t))...).ready()
	register(t, p.connect(), startIssuer(t), "acme", time.Hour)
	for _, test := range []struct {
		answer string
		code   int
		says   string
	}{
		{"no", 1, "nothing was deleted"}, {"", 1, "nothing was deleted"}, {"yes", 1, "nothing was deleted"}, {"acme", 0, "deleted tenants/acme"},
	} {
		x := asking(t, p, "delete", "tenants/acme")
		x.wants(`Type "acme" to go on: `)
		x.types(test.answer + enter)
		x.wants(test.says)
		if code := x.ends(); code != test.code {
			t.Errorf("%q: exit code %d\n%s", test.answer, code, x.screen)
		}
		stdout, _, _ := verb(t, "", "tenants", "list", "--insecure", "--addr="+p.grpc)
		if there := strings.Contains(stdout, "acme"); there != (test.code != 0) {
			t.Errorf("%q: then there are\n%s", test.answer, stdout)
		}
	}
}

func TestBashCompletes(t *testing.T) {
	t.Parallel()
	p := start(t, serveArgs(redistest.Start(t).URL(), keysetFile(t), startIssuer(t))...).ready()
	register(t, p.connect(), startIssuer(t), "acme-and-sons", time.Hour)
	bash, err := exec.LookPath("bash")
	if err != nil {
		t.Fatal(err)
	}
	file := filepath.Join(t.TempDir(), "access.yaml")
	if err := os.WriteFile(file, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	// What is typed, and what stands behind it after the tabulator.
	for typed, behind := range map[string]string{
		"tokenbroker ten":                                              "ants ",
		"tokenbroker tenants rot":                                      "ate ",
		"tokenbroker tenants list --outp":                              "ut ",
		"tokenbroker tenants list --output j":                          "son ",
		"tokenbroker tenants list --output=j":                          "son ",
		"tokenbroker tenants list -o t":                                "able ",
		"tokenbroker completion f":                                     "ish ",
		"tokenbroker access check " + file[:len(file)-4]:               "yaml ",
		"tokenbroker doctor --access-file=" + file[:len(file)-4]:       "yaml ",
		"tokenbroker tenants get --insecure --addr=" + p.grpc + " acm": "e-and-sons ",
	} {
		x := atTerminal(t, bash, "--norc", "--noprofile", "-i")
		x.wants("$ ")
		x.types(`eval "$(tokenbroker completion bash)"; echo lo""aded` + enter)
		x.wants("\nloaded")
		x.wants("$ ")
		x.types(typed + "\t")
		x.wants(typed + behind)
	}
}

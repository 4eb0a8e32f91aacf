package main_test

import (
	"bytes"
	"flag"
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/alecthomas/kong"

	"smokeball.internal/tokenbroker/internal/config"
	"smokeball.internal/tokenbroker/internal/redisstore/redistest"
)

var update = flag.Bool("update", false, "write what the commands of the README print, and the table of settings, into the README")

const root = "../.."

// readme is the text of the README, to be read and, with -update, written.
func readme(t *testing.T) (text string, write func(string)) {
	t.Helper()
	path := filepath.Join(root, "README.md")
	content, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	return string(content), func(s string) {
		if err := os.WriteFile(path, []byte(s), 0o644); err != nil {
			t.Fatal(err)
		}
	}
}

// section returns the part of the text between two headings of the second level.
func section(t *testing.T, text, heading string) string {
	t.Helper()
	_, rest, ok := strings.Cut(text, "\n## "+heading+"\n")
	if !ok {
		t.Fatalf("the README has no section %q", heading)
	}
	part, _, _ := strings.Cut(rest, "\n## ")
	return part
}

var consoles = regexp.MustCompile("(?s)```console\n(.*?)```")

// session runs the commands of a console block, each a line behind "$ " and
// those behind "> " that follow, and returns the block with what they print.
func session(t *testing.T, block string, run func(command string) string) string {
	t.Helper()
	var played strings.Builder
	command := ""
	finish := func() {
		if command != "" {
			played.WriteString(run(command))
		}
		command = ""
	}
	for line := range strings.Lines(block) {
		begins, continues := strings.HasPrefix(line, "$ "), strings.HasPrefix(line, "> ")
		if !continues {
			finish()
		}
		if begins || continues { // The rest is what was printed when the README was written.
			command += line[2:]
			played.WriteString(line)
		}
	}
	finish()
	return played.String()
}

// What differs from run to run, and is compared as the name of its place only.
var varying = []struct {
	what *regexp.Regexp
	with string
}{
	{regexp.MustCompile(`"accessToken": "[^"]*"`), `"accessToken": "eyJraWQiOi…"`},
	{regexp.MustCompile(`"(tokenId|etag|requestId|[a-zA-Z]+Time|remaining|retryDelay)": "[^"]*"`), `"$1": "…"`},
	{regexp.MustCompile(`in [0-9a-z.]+ at the earliest`), `in … at the earliest`},
	{regexp.MustCompile(`from \d{4}-\d\d-\d\dT[0-9:]+Z on`), `from … on`},
	{regexp.MustCompile(`(request )[0-9a-f-]{36}`), `$1…`},
	{regexp.MustCompile(`(writer|head) [0-9a-f]{32,64}`), `$1 …`},
	{regexp.MustCompile(`\d{4}-\d\d-\d\dT[0-9:.]+Z to \d{4}-\d\d-\d\dT[0-9:.]+Z`), `… to …`},
}

func alike(s string) string {
	for _, v := range varying {
		s = v.what.ReplaceAllString(s, v.with)
	}
	return s
}

// shell returns a function that runs commands with bash in dir and returns what
// they print.
func shell(t *testing.T, dir string) func(string) string {
	tools, err := filepath.Abs(filepath.Join(root, ".tmp", "bin"))
	if err != nil {
		t.Fatal(err)
	}
	return func(command string) string {
		t.Helper()
		cmd := exec.CommandContext(t.Context(), "bash", "-c", command)
		cmd.Dir = dir
		cmd.Env = append(os.Environ(), "PATH="+filepath.Dir(binary)+":"+tools+":"+os.Getenv("PATH"))
		out, err := cmd.CombinedOutput()
		if exit := cmd.ProcessState; exit == nil || exit.ExitCode() == 127 {
			t.Fatalf("%s: %v: %s\n(make test has what the README's commands need)", command, err, out)
		}
		return varying[0].what.ReplaceAllString(string(out), varying[0].with)
	}
}

// play runs all sessions of a section, and compares, or updates, the README.
func play(t *testing.T, heading string, run func(string) string) {
	t.Helper()
	text, write := readme(t)
	part := section(t, text, heading)
	commands := 0
	played := consoles.ReplaceAllStringFunc(part, func(block string) string {
		before := consoles.FindStringSubmatch(block)[1]
		commands += strings.Count(before, "$ ")
		after := session(t, before, run)
		if alike(before) != alike(after) && !*update {
			t.Errorf("the README says:\n%s\nbut it is:\n%s\n(go test ./cmd/tokenbroker -run README -update)", before, after)
		}
		return "```console\n" + after + "```"
	})
	if commands == 0 {
		t.Errorf("no commands in section %q", heading)
	}
	if *update {
		write(strings.Replace(text, part, played, 1))
	}
}

// needPorts fails the test if somebody else serves where the README's commands
// go: they would be answered by a stranger.
func needPorts(t *testing.T) {
	t.Helper()
	for _, addr := range []string{"127.0.0.1:9090", "127.0.0.1:9091", "127.0.0.1:9092"} {
		l, err := net.Listen("tcp", addr)
		if err != nil {
			t.Fatalf("the README's commands need %s: end what listens there (%v)", addr, err)
		}
		_ = l.Close()
	}
}

// TestTheREADMEsSession does what a newcomer does: make run in one terminal, the
// session in another, the lines that make run prints, and Ctrl-C.
func TestTheREADMEsSession(t *testing.T) {
	needPorts(t)
	cmd := exec.Command("make", "run")
	cmd.Dir = root
	cmd.Env = nil
	for _, v := range os.Environ() { // This test may itself run below make.
		if !strings.HasPrefix(v, "MAKE") && !strings.HasPrefix(v, "MFLAGS=") {
			cmd.Env = append(cmd.Env, v)
		}
	}
	var stdout, stderr logBuffer
	cmd.Stdout, cmd.Stderr = &stdout, &stderr
	cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true} // As a terminal has it: Ctrl-C is for all of them.
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	ended := make(chan struct{})
	go func() { defer close(ended); _ = cmd.Wait() }()
	t.Cleanup(func() {
		_ = syscall.Kill(-cmd.Process.Pid, syscall.SIGKILL)
		<-ended
	})
	deadline := time.Now().Add(3 * time.Minute) // It may have to be compiled.
	for !strings.Contains(stderr.String(), "msg=serving") {
		select {
		case <-ended:
			t.Fatalf("make run ended:\n%s%s", stdout.String(), stderr.String())
		case <-time.After(100 * time.Millisecond):
		}
		if time.Now().After(deadline) {
			t.Fatalf("make run does not serve:\n%s%s", stdout.String(), stderr.String())
		}
	}
	run := shell(t, root)
	until(t, "ready", func() bool { return run("tokenbroker health") == "ready\n" })
	play(t, "A session", run)

	printed := regexp.MustCompile(`(?m)^  ((?:grpcurl|curl) .*)$`).FindAllStringSubmatch(stdout.String(), -1)
	got := ""
	for _, line := range printed {
		got += run(line[1])
	}
	for _, want := range []string{`"accessToken"`, `"name": "tenants/globex"`, "tokenbroker.v1.TokenService", `"reason": "ISSUER_`} {
		if !strings.Contains(got, want) {
			t.Errorf("the %d lines that make run prints bring no %s:\n%s", len(printed), want, got)
		}
	}

	_ = syscall.Kill(-cmd.Process.Pid, syscall.SIGINT)
	select {
	case <-ended:
	case <-time.After(20 * time.Second):
		t.Fatal("Ctrl-C does not end it")
	}
	if !strings.Contains(stderr.String(), "shut down") || strings.Contains(stdout.String()+stderr.String(), "Error") {
		t.Errorf("after Ctrl-C:\n%s", stderr.String())
	}
}

// TestTheREADMEsProduction does what an operator does first.
func TestTheREADMEsProduction(t *testing.T) {
	needPorts(t)
	text, _ := readme(t)
	dir := t.TempDir()
	writeCertificates(t, dir)
	redis := redistest.Start(t)
	files := map[string]string{"redis-password": "unused\n"}
	for _, block := range regexp.MustCompile("(?s)```yaml\n(# (\\S+)\n.*?)```").FindAllStringSubmatch(section(t, text, "In production"), -1) {
		files[block[2]] = block[1]
	}
	changed := strings.NewReplacer("rediss://redis.internal:6379", redis.URL(), "0.0.0.0:9090", "127.0.0.1:9090").Replace(files["tokenbroker.yaml"])
	if !strings.Contains(changed, redis.URL()) || !strings.Contains(changed, "127.0.0.1:9090") {
		t.Fatalf("the README's settings have other addresses than this test knows:\n%s", changed)
	}
	files["tokenbroker.yaml"] = changed
	for name, content := range files {
		if err := os.WriteFile(filepath.Join(dir, name), []byte(content), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	redis.Client().ConfigSet(t.Context(), "requirepass", "unused")
	run := shell(t, dir)
	play(t, "In production", func(command string) string {
		if strings.HasPrefix(command, "tokenbroker serve") {
			cmd := exec.Command(binary, strings.Fields(command)[1:]...)
			cmd.Dir = dir
			var log logBuffer
			cmd.Stderr = &log
			if err := cmd.Start(); err != nil {
				t.Fatal(err)
			}
			t.Cleanup(func() { _ = cmd.Process.Kill(); _ = cmd.Wait() })
			until(t, "ready", func() bool { return run("tokenbroker health") == "ready\n" })
			return ""
		}
		return run(command)
	})
}

// TestTheREADMEsTableOfSettings compares the table with the settings there are.
func TestTheREADMEsTableOfSettings(t *testing.T) {
	parser, err := kong.New(&config.Serve{}, kong.Name("tokenbroker"), kong.DefaultEnvars("TOKENBROKER"))
	if err != nil {
		t.Fatal(err)
	}
	var table bytes.Buffer
	table.WriteString("| flag | default | what it is |\n|---|---|---|\n")
	for _, f := range parser.Model.Flags {
		if f.Name == "help" {
			continue
		}
		value := ""
		if f.Default != "" {
			value = "`" + f.Default + "`"
		}
		help := strings.TrimSpace(regexp.MustCompile(` Default \S+$`).ReplaceAllString(f.Help, ""))
		fmt.Fprintf(&table, "| `--%s` | %s | %s |\n", f.Name, value, strings.NewReplacer("|", `\|`, "<", "&lt;").Replace(help))
	}
	text, write := readme(t)
	part := regexp.MustCompile(`(?s)\| flag \|.*?\n\n`)
	if *update {
		write(part.ReplaceAllLiteralString(text, table.String()+"\n"))
		return
	}
	if part.FindString(text) != table.String()+"\n" {
		t.Errorf("the README's table should be (go test ./cmd/tokenbroker -run README -update):\n%s", table.String())
	}
}

// Write implements io.Writer.
func (b *logBuffer) Write(p []byte) (int, error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.text.Write(p)
}

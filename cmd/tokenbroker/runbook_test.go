package main_test

import (
	"fmt"
	"net/http"
	"net/http/httptest"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
)

// The steps of an entry of the runbook.
const (
	stepLook = "Look"
	stepMend = "Mend"
	stepOver = "Over"
)

// entry is what docs/operations.md says of an alert: the commands of each step, which
// bash runs as they stand there. Where others mend, there are none.
type entry map[string]string

// runbook returns the entries by their alerts.
func runbook(t testing.TB) map[string]entry {
	t.Helper()
	text, err := os.ReadFile(filepath.Join(root, "docs", "operations.md"))
	if err != nil {
		t.Fatal(err)
	}
	entries := map[string]entry{}
	var current entry
	step, inside := "", false
	for line := range strings.Lines(string(text)) {
		heading, isEntry := strings.CutPrefix(line, "### TokenBroker")
		switch {
		case inside && line == "```\n":
			inside = false
		case inside:
			current[step] += line
		case isEntry:
			current, step = entry{}, ""
			entries["TokenBroker"+strings.TrimSpace(heading)] = current
		case strings.HasPrefix(line, "## "):
			current = nil
		case current != nil && line == "```sh\n":
			if step == "" {
				t.Fatalf("docs/operations.md: commands that belong to no step, in %v", current)
			}
			inside = true
		default:
			for _, s := range []string{stepLook, stepMend, stepOver} {
				if strings.HasPrefix(line, s) {
					step = s
				}
			}
		}
	}
	return entries
}

// desk is where the operator of a stage sits: a shell in which the commands of the
// runbook mean this stage.
type desk struct {
	t   testing.TB
	dir string
	env []string
}

// machine is what systemctl and journalctl of a desk stand for.
type machine struct {
	systemctl  func(verb, unit string) (says string, err error)
	journalctl func(unit string) string
}

// newDesk returns a desk with these variables. The systemctl and the journalctl of its
// shell are not the machine's own: they start, and show the log of, what the test has
// started.
func newDesk(t testing.TB, m machine, variables map[string]string) *desk {
	t.Helper()
	d := &desk{t: t, dir: t.TempDir()}
	mux := http.NewServeMux()
	mux.HandleFunc("POST /systemctl/{verb}/{unit}", func(w http.ResponseWriter, r *http.Request) {
		says, err := m.systemctl(r.PathValue("verb"), r.PathValue("unit"))
		if err != nil {
			http.Error(w, err.Error(), http.StatusConflict)
			return
		}
		_, _ = fmt.Fprintln(w, says)
	})
	mux.HandleFunc("POST /journalctl/{unit}", func(w http.ResponseWriter, r *http.Request) {
		_, _ = fmt.Fprint(w, m.journalctl(r.PathValue("unit")))
	})
	server := httptest.NewServer(mux)
	t.Cleanup(server.Close)
	bin := t.TempDir()
	for name, script := range map[string]string{
		"systemctl": "#!/bin/sh\nexec curl -sS --fail-with-body -X POST " + server.URL + "/systemctl/$1/$2\n",
		// All that was logged is of the last minutes; -n is how much of it.
		"journalctl": "#!/bin/sh\n[ \"$1\" = -u ] || exit 2\n[ \"$3\" = -n ] || set -- \"$1\" \"$2\" -n +1\ncurl -sS --fail-with-body -X POST " + server.URL + "/journalctl/$2 | tail -n \"$4\"\n",
	} {
		if err := os.WriteFile(filepath.Join(bin, name), []byte(script), 0o700); err != nil {
			t.Fatal(err)
		}
	}
	// None of the settings of whoever runs the test.
	d.env = []string{"PATH=" + bin + ":" + filepath.Dir(binary) + ":" + os.Getenv("PATH"), "HOME=" + d.dir}
	for name, value := range variables {
		d.set(name, value)
	}
	return d
}

// set sets a variable of the shell.
func (d *desk) set(name, value string) { d.env = append(d.env, name+"="+value) }

// path returns the path of a file at the desk.
func (d *desk) path(name string) string { return filepath.Join(d.dir, name) }

// run runs commands of the runbook. A command that is not there, or a variable that is
// not set, fails the test, as does whatever fails in a step that mends or says that it
// is over. Whoever looks may be told that something is broken.
func (d *desk) run(alert, step, commands string) {
	d.t.Helper()
	flags := "-u"
	if step != stepLook {
		flags = "-eu"
	}
	cmd := exec.CommandContext(d.t.Context(), "bash", flags, "-c", commands)
	cmd.Dir, cmd.Env = d.dir, d.env
	out, err := cmd.CombinedOutput()
	d.t.Logf("%s, %s:\n%s%s", alert, step, commands, out)
	missing := strings.Contains(string(out), "command not found") || strings.Contains(string(out), "unbound variable")
	if missing || err != nil && step != stepLook {
		d.t.Fatalf("%s, %s: %v", alert, step, err)
	}
}

package main

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"github.com/coreos/go-systemd/v22/unit"
)

const (
	unitName = "tokenbroker.service"
	// Where the unit has the binary and the settings.
	installed     = "/usr/local/bin/tokenbroker"
	settingsThere = "/etc/tokenbroker/tokenbroker.yaml"
	// What systemd-analyze may find the exposure to be, times ten. What is left is the
	// network, and that it is on a machine.
	maxExposure = "12"
)

// checkSystemd sees that the binary understands the settings that the unit gives it,
// and that systemd understands the unit and finds it confined.
func checkSystemd(ctx context.Context, dir, binary string) error {
	content, err := os.ReadFile(filepath.Join(dir, unitName))
	if err != nil {
		return err
	}
	options, err := unit.DeserializeOptions(bytes.NewReader(content))
	if err != nil {
		return err
	}
	service := map[string]string{}
	for _, o := range options {
		if o.Section == "Service" {
			service[o.Name] = o.Value
		}
	}
	return errors.Join(startable(ctx, dir, binary, service), stoppable(service), analyzed(ctx, content, binary))
}

// startable has the binary say what it thinks of the unit's settings.
func startable(ctx context.Context, dir, binary string, service map[string]string) error {
	words := strings.Fields(service["ExecStart"])
	if len(words) < 2 || words[0] != installed || words[1] != "serve" {
		return fmt.Errorf("ExecStart is not %s serve", installed)
	}
	args := []string{"doctor", "--output=json", "--timeout=5s"}
	for _, arg := range words[2:] {
		arg = strings.ReplaceAll(arg, settingsThere, filepath.Join(dir, "tokenbroker.yaml"))
		if name, ok := strings.CutPrefix(arg, "--redis-password-file=%d/"); ok && !strings.HasPrefix(service["LoadCredential"], name+":") {
			return fmt.Errorf("there is no credential %s", name)
		}
		args = append(args, arg)
	}
	cmd := exec.CommandContext(ctx, binary, args...)
	cmd.Env = []string{}
	out, _ := cmd.Output() // Nothing of what the settings name is here: that is a problem, and another.
	var said struct {
		Findings []struct{ Check, State, Says string }
	}
	if err := json.Unmarshal(out, &said); err != nil {
		return fmt.Errorf("doctor says: %s", out)
	}
	understood := false
	for _, f := range said.Findings {
		if f.Check == "settings" {
			if f.State != "ok" {
				return errors.New(f.Says)
			}
			understood = true
		}
	}
	if !understood {
		return errors.New("doctor says nothing of the settings")
	}
	return nil
}

// stoppable sees that calls under way may finish, as --drain-timeout has it by default.
func stoppable(service map[string]string) error {
	const drain = 30 * time.Second
	if limit, err := time.ParseDuration(service["TimeoutStopSec"]); err != nil || limit <= drain {
		return fmt.Errorf("TimeoutStopSec must be more than %v", drain)
	}
	return nil
}

// analyzed has systemd read the unit.
func analyzed(ctx context.Context, content []byte, binary string) error {
	program, err := exec.LookPath("systemd-analyze")
	if err != nil {
		fmt.Fprintln(os.Stderr, "systemd: systemd-analyze is not installed, so what systemd makes of the unit was not looked at")
		return nil
	}
	dir, err := os.MkdirTemp("", "deploy")
	if err != nil {
		return err
	}
	defer func() { _ = os.RemoveAll(dir) }()
	path := filepath.Join(dir, unitName)
	// It looks whether the binary is there.
	if err := os.WriteFile(path, bytes.ReplaceAll(content, []byte(installed), []byte(binary)), 0o600); err != nil {
		return err
	}
	var found []error
	for _, args := range [][]string{{"verify"}, {"security", "--offline=true", "--no-pager", "--threshold=" + maxExposure}} {
		out, err := exec.CommandContext(ctx, program, slices.Concat(args, []string{path})...).CombinedOutput()
		lines := strings.Split(strings.TrimSpace(string(out)), "\n")
		last := lines[len(lines)-1]
		switch {
		case err != nil:
			found = append(found, fmt.Errorf("systemd-analyze %s: %w: %s", args[0], err, last))
		case args[0] == "verify" && last != "": // It warns, and exits with 0.
			found = append(found, fmt.Errorf("systemd-analyze verify: %s", strings.Join(lines, "; ")))
		}
	}
	return errors.Join(found...)
}

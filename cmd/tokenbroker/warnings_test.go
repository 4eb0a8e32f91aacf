package main_test

import (
	"os"
	"os/exec"
	"regexp"
	"strings"
	"testing"

	"smokeball.internal/tokenbroker/internal/redisstore/redistest"
)

func TestItWarnsOfARedisThatLosesRegistrations(t *testing.T) {
	for name, test := range map[string]struct {
		args  []string
		warns bool
	}{
		"nothing on disk": {nil, true},
		"a log":           {[]string{"--appendonly", "yes"}, false},
	} {
		p := start(t, serveArgs(redistest.Start(t, test.args...).URL(), keysetFile(t), startIssuer(t))...).ready()
		if test.warns {
			until(t, "warned of", func() bool { return strings.Contains(p.log.String(), `"kind":"no_persistence"`) })
		}
		if got := strings.Contains(p.get("/status"), "Set appendonly yes."); got != test.warns {
			t.Errorf("%s: status %s", name, p.get("/status"))
		}
		for line, want := range map[string]bool{
			`tokenbroker_redis_warnings{kind="no_persistence"} 1`:       test.warns,
			`tokenbroker_redis_warnings{kind="no_persistence"} 0`:       !test.warns,
			`tokenbroker_redis_warnings{kind="evicts_registrations"} 0`: true,
		} {
			if got := strings.Contains(p.get("/metrics"), line); got != want {
				t.Errorf("%s: %s: %v", name, line, got)
			}
		}
		// In time, though it is in the middle of its minute.
		if code := p.terminate(); code != 0 {
			t.Errorf("%s: exit code %d", name, code)
		}
	}
}

func TestDevWarnsOfNothing(t *testing.T) {
	cmd := exec.Command(binary, "dev", "--grpc-addr=127.0.0.1:0", "--ops-addr=127.0.0.1:0", "--simulator-addr=127.0.0.1:0")
	var log logBuffer
	cmd.Stderr = &log
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = cmd.Process.Kill(); _ = cmd.Wait() })
	var ops []string
	until(t, "serving", func() bool {
		ops = regexp.MustCompile(`msg=serving .*ops=(\S+)`).FindStringSubmatch(log.String())
		return ops != nil
	})
	p := &process{ops: ops[1]}
	until(t, "ready", func() bool { return p.get("/readyz") == "ready\n" })
	if status := p.get("/status"); strings.Contains(status, "warnings") {
		t.Errorf("status: %s", status)
	}
	if err := cmd.Process.Signal(os.Interrupt); err != nil {
		t.Fatal(err)
	}
	if err := cmd.Wait(); err != nil || strings.Contains(log.String(), "WARN") {
		t.Errorf("%v: %s", err, log.String())
	}
}

//go:build linux

package main_test

import (
	"fmt"
	"os"
	"os/exec"
	"regexp"
	"strings"
	"syscall"
	"testing"

	"smokeball.internal/tokenbroker/internal/redisstore/redistest"
)

func TestCrashLeavesNoCoreDump(t *testing.T) {
	t.Parallel()
	// Like a user without privileges: root may look into everything.
	unprivileged := []string{"/usr/bin/env"}
	if os.Getuid() == 0 {
		unprivileged = []string{"/usr/bin/setpriv", "--bounding-set=-all", "--inh-caps=-all"}
	}
	p := startConfined(t, []string{"GOTRACEBACK=crash"}, append(unprivileged, binary),
		serveArgs(redistest.Start(t).URL(), keysetFile(t), startIssuer(t))...)
	p.ready()
	read := func(name string) string {
		out, _ := exec.Command(unprivileged[0], append(unprivileged[1:], "cat", fmt.Sprintf("/proc/%d/%s", p.cmd.Process.Pid, name))...).CombinedOutput()
		return string(out)
	}
	if limits := read("limits"); !regexp.MustCompile(`(?m)^Max core file size +0 +0 `).MatchString(limits) {
		t.Errorf("the limits are\n%s", limits)
	}
	// The kernel keeps what may not be dumped from others of the same user too.
	if environment := read("environ"); !strings.HasSuffix(environment, "Permission denied\n") {
		t.Errorf("the environment can be read: %q", environment)
	}
	if !strings.Contains(p.get("/metrics"), "process_open_fds") {
		t.Error("the process cannot see what is its own in /proc any more")
	}
	if err := p.cmd.Process.Signal(syscall.SIGABRT); err != nil {
		t.Fatal(err)
	}
	places := p.written()
	ended, ok := p.cmd.ProcessState.Sys().(syscall.WaitStatus)
	if !ok || ended.Signal() != syscall.SIGABRT || ended.CoreDump() {
		t.Errorf("it ended with %v", p.cmd.ProcessState)
	}
	for place := range places {
		if place != "standard error" && place != "stdout" {
			t.Errorf("it left %s", place)
		}
	}
}

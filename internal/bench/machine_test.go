package bench_test

import (
	"fmt"
	"os"
	"os/exec"
	"runtime"
	"strings"
	"testing"
	"time"
)

// thisMachine says on what is measured, and when, and how busy that was before.
func thisMachine(t *testing.T) string {
	t.Helper()
	read := func(path string) string {
		content, err := os.ReadFile(path)
		if err != nil {
			t.Fatal(err)
		}
		return string(content)
	}
	model := "unknown processor"
	for line := range strings.Lines(read("/proc/cpuinfo")) {
		if name, value, ok := strings.Cut(line, ":"); ok && strings.TrimSpace(name) == "model name" {
			model = strings.TrimSpace(value)
		}
	}
	revision := "not from a repository"
	if out, err := exec.CommandContext(t.Context(), "git", "describe", "--tags", "--always", "--dirty").Output(); err == nil {
		revision = "revision " + strings.TrimSpace(string(out))
	}
	load, _, _ := strings.Cut(read("/proc/loadavg"), " ")
	return fmt.Sprintf("%d cores of %s, Linux %s, %s, %s, %s; the load average before was %s",
		runtime.NumCPU(), model, strings.TrimSpace(read("/proc/sys/kernel/osrelease")), runtime.Version(), revision, time.Now().UTC().Format("2006-01-02 15:04 UTC"), load)
}

package redistest

import (
	"context"
	"os/exec"
	"regexp"
	"strconv"
	"testing"
)

// StartWaiting is Start for a server that has WAITAOF: redis-server from version
// 7.2 on, else valkey-server. Without one of them the test fails.
func StartWaiting(t testing.TB, args ...string) *Server {
	t.Helper()
	path := redisServer(t)
	if !hasWAITAOF(path) {
		var err error
		if path, err = exec.LookPath("valkey-server"); err != nil {
			t.Fatal("tests need a server that has WAITAOF, which `make test` installs on Debian: Redis 7.2 or later as redis-server, or Valkey as valkey-server")
		}
	}
	return launch(t, program{path: path, args: fixed(args)})
}

// hasWAITAOF says whether a server is Redis 7.2 or later. What is not Redis, but
// has its name, says a version of its own that is later than that.
func hasWAITAOF(path string) bool {
	says, _ := exec.CommandContext(context.Background(), path, "--version").Output()
	version := regexp.MustCompile(`v=(\d+)\.(\d+)`).FindSubmatch(says)
	if version == nil {
		return false
	}
	major, _ := strconv.Atoi(string(version[1]))
	minor, _ := strconv.Atoi(string(version[2]))
	return major > 7 || major == 7 && minor >= 2
}

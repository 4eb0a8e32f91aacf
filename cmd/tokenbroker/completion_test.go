package main_test

import (
	"errors"
	"os/exec"
	"strings"
	"testing"
	"time"

	goredis "github.com/redis/go-redis/v9"

	"smokeball.internal/tokenbroker/internal/redisstore/redistest"
)

func TestCompleteSaysWhatMayCome(t *testing.T) {
	t.Parallel()
	for _, test := range []struct{ words, want string }{
		{"", "serve dev keyset tenants audit access doctor health completion"},
		{"doc", "doctor"},
		{"comp", "completion"}, // And not what the scripts ask.
		{"keyset ", "new rotate reseal prune show wrap"},
		{"tenants --insecure get --outp", "--output"},
		{"tenants list --output ", "table json"},
		{"tenants list --output=", "--output=table --output=json"},
		{"tenants list --output json --ti", "--timeout"},
		{"tenants create acme --region ", "us au uk"},
		{"serve --log-level d", "debug"},
		{"serve --no-such-flag=", ""},
		{"serve --keyset-file ", ""}, // A file: the shell knows.
		{"completion ", "bash zsh fish"},
		{"completion bash ", ""},
		{"tenants get --addr=127.0.0.1:1 --insecure ", ""}, // Nobody is there to ask.
		{"no-such-command ", "serve dev keyset tenants audit access doctor health completion"},
	} {
		words := strings.Split(test.words, " ")
		stdout, stderr, code := verb(t, "", append([]string{"complete", "--"}, words...)...)
		if got := strings.Join(strings.Fields(stdout), " "); got != test.want || code != 0 || stderr != "" {
			t.Errorf("%q: %q, want %q (exit code %d: %s)", test.words, got, test.want, code, stderr)
		}
	}
}

// Who can write to Redis can have the API list what is no id, and a shell would put it
// on the command line as it is.
func TestWhatIsNoTenantsIDIsNotCompleted(t *testing.T) {
	t.Parallel()
	redis := redistest.Start(t)
	p := start(t, serveArgs(redis.URL(), keysetFile(t), startIssuer(t))...).ready()
	register(t, p.connect(), startIssuer(t), "acme", time.Hour)
	for _, id := range []string{"acme;$(touch /tmp/planted)", "acme\x1b]0;planted\a", "acme and sons", "acme-\nplanted", "acme*"} {
		planted := redis.Client().ZAdd(t.Context(), "tokenbroker:{tenants}:index", goredis.Z{Member: id}).Err()
		if err := errors.Join(planted, redis.Client().HSet(t.Context(), "tokenbroker:{tenants}:records", id, "no record").Err()); err != nil {
			t.Fatal(err)
		}
	}
	stdout, stderr, code := verb(t, "", "complete", "--", "tenants", "get", "--insecure", "--addr="+p.grpc, "ac")
	if stdout != "acme\n" || code != 0 {
		t.Errorf("completed: %q (exit code %d: %s)", stdout, code, stderr)
	}
}

func TestCompletionScriptsAreWellFormed(t *testing.T) {
	t.Parallel()
	for shell, check := range map[string][]string{"bash": {"-n"}, "zsh": {"-n"}, "fish": {"--no-execute"}} {
		script, stderr, code := verb(t, "", "completion", shell)
		if code != 0 || !strings.Contains(script, "complete --") {
			t.Errorf("%s: exit code %d: %s", shell, code, stderr)
		}
		program, err := exec.LookPath(shell)
		if err != nil {
			t.Logf("%s is not installed, and its script was not read by it", shell)
			continue
		}
		cmd := exec.Command(program, check...)
		cmd.Stdin = strings.NewReader(script)
		if out, err := cmd.CombinedOutput(); err != nil {
			t.Errorf("%s: %v: %s", shell, err, out)
		}
	}
	if _, stderr, code := verb(t, "", "completion", "csh"); code != 2 || !strings.Contains(stderr, "bash") {
		t.Errorf("csh: exit code %d: %s", code, stderr)
	}
}

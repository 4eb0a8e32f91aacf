package main_test

import (
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"smokeball.internal/tokenbroker/internal/redisstore/redistest"
)

func TestABackupIsWrittenWholeOrNotAtAll(t *testing.T) {
	redis, keyset, dir := redistest.Start(t), keysetFile(t), t.TempDir()
	registered(t, redis, keyset, 0, 1)
	there := filepath.Join(dir, "there")
	if err := os.WriteFile(there, []byte("as it was"), 0o600); err != nil {
		t.Fatal(err)
	}
	empty := redistest.Start(t)
	for _, test := range []struct {
		name, says string
		args       []string
	}{
		{"over a file", "exists", export(redis, keyset, there)},
		{"in a directory that is not there", "no such file", export(redis, keyset, filepath.Join(dir, "none", "file"))},
		{"in one that cannot be written to", "/proc/", export(redis, keyset, "/proc/tenants")},
		{"as a directory", "exists", export(redis, keyset, dir)},
		{"of nothing", "no registry", export(empty, keyset, filepath.Join(dir, "nothing"))},
		{"under another prefix", "no registry", append(export(redis, keyset, filepath.Join(dir, "nothing")), "--redis-prefix=other:")},
		{"without Redis", "refused", append(export(redis, keyset, filepath.Join(dir, "nothing")), "--redis-url=redis://127.0.0.1:1")},
		{"without a keyset", "/nonexistent", append(export(redis, keyset, filepath.Join(dir, "nothing")), "--keyset-file=/nonexistent")},
	} {
		if stdout, stderr, code := verb(t, "", test.args...); code != 1 || stdout != "" || !strings.Contains(stderr, test.says) {
			t.Errorf("%s: exit code %d, %q, %q", test.name, code, stdout, stderr)
		}
	}
	if left, err := filepath.Glob(filepath.Join(dir, "*")); err != nil || len(left) != 1 {
		t.Errorf("left behind: %q, %v", left, err)
	}
	if content, err := os.ReadFile(there); err != nil || string(content) != "as it was" {
		t.Errorf("what was there is %q now, %v", content, err)
	}
	hanging := func(file string) *exec.Cmd {
		redis.Pause()
		cmd := exec.CommandContext(t.Context(), binary, export(redis, keyset, filepath.Join(dir, file))...)
		if err := cmd.Start(); err != nil {
			t.Fatal(err)
		}
		until(t, "begun", func() bool { left, _ := filepath.Glob(filepath.Join(dir, file+"*")); return len(left) == 1 })
		return cmd
	}
	want := func(what, file string, cmd *exec.Cmd, files int) {
		t.Helper()
		_ = cmd.Wait()
		if left, _ := filepath.Glob(filepath.Join(dir, file+"*")); len(left) != files || cmd.ProcessState.ExitCode() != 1 {
			t.Errorf("%s: exit code %d, left behind %q", what, cmd.ProcessState.ExitCode(), left)
		}
	}
	cmd := hanging("nothing")
	_ = cmd.Process.Signal(os.Interrupt)
	want("after Ctrl-C", "nothing", cmd, 0)
	redis.Resume()
	// Another's file comes meanwhile.
	cmd = hanging("meanwhile")
	meanwhile := filepath.Join(dir, "meanwhile")
	if err := os.WriteFile(meanwhile, []byte("of another"), 0o600); err != nil {
		t.Fatal(err)
	}
	redis.Resume()
	want("over a file that came meanwhile", "meanwhile", cmd, 1)
	if content, err := os.ReadFile(meanwhile); err != nil || string(content) != "of another" {
		t.Errorf("what came meanwhile is %q now, %v", content, err)
	}
}

func TestABackupGoesThroughAPipe(t *testing.T) {
	redis, keyset := redistest.Start(t), keysetFile(t)
	registered(t, redis, keyset, 0, 3)
	file, said, code := verb(t, "", export(redis, keyset, "-")...)
	if code != 0 || !strings.Contains(said, "exported 3 to standard output") || strings.Count(file, "\n") != 5 || strings.Contains(file, "planted") {
		t.Fatalf("exit code %d, %q: %s", code, said, file)
	}
	flush(t, redis)
	// The settings are those of the server's file.
	settings := filepath.Join(t.TempDir(), "tokenbroker.yaml")
	if err := os.WriteFile(settings, []byte(fmt.Sprintf("grpc-addr: 0.0.0.0:9090\nredis-url: %s\nredis-prefix: 'other:'\nkeyset-file: %s\n", redis.URL(), keyset)), 0o600); err != nil {
		t.Fatal(err)
	}
	stdout, stderr, code := verb(t, file, "tenants", "import", "--config="+settings, "-")
	if code != 0 || stdout != "imported 3, already there 0, different and left 0, unreadable 0\n" || stderr != "" {
		t.Errorf("exit code %d, %q, %q", code, stdout, stderr)
	}
	if n := redis.Client().HLen(t.Context(), "other:{tenants}:records").Val(); n != 3 {
		t.Errorf("%d under the prefix of the file", n)
	}
}

func TestAnImportOfWhatIsNoWholeBackupChangesNothing(t *testing.T) {
	redis, keyset := redistest.Start(t), keysetFile(t)
	registered(t, redis, keyset, 0, 2)
	file, _, _ := verb(t, "", export(redis, keyset, "-")...)
	flush(t, redis)
	lines := strings.SplitAfter(file, "\n")
	for _, test := range []struct{ name, file, says string }{
		{"empty", "", "no backup"},
		{"another file", "firm,planted\n", "no backup"},
		{"truncated", file[:len(file)-1], "end is missing"},
		{"without its end", lines[0] + lines[1] + lines[2], "end is missing"},
		{"header changed", strings.Replace(file, "tokenbroker:", "tokenbroken:", 1), "damaged"},
		{"record changed", strings.Replace(file, `"record":"`, `"record":"AAAA`, 1), "damaged"},
		{"trailer changed", strings.Replace(file, `"count":2`, `"count":1`, 1), "damaged"},
		{"two of them", file + file, "more follows"},
		{"newer", strings.Replace(file, `"version":1`, `"version":2`, 1), "newer format"},
	} {
		path := filepath.Join(t.TempDir(), "file")
		if err := os.WriteFile(path, []byte(test.file), 0o600); err != nil {
			t.Fatal(err)
		}
		stdout, stderr, code := verb(t, "", importing(redis, keyset, path, "--overwrite")...)
		if code != 1 || stdout != "" || !strings.Contains(stderr, test.says) || !strings.Contains(stderr, "nothing was changed") || strings.Contains(stderr, "planted") {
			t.Errorf("%s: exit code %d, %q, %q", test.name, code, stdout, stderr)
		}
	}
	stdout, stderr, code := verb(t, file, importing(redis, keysetFile(t), "-")...)
	if code != 1 || stdout != "" || !strings.Contains(stderr, "nothing was changed: the keyset opens none") {
		t.Errorf("another keyset: exit code %d, %q, %q", code, stdout, stderr)
	}
	if stdout, stderr, code := verb(t, file, importing(redis, keyset, "-", "--dry-run")...); code != 0 ||
		stdout != "nothing was changed; it would be: imported 2, already there 0, different and left 0, unreadable 0\n" || stderr != "" {
		t.Errorf("dry run: exit code %d, %q, %q", code, stdout, stderr)
	}
	if n := redis.Client().DBSize(t.Context()).Val(); n != 0 {
		t.Errorf("%d keys", n)
	}
}

func TestWhatAnImportLeavesIsNamed(t *testing.T) {
	redis, keyset := redistest.Start(t), keysetFile(t)
	registered(t, redis, keyset, 0, 1)
	file, _, _ := verb(t, "", export(redis, keyset, "-")...)
	flush(t, redis)
	registered(t, redis, keyset, 0, 1) // Another one of the same name.
	for _, test := range []struct {
		name, stdout, stderr string
		code                 int
		more                 []string
	}{
		{"left", "imported 0, already there 0, different and left 1, unreadable 0\n", "tenants/firm-0 is there in another version: left\n", 1, nil},
		{"would be replaced", "nothing was changed; it would be: imported 0, already there 0, different and replaced 1, unreadable 0\n",
			"tenants/firm-0 is there in another version: replaced\n", 0, []string{"--overwrite", "--dry-run"}},
		{"replaced", "imported 0, already there 0, different and replaced 1, unreadable 0\n", "tenants/firm-0 is there in another version: replaced\n", 0, []string{"--overwrite"}},
		{"there", "imported 0, already there 1, different and left 0, unreadable 0\n", "a new registry was begun", 0, nil},
	} {
		stdout, stderr, code := verb(t, file, importing(redis, keyset, "-", test.more...)...)
		if code != test.code || stdout != test.stdout || !strings.Contains(stderr, test.stderr) {
			t.Errorf("%s: exit code %d, %q, %q", test.name, code, stdout, stderr)
		}
	}
	registered(t, redis, keysetFile(t), 1, 2)
	out := filepath.Join(t.TempDir(), "file")
	stdout, stderr, code := verb(t, "", export(redis, keyset, out)...)
	if code != 1 || !strings.Contains(stdout, "exported 2 to "+out+", unreadable 1") || !strings.Contains(stderr, "tenants/firm-1 cannot be opened") {
		t.Errorf("exit code %d, %q, %q", code, stdout, stderr)
	}
	flush(t, redis)
	stdout, stderr, code = verb(t, "", importing(redis, keyset, out)...)
	if code != 1 || stdout != "imported 1, already there 0, different and left 0, unreadable 1\n" || !strings.Contains(stderr, "tenants/firm-1 cannot be opened") {
		t.Errorf("exit code %d, %q, %q", code, stdout, stderr)
	}
}

func TestTheVerbsOfTenantsAreUsedAsTheyAreMeant(t *testing.T) {
	for _, args := range [][]string{{"tenants"}, {"tenants", "export"}, {"tenants", "import"}, {"tenants", "import", "file"},
		{"tenants", "export", "file", "--keyset-file=k", "--overwrite"}} {
		if stdout, stderr, code := verb(t, "", args...); code != 2 || stdout != "" || !strings.Contains(stderr, "--help") {
			t.Errorf("%v: exit code %d, %q, %q", args, code, stdout, stderr)
		}
	}
}

package main_test

import (
	"encoding/json"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
	"time"

	"smokeball.internal/tokenbroker/internal/redisstore/redistest"
	"smokeball.internal/tokenbroker/internal/seal"
	"smokeball.internal/tokenbroker/internal/seal/kmstest"
)

func keysetVerb(redis *redistest.Server, name, keyset string) []string {
	return append([]string{"keyset", name}, where(redis, keyset)...)
}

// wantRefused runs the binary, which must exit with 1, say this, and leave the keyset as it is.
func wantRefused(t *testing.T, keyset, says string, args ...string) {
	t.Helper()
	before, err := os.ReadFile(keyset)
	if err != nil {
		t.Fatal(err)
	}
	stdout, stderr, code := verb(t, "", args...)
	if code != 1 || !strings.Contains(stderr, says) || strings.Contains(stdout, "removed") {
		t.Errorf("%v: exit code %d, %q, %q; want %q", args, code, stdout, stderr, says)
	}
	if after, err := os.ReadFile(keyset); err != nil || string(after) != string(before) {
		t.Errorf("%v: the keyset was changed (%v)", args, err)
	}
}

// wantRotated adds a key to a keyset, and has the clock go on until it seals for long.
func wantRotated(t *testing.T, keyset string) {
	t.Helper()
	stdout, stderr, code := verb(t, "", "keyset", "rotate", keyset)
	said := regexp.MustCompile(`^added a key to ` + regexp.QuoteMeta(keyset) + `, which seals from (\S+) on: give the file to every replica before that; then run "tokenbroker keyset reseal"\n$`).FindStringSubmatch(stdout)
	if said == nil || stderr != "" || code != 0 {
		t.Fatalf("exit code %d, %q, %q", code, stdout, stderr)
	}
	if at, err := time.Parse(time.RFC3339, said[1]); err != nil || time.Until(at) > time.Hour || time.Until(at) < 55*time.Minute {
		t.Errorf("seals from %s on, which is not in an hour", said[1])
	}
	wantRefused(t, keyset, "the last rotation is not in effect yet: its key seals from "+said[1]+" on", "keyset", "rotate", keyset, "--effective-in=0s")
}

// passed has the last rotation be in effect since long ago.
func passed(t *testing.T, keyset string) {
	t.Helper()
	content, err := os.ReadFile(keyset)
	if err != nil {
		t.Fatal(err)
	}
	var f map[string]any
	if err := json.Unmarshal(content, &f); err != nil {
		t.Fatal(err)
	}
	f["rotation"].(map[string]any)["effective_time"] = "2026-01-02T03:04:05Z"
	if content, err = json.Marshal(f); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(keyset, content, 0o600); err != nil {
		t.Fatal(err)
	}
}

// keysIn returns which keys a file has.
func keysIn(t *testing.T, keyset string) seal.Status {
	t.Helper()
	k, err := seal.Load(t.Context(), keyset)
	if err != nil {
		t.Fatal(err)
	}
	return k.Status()
}

func TestAKeyIsReplacedAndGoes(t *testing.T) {
	redis, keyset := redistest.Start(t), keysetFile(t)
	registered(t, redis, keyset, 0, 20)
	first := keysIn(t, keyset).Seals
	wantVerb(t, fmt.Sprintf("KEY         WHAT IT DOES\n%-10d  opens and seals", first), "keyset", "show", keyset)
	wantVerb(t, "sealed anew 0, up to date 20, unreadable 0", keysetVerb(redis, "reseal", keyset)...)
	wantVerb(t, keyset+" has one key only: there is nothing to remove", keysetVerb(redis, "prune", keyset)...)

	wantRotated(t, keyset)
	s := keysIn(t, keyset)
	at := s.Since.Format(time.RFC3339)
	wantVerb(t, fmt.Sprintf("KEY         WHAT IT DOES\n%-10d  opens, and seals until %s\n%-10d  opens, and seals from %s on", first, at, s.Next, at), "keyset", "show", keyset)
	wantRefused(t, keyset, "not in effect yet", keysetVerb(redis, "reseal", keyset)...)
	wantRefused(t, keyset, "not in effect yet", keysetVerb(redis, "prune", keyset)...)

	passed(t, keyset)
	wantRefused(t, keyset, `nothing was removed: 20 records are sealed with keys that would go: run "tokenbroker keyset reseal" first`, keysetVerb(redis, "prune", keyset)...)
	wantVerb(t, "sealed anew 20, up to date 0, unreadable 0", keysetVerb(redis, "reseal", keyset)...)
	// Nobody can say what is in a Redis that cannot be asked, or is another.
	wantRefused(t, keyset, "connection refused", append(keysetVerb(redis, "prune", keyset), "--redis-url=redis://127.0.0.1:1")...)
	wantRefused(t, keyset, "no registry", append(keysetVerb(redis, "prune", keyset), "--redis-prefix=other:")...)
	wantRefused(t, keyset, "no registry", append(keysetVerb(redis, "reseal", keyset), "--redis-prefix=other:")...)
	wantVerb(t, fmt.Sprintf("KEY         WHAT IT DOES\n%-10d  opens\n%-10d  opens, and seals since 2026-01-02T03:04:05Z", first, s.Next), "keyset", "show", keyset)
	wantVerb(t, "removed 1 from the keys of "+keyset+": give it to every replica. Backups and dumps from before open with a copy of the file from before only",
		keysetVerb(redis, "prune", keyset)...)
	wantVerb(t, fmt.Sprintf("KEY         WHAT IT DOES\n%-10d  opens and seals", s.Next), "keyset", "show", keyset)
	wantVerb(t, "sealed anew 0, up to date 20, unreadable 0", keysetVerb(redis, "reseal", keyset)...)
}

func TestWhatCannotBeOpenedKeepsTheKeys(t *testing.T) {
	redis, keyset := redistest.Start(t), keysetFile(t)
	registered(t, redis, keyset, 0, 3)
	registered(t, redis, keysetFile(t), 3, 4)
	wantRotated(t, keyset)
	passed(t, keyset)
	stdout, stderr, code := verb(t, "", keysetVerb(redis, "reseal", keyset)...)
	if code != 1 || stdout != "sealed anew 3, up to date 0, unreadable 1\n" || !strings.Contains(stderr, "tenants/firm-3: sealed record cannot be opened: there is no key ") {
		t.Errorf("exit code %d, %q, %q", code, stdout, stderr)
	}
	wantRefused(t, keyset, "nothing was removed: 1 records cannot be opened, even with the keys that would go", keysetVerb(redis, "prune", keyset)...)
}

func TestAResealThatIsKilledIsFinishedByTheNext(t *testing.T) {
	redis, keyset := redistest.Start(t), keysetFile(t)
	const n = 5000
	registered(t, redis, keyset, 0, n)
	wantRotated(t, keyset)
	passed(t, keyset)
	first := redis.Client().HGet(t.Context(), "tokenbroker:{tenants}:records", "firm-0").Val()
	cmd := exec.CommandContext(t.Context(), binary, keysetVerb(redis, "reseal", keyset)...)
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	// It goes by the order of the ids, and this is the first.
	for deadline := time.Now().Add(20 * time.Second); time.Now().Before(deadline); {
		if redis.Client().HGet(t.Context(), "tokenbroker:{tenants}:records", "firm-0").Val() != first {
			break
		}
	}
	_ = cmd.Process.Kill()
	_ = cmd.Wait()
	stdout, stderr, code := verb(t, "", keysetVerb(redis, "reseal", keyset)...)
	var anew, current int
	if _, err := fmt.Sscanf(stdout, "sealed anew %d, up to date %d, unreadable 0\n", &anew, &current); err != nil || stderr != "" || code != 0 {
		t.Fatalf("exit code %d, %q, %q", code, stdout, stderr)
	}
	if anew == 0 || current == 0 || anew+current != n {
		t.Errorf("%d were left and %d done: not killed in the middle", anew, current)
	}
}

func TestAKeysetIsEncryptedByAKMS(t *testing.T) {
	kms := kmstest.Start(t)
	kms.Use(t)
	redis, keyset := redistest.Start(t), filepath.Join(t.TempDir(), "keyset.json")
	in := func(env []string, args ...string) (string, int) {
		cmd := exec.CommandContext(t.Context(), binary, args...)
		cmd.Env = env
		out, _ := cmd.CombinedOutput()
		return string(out), cmd.ProcessState.ExitCode()
	}
	if out, code := in(kms.Env(), "keyset", "new", keyset, "--kms-key-uri="+kmstest.KeyURI); code != 0 {
		t.Fatalf("exit code %d, %s", code, out)
	}
	if content, err := os.ReadFile(keyset); err != nil || !strings.Contains(string(content), "encryptedKeyset") || strings.Contains(string(content), "keyData") {
		t.Errorf("in the file is %s (%v)", content, err)
	}
	if out, code := in(kms.Env(), "keyset", "show", keyset); code != 0 || !strings.HasSuffix(out, "\nencrypted with "+kmstest.KeyURI+"\n") {
		t.Errorf("exit code %d, %s", code, out)
	}
	if out, code := in(kms.Env(), "keyset", "rotate", keyset, "--effective-in=0s"); code != 0 || !strings.Contains(out, "seals from now on: what it seals is refused by replicas that do not have the file yet;") {
		t.Errorf("exit code %d, %s", code, out)
	}
	startProgram(t, binary, kms.Env(), serveArgs(redis.URL(), keyset, startIssuer(t))...).ready()
	// Somebody who has the file and is not let in by the KMS has nothing. It is one
	// line that says so, and nothing that a library has to say.
	kms.Refuse("AccessDeniedException")
	want := `tokenbroker: keyset: keyset ` + keyset + `: its "aead" part cannot be decrypted: AWS KMS Decrypt: AccessDeniedException` + "\n"
	if out, code := in(kms.Env(), serveArgs(redis.URL(), keyset, startIssuer(t))...); code != 1 || out != want {
		t.Errorf("exit code %d, %s", code, out)
	}
	nobody := append(kms.Env(), "AWS_ACCESS_KEY_ID=", "AWS_EC2_METADATA_DISABLED=", "AWS_EC2_METADATA_SERVICE_ENDPOINT=http://127.0.0.1:1")
	if out, code := in(nobody, "keyset", "show", keyset); code != 1 || strings.Count(out, "\n") != 1 || !strings.Contains(out, "AWS ec2imds") {
		t.Errorf("exit code %d, %s", code, out)
	}

	clear := keysetFile(t)
	kms.Refuse("")
	if out, code := in(kms.Env(), "keyset", "wrap", clear, "--kms-key-uri="+kmstest.KeyURI); code != 0 || !strings.HasPrefix(out, "encrypted "+clear+": give it to every replica") {
		t.Errorf("exit code %d, %s", code, out)
	}
	if keysIn(t, clear).KMSKeyURI != kmstest.KeyURI {
		t.Error("it is not encrypted")
	}
}

func TestAKeysetThatEverybodyMayReadIsPointedOut(t *testing.T) {
	keyset := keysetFile(t)
	if err := os.Chmod(keyset, 0o644); err != nil {
		t.Fatal(err)
	}
	if _, stderr, code := verb(t, "", "keyset", "show", keyset); code != 0 || stderr != keyset+" may be read by everybody on this machine\n" {
		t.Errorf("exit code %d, %q", code, stderr)
	}
}

package main_test

import (
	"encoding/json"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"google.golang.org/grpc"

	pb "smokeball.internal/tokenbroker/gen/tokenbroker/v1"
	"smokeball.internal/tokenbroker/internal/redisstore/redistest"
)

// skewVariable says by how many seconds a binary of buildSkewed has its wall
// clock wrong.
const skewVariable = "TEST_CLOCK_SKEW"

// buildSkewed builds the binary with a standard library whose wall clock can be
// wrong: on Linux, Go reads it without asking anything that could be put in
// between. Monotonic time stays as it is, as it does on a machine whose clock is
// wrong.
func buildSkewed(t *testing.T) string {
	t.Helper()
	goroot, err := exec.Command("go", "env", "GOROOT").Output()
	if err != nil {
		t.Fatal(err)
	}
	source := filepath.Join(strings.TrimSpace(string(goroot)), "src", "time", "time.go")
	text, err := os.ReadFile(source)
	if err != nil {
		t.Fatal(err)
	}
	patched := string(text)
	for _, change := range []struct{ from, to string }{
		{"\t_ \"unsafe\" // for go:linkname\n", "\t\"syscall\"\n\t_ \"unsafe\" // for go:linkname\n"},
		{"func Now() Time {\n\tsec, nsec, mono := runtimeNow()\n", "func Now() Time {\n\tsec, nsec, mono := runtimeNow()\n\tsec += testClockSkew\n"},
	} {
		if strings.Count(patched, change.from) != 1 {
			t.Fatalf("%s is not what this test knows: %q is not there once", source, change.from)
		}
		patched = strings.Replace(patched, change.from, change.to, 1)
	}
	patched += `
var testClockSkew = func() int64 {
	text, _ := syscall.Getenv("` + skewVariable + `")
	negative := len(text) > 0 && text[0] == '-'
	if negative {
		text = text[1:]
	}
	seconds := int64(0)
	for _, digit := range []byte(text) {
		seconds = 10*seconds + int64(digit-'0')
	}
	if negative {
		return -seconds
	}
	return seconds
}()
`
	dir := t.TempDir()
	replacement, overlay, program := filepath.Join(dir, "time.go"), filepath.Join(dir, "overlay.json"), filepath.Join(dir, "tokenbroker")
	replace, err := json.Marshal(map[string]map[string]string{"Replace": {source: replacement}})
	if err != nil {
		t.Fatal(err)
	}
	for path, content := range map[string]string{replacement: patched, overlay: string(replace)} {
		if err := os.WriteFile(path, []byte(content), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	// Everything is compiled anew the first time, the standard library included.
	begun := time.Now()
	if out, err := goBuild(t.Context(), "-overlay", overlay, "-o", program, ".").CombinedOutput(); err != nil {
		t.Fatalf("%v: %s", err, out)
	}
	t.Logf("built in %v", time.Since(begun).Round(time.Second))
	return program
}

// TestReplicasWithWrongClocksServeRightTokens has replicas whose clocks are ten
// minutes behind, right, and ten minutes ahead. Each token that they hand out is
// measured by the clock of the issuer and the callers.
func TestReplicasWithWrongClocksServeRightTokens(t *testing.T) {
	t.Parallel()
	const life, duration = 20 * time.Second, time.Minute
	program := buildSkewed(t)
	redis, keyset, issuer := redistest.Start(t), keysetFile(t), startIssuer(t)
	var conns []*grpc.ClientConn
	for _, skew := range []time.Duration{-10 * time.Minute, 0, 10 * time.Minute} {
		p := startProgram(t, program, []string{fmt.Sprintf("%s=%d", skewVariable, int(skew.Seconds()))}, serveArgs(redis.URL(), keyset, issuer, "--log-level=info")...)
		conn := p.ready().connect()
		if off := clockOf(t, conn, issuer, fmt.Sprintf("clock-%d", len(conns))) - skew; off.Abs() > 10*time.Second {
			t.Fatalf("the clock of a replica is wrong by %v and should be by %v", skew+off, skew)
		}
		conns = append(conns, conn)
	}
	lives := map[string]time.Duration{}
	for n := range 20 {
		id := fmt.Sprintf("firm-%d", n)
		lives[id] = life
		register(t, conns[n%len(conns)], issuer, id, life) // Times in a record are by the clock of one of them.
	}
	l := startLoad(t, lives, conns...)
	begun := time.Now()
	lasts(t, duration) // For some lives of a token.
	// A token is replaced after 70 % of its life at the earliest, but for one that
	// was bought together with those of many others, as these are at first.
	ideal := 1 + int(time.Since(begun)/(life*7/10))
	bought, sold, most := map[string]int{}, 0, 0
	for id := range lives {
		bought[id] = issuer.Bought("client-" + id)
		sold += bought[id]
		most = max(most, bought[id])
		if bought[id] > ideal+1 || bought[id] < 3 {
			t.Errorf("%s: %d tokens in %v, %d would be ideal and one more is allowed", id, bought[id], duration, ideal)
		}
	}
	lasts(t, slack) // The callers take what was bought last.
	l.stop()
	n := l.take()
	for id := range lives {
		if used := len(l.tokens[id]); used < bought[id] {
			t.Errorf("%s: %d tokens bought, %d of them handed out", id, bought[id], used)
		}
	}
	t.Logf("%v", n)
	t.Logf("%d tenants for %v, tokens of %v: %d exchanges, %d for a tenant at most, %d would be ideal", len(lives), duration, life, sold, most, ideal)
	if n.failedWithout > 0 {
		t.Errorf("the issuer sells, and %d calls fail", n.failedWithout)
	}
}

// clockOf returns by how much the clock of a replica differs from the one here.
func clockOf(t *testing.T, conn *grpc.ClientConn, issuer *issuer, id string) time.Duration {
	t.Helper()
	register(t, conn, issuer, id, time.Hour)
	resp, err := pb.NewTenantServiceClient(conn).GetTenant(t.Context(), &pb.GetTenantRequest{Name: "tenants/" + id})
	if err != nil {
		t.Fatal(err)
	}
	return time.Until(resp.GetTenant().GetCreateTime().AsTime())
}

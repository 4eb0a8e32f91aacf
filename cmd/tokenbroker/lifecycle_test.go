package main_test

import (
	"encoding/json"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	healthpb "google.golang.org/grpc/health/grpc_health_v1"

	pb "smokeball.internal/tokenbroker/gen/tokenbroker/v1"
	"smokeball.internal/tokenbroker/internal/redisstore/redistest"
	"smokeball.internal/tokenbroker/internal/simulator"
)

func TestItStartsWithoutRedisAndBecomesReadyWithIt(t *testing.T) {
	redis, issuer := redistest.Start(t), startIssuer(t)
	redis.Kill()
	p := start(t, serveArgs(redis.URL(), keysetFile(t), issuer)...)
	conn := p.connect()
	health := func() healthpb.HealthCheckResponse_ServingStatus {
		resp, err := healthpb.NewHealthClient(conn).Check(t.Context(), &healthpb.HealthCheckRequest{Service: "tokenbroker.v1.TokenService"})
		if err != nil {
			t.Fatal(err)
		}
		return resp.GetStatus()
	}
	if live, ready := p.get("/livez"), p.get("/readyz"); live != "live\n" || !strings.Contains(ready, "Redis") {
		t.Errorf("without Redis: live %q, ready %q", live, ready)
	}
	if got := health(); got != healthpb.HealthCheckResponse_NOT_SERVING {
		t.Errorf("without Redis: %v", got)
	}
	if _, err := get(t.Context(), conn, "acme"); reason(err) != "Unavailable/STORE_UNAVAILABLE" {
		t.Errorf("without Redis: %v", err)
	}
	probe := exec.Command(binary, "health", "--ops-addr="+p.ops)
	if out, err := probe.CombinedOutput(); err == nil || !strings.Contains(string(out), "not ready") {
		t.Errorf("health verb: %v, %s", err, out)
	}
	redis.Restart()
	p.ready()
	if got := health(); got != healthpb.HealthCheckResponse_SERVING {
		t.Errorf("with Redis: %v", got)
	}
	if out, err := exec.Command(binary, "health", "--ops-addr="+p.ops).CombinedOutput(); err != nil || string(out) != "ready\n" {
		t.Errorf("health verb: %v, %s", err, out)
	}
	register(t, conn, issuer, "acme", time.Hour)
	if _, err := get(t.Context(), conn, "acme"); err != nil {
		t.Error(err)
	}
}

func TestItServesWhatItHasWhileRedisIsAway(t *testing.T) {
	f := startFleet(t, 1)
	register(t, f.conns[0], f.issuer, "acme", time.Hour)
	before, err := get(t.Context(), f.conns[0], "acme")
	if err != nil {
		t.Fatal(err)
	}
	f.redis.Kill()
	for range 100 {
		tok, err := get(t.Context(), f.conns[0], "acme")
		if err != nil || tok.GetTokenId() != before.GetTokenId() {
			t.Fatalf("without Redis: %v, %v", tok.GetTokenId(), err)
		}
	}
	if got := f.replicas[0].get("/readyz"); got != "ready\n" {
		t.Errorf("ready: %q", got)
	}
	if got := f.replicas[0].get("/status"); !strings.Contains(got, "out of reach") {
		t.Errorf("status: %q", got)
	}
}

func TestItDrainsAndExitsCleanly(t *testing.T) {
	f := startFleet(t, 1)
	register(t, f.conns[0], f.issuer, "acme", time.Hour)
	if err := f.issuer.SetFault("client-acme", simulator.Fault{Kind: simulator.KindDelay, Delay: 2 * time.Second}); err != nil {
		t.Fatal(err)
	}
	var caller sync.WaitGroup
	caller.Go(func() {
		if _, err := get(t.Context(), f.conns[0], "acme"); err != nil {
			t.Errorf("a call that was under way: %v", err)
		}
	})
	until(t, "under way", func() bool { return f.issuer.Requests("client-acme") == 1 })
	watch, err := healthpb.NewHealthClient(f.conns[0]).Watch(t.Context(), &healthpb.HealthCheckRequest{})
	if err != nil {
		t.Fatal(err)
	}
	if resp, err := watch.Recv(); err != nil || resp.GetStatus() != healthpb.HealthCheckResponse_SERVING {
		t.Fatalf("health: %v, %v", resp, err)
	}
	caller.Go(func() {
		if resp, err := watch.Recv(); err != nil || resp.GetStatus() != healthpb.HealthCheckResponse_NOT_SERVING {
			t.Errorf("health while draining: %v, %v", resp, err)
		}
	})
	if code := f.replicas[0].terminate(); code != 0 {
		t.Errorf("exit code %d", code)
	}
	caller.Wait()
	for _, line := range strings.Split(strings.TrimSpace(f.replicas[0].log.String()), "\n") {
		if !json.Valid([]byte(line)) {
			t.Errorf("not a JSON record: %s", line)
		}
	}
}

// It is off the list of replicas before its last call has ended, after which it has a few
// seconds at most until it is killed.
func TestItTakesItsLeaveWhileCallsFinish(t *testing.T) {
	t.Parallel()
	redis, issuer := redistest.Start(t), startIssuer(t)
	p := start(t, serveArgs(redis.URL(), keysetFile(t), issuer)...).ready()
	conn := p.connect()
	register(t, conn, issuer, "acme", time.Hour)
	listed := func() bool { return redis.Client().ZCard(t.Context(), "tokenbroker:{tenants}:replicas").Val() > 0 }
	until(t, "on the list", listed)
	if err := issuer.SetFault("client-acme", simulator.Fault{Kind: simulator.KindDelay, Delay: 3 * time.Second}); err != nil {
		t.Fatal(err)
	}
	answered, ended := make(chan error, 1), make(chan int, 1)
	go func() {
		_, err := get(t.Context(), conn, "acme")
		answered <- err
	}()
	until(t, "under way", func() bool { return issuer.Requests("client-acme") == 1 })
	go func() { ended <- p.terminate() }()
	until(t, "off the list", func() bool { return !listed() })
	select {
	case err := <-answered:
		t.Errorf("it was on the list until its last call had ended (%v)", err)
	default:
		if err := <-answered; err != nil {
			t.Errorf("a call that was under way: %v", err)
		}
	}
	if code := <-ended; code != 0 {
		t.Errorf("exit code %d", code)
	}
}

func TestWhatCannotWorkIsSaidAtOnce(t *testing.T) {
	keyset := keysetFile(t)
	damaged := filepath.Join(t.TempDir(), "damaged")
	if err := os.WriteFile(damaged, []byte(`{"aead": "something secret"}`), 0o600); err != nil {
		t.Fatal(err)
	}
	typo := filepath.Join(t.TempDir(), "config.yaml")
	if err := os.WriteFile(typo, []byte("redis-ulr: redis://localhost\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	for _, test := range []struct {
		args string
		code int
		says string
	}{
		{"", 2, "expected one of"},
		{"server", 2, "unexpected argument server"},
		{"serve --insecure", 2, "--keyset-file"},
		{"serve --insecure --keyset-file=/nonexistent", 1, "/nonexistent"},
		{"serve --insecure --keyset-file=" + damaged, 1, "keyset new"},
		{"serve --keyset-file=" + keyset, 2, "--tls-cert-file"},
		{"serve --insecure --grpc-addr=0.0.0.0:0 --keyset-file=" + keyset, 2, "--insecure is refused"},
		{"serve --insecure --grpc-addr=:0 --keyset-file=" + keyset, 2, "--insecure is refused"},
		{"serve --insecure --config=" + typo + " --keyset-file=" + keyset, 2, "redis-ulr"},
		{"serve --insecure --redis-url=http://user:hunter2@h --keyset-file=" + keyset, 1, "redis://"},
		{"serve --insecure --issuer-override=us/production=http://example.com/oauth2/token --keyset-file=" + keyset, 2, "loopback"},
		{"serve --insecure --log-level=loud --keyset-file=" + keyset, 2, "log-level"},
		{"serve --tls-cert-file=/none --tls-key-file=/none --client-ca-file=/none --access-file=/none --keyset-file=" + keyset, 1, "/none"},
		{"dev --grpc-addr=0.0.0.0:0", 1, "loopback"},
		{"keyset new " + keyset, 1, "exists"},
		{"keyset rotate /nonexistent", 1, "/nonexistent"},
		{"keyset rotate --effective-in=-1s " + keyset, 1, "before it was made"},
		{"keyset rotate --effective-in=soon " + keyset, 2, "effective-in"},
		{"keyset new --kms-key-uri=gcp-kms://x /nonexistent", 1, "aws-kms://arn:aws:kms:REGION"},
		{"keyset wrap " + keyset, 2, "--kms-key-uri"},
		{"keyset reseal", 2, "--keyset-file"},
		{"keyset prune", 2, "--keyset-file"},
		{"keyset show " + damaged, 1, "keyset new"},
		{"health --ops-addr=127.0.0.1:1", 1, "refused"},
	} {
		cmd := exec.Command(binary, strings.Fields(test.args)...)
		cmd.Env = []string{}
		out, _ := cmd.CombinedOutput()
		if code := cmd.ProcessState.ExitCode(); code != test.code || !strings.Contains(string(out), test.says) ||
			strings.Contains(string(out), "something secret") || strings.Contains(string(out), "hunter2") {
			t.Errorf("tokenbroker %s: exit code %d, %s", test.args, code, out)
		}
	}
}

func TestARotatedKeysetReadsWhatIsStored(t *testing.T) {
	redis, issuer, keyset := redistest.Start(t), startIssuer(t), keysetFile(t)
	p := start(t, serveArgs(redis.URL(), keyset, issuer)...).ready()
	register(t, p.connect(), issuer, "acme", time.Hour)
	before, err := get(t.Context(), p.connect(), "acme")
	if err != nil {
		t.Fatal(err)
	}
	p.terminate()
	if out, err := exec.Command(binary, "keyset", "rotate", keyset).CombinedOutput(); err != nil {
		t.Fatalf("%v: %s", err, out)
	}
	if info, err := os.Stat(keyset); err != nil || info.Mode().Perm() != 0o600 {
		t.Errorf("%v, %v", info.Mode(), err)
	}
	p = start(t, serveArgs(redis.URL(), keyset, issuer)...).ready()
	after, err := get(t.Context(), p.connect(), "acme")
	if err != nil || after.GetTokenId() != before.GetTokenId() || issuer.Requests("client-acme") != 1 {
		t.Errorf("after rotation and restart: %v, %v, %d exchanges", after.GetTokenId(), err, issuer.Requests("client-acme"))
	}
	p.terminate()
	// With another keyset it does not become ready. Who asks nevertheless is told which
	// record it is that does not open.
	p = start(t, serveArgs(redis.URL(), keysetFile(t), issuer)...)
	until(t, "why it is not ready", func() bool { return strings.Contains(p.get("/readyz"), "the keyset opens none") })
	if _, err := get(t.Context(), p.connect(), "acme"); reason(err) != "Internal/TENANT_UNREADABLE" || !strings.Contains(err.Error(), "tenants/acme") {
		t.Errorf("with another keyset: %v", err)
	}
	list, err := pb.NewTenantServiceClient(p.connect()).ListTenants(t.Context(), &pb.ListTenantsRequest{})
	if err != nil || len(list.GetTenants()) != 1 || list.GetTenants()[0].GetClientId() != "" {
		t.Errorf("with another keyset: %v, %v", list, err)
	}
}

func TestAClientThatIsTurnedAwayLeavesATrace(t *testing.T) {
	dir := t.TempDir()
	writeCertificates(t, dir)
	if err := os.WriteFile(filepath.Join(dir, "access.yaml"), []byte("rules: []\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	p := start(t, "serve", "--grpc-addr=127.0.0.1:0", "--ops-addr=127.0.0.1:0", "--redis-url="+redistest.Start(t).URL(), "--keyset-file="+keysetFile(t),
		"--tls-cert-file="+filepath.Join(dir, "server.pem"), "--tls-key-file="+filepath.Join(dir, "server-key.pem"), "--client-ca-file="+filepath.Join(dir, "ca.pem"),
		"--access-file="+filepath.Join(dir, "access.yaml")).ready()
	if _, err := get(t.Context(), p.connect(), "acme"); err == nil { // Without TLS.
		t.Error("served")
	}
	until(t, "logged", func() bool { return strings.Contains(p.log.String(), "connection turned away") })
}

func TestAnEmptyVariableIsOneThatIsNotSet(t *testing.T) {
	cmd := exec.Command(binary, "serve", "--insecure")
	cmd.Env = []string{"TOKENBROKER_OPS_ADDR=", "TOKENBROKER_DRAIN_TIMEOUT=", "TOKENBROKER_CONFIG=", "TOKENBROKER_KEYSET_FILE="}
	if out, _ := cmd.CombinedOutput(); !strings.Contains(string(out), "--keyset-file") {
		t.Errorf("%s", out)
	}
}

func TestTheHealthVerbTakesItsAddressFromTheFileAndNoProxy(t *testing.T) {
	p := start(t, serveArgs(redistest.Start(t).URL(), keysetFile(t), startIssuer(t))...).ready()
	file := filepath.Join(t.TempDir(), "tokenbroker.yaml")
	if err := os.WriteFile(file, []byte("ops-addr: "+p.ops+"\nlog-level: info\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	cmd := exec.Command(binary, "health", "--config="+file)
	cmd.Env = []string{"HTTP_PROXY=http://127.0.0.1:1"}
	if out, err := cmd.CombinedOutput(); err != nil || string(out) != "ready\n" {
		t.Errorf("%v: %s", err, out)
	}
}

package main_test

import (
	"fmt"
	"os"
	"os/exec"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	healthpb "google.golang.org/grpc/health/grpc_health_v1"
	reflectionpb "google.golang.org/grpc/reflection/grpc_reflection_v1"
	"google.golang.org/grpc/status"

	pb "smokeball.internal/tokenbroker/gen/tokenbroker/v1"
	"smokeball.internal/tokenbroker/internal/access/accesstest"
)

const readerRule = `
  - name: readers
    principals: ["spiffe://test.example/reader", "jwt:reader"]
    roles: [token.reader]
    tenants: [acme]
`

// loaded waits until a setting was loaded again, n times in all.
func (g *guarded) loaded(setting string, n int) {
	g.t.Helper()
	until(g.t, setting+" loaded", func() bool {
		count := 0
		for line := range strings.Lines(g.log.String()) {
			if strings.Contains(line, `"msg":"loaded"`) && strings.Contains(line, `"setting":"`+setting+`"`) {
				count++
			}
		}
		return count >= n
	})
}

// Everything that can change on disk does, while callers with old and new
// connections go on calling. None of them notices.
func TestNoCallFailsWhileFilesChange(t *testing.T) {
	t.Parallel()
	g := startGuarded(t, readerRule, withTokens)
	register(t, g.as(everything), g.issuer, "acme", time.Hour)
	reader := g.authority.Issue("reader", accesstest.SPIFFE("spiffe://test.example/reader"))
	token := g.tokens.Sign(g.tokens.Claims("reader", tokenAudience))

	var good, connections atomic.Int64
	var failed sync.Map
	call := func(conn *grpc.ClientConn) {
		if _, err := pb.NewTokenServiceClient(conn).GetToken(soon(t), &pb.GetTokenRequest{Tenant: "tenants/acme"}); err != nil {
			failed.Store(err.Error(), true)
		} else {
			good.Add(1)
		}
	}
	stop := make(chan struct{})
	var callers sync.WaitGroup
	steady := []*grpc.ClientConn{g.dial(&reader, "", grpc.WithDisableRetry()), g.dial(nil, token, grpc.WithDisableRetry())}
	for _, conn := range steady {
		callers.Go(func() {
			for tick := time.NewTicker(5 * time.Millisecond); ; {
				select {
				case <-tick.C:
					call(conn)
				case <-stop:
					return
				}
			}
		})
	}
	callers.Go(func() { // Comes anew each time.
		for {
			select {
			case <-time.After(50 * time.Millisecond):
				conn := g.dial(&reader, "", grpc.WithDisableRetry())
				call(conn)
				_ = conn.Close()
				connections.Add(1)
			case <-stop:
				return
			}
		}
	})

	next, nextTokens := accesstest.NewAuthority(t), accesstest.NewTokenIssuer(t, tokenIssuer, "next")
	for n := 1; n <= 3; n++ {
		g.writeServer()
		g.write("ca.pem", g.authority.PEM(next))
		g.write("jwks.json", g.tokens.JWKS(nextTokens))
		g.write("access.yaml", []byte(basicRules+readerRule+fmt.Sprintf("# %d\n", n)))
		g.loaded("tls-cert-file", n)
		g.loaded("access-file", n)
	}
	g.loaded("client-ca-file", 1)
	g.loaded("jwt-keys", 1)
	if out, err := exec.Command(binary, "keyset", "rotate", g.keyset).CombinedOutput(); err != nil {
		t.Fatalf("%v: %s", err, out)
	}
	g.loaded("keyset-file", 1)
	// What is new is accepted, too.
	newcomer := next.Issue("reader", accesstest.SPIFFE("spiffe://test.example/reader"))
	call(g.dial(&newcomer, ""))
	call(g.dial(nil, nextTokens.Sign(nextTokens.Claims("reader", tokenAudience))))
	register(t, g.as(everything), g.issuer, "sealed-anew", time.Hour)

	// What is wrong changes nothing, and is said.
	for file, setting := range map[string]string{"access.yaml": "access-file", "server.pem": "tls-cert-file", "ca.pem": "client-ca-file", "jwks.json": "jwt-keys"} {
		before, err := os.ReadFile(g.path(file))
		if err != nil {
			t.Fatal(err)
		}
		g.write(file, []byte("rules: nonsense\n"))
		stale := fmt.Sprintf(`tokenbroker_setting_stale{setting=%q} `, setting)
		until(t, setting+" stale", func() bool { return strings.Contains(g.get("/metrics"), stale+"1") })
		call(g.dial(&reader, ""))
		g.write(file, before)
		until(t, setting+" not stale any more", func() bool { return strings.Contains(g.get("/metrics"), stale+"0") })
	}
	close(stop)
	callers.Wait()
	failed.Range(func(err, _ any) bool {
		t.Errorf("a call failed: %v", err)
		return true
	})
	if good.Load() < 500 || connections.Load() < 20 {
		t.Errorf("only %d calls and %d new connections", good.Load(), connections.Load())
	}
	if !strings.Contains(g.log.String(), `"setting":"access-file","error":"access.yaml:1: `) {
		t.Error("the log does not say what is wrong in which line")
	}
	t.Logf("%d calls, %d connections made meanwhile, none failed", good.Load(), connections.Load())
}

func TestWhoIsRevokedIsRefusedAtTheNextCall(t *testing.T) {
	t.Parallel()
	for name, test := range map[string]struct {
		token  bool
		revoke func(g *guarded)
		code   codes.Code
		health codes.Code // of a stream that needs no rule; OK: it stays
	}{
		"rule gone":      {false, func(g *guarded) { g.write("access.yaml", []byte(basicRules)) }, codes.PermissionDenied, codes.OK},
		"authority gone": {false, func(g *guarded) { g.write("ca.pem", accesstest.NewAuthority(g.t).PEM()) }, codes.Unauthenticated, codes.Unauthenticated},
		"key gone":       {true, func(g *guarded) { g.write("jwks.json", accesstest.NewTokenIssuer(g.t, tokenIssuer, "x").JWKS()) }, codes.Unauthenticated, codes.Unauthenticated},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			g := startGuarded(t, readerRule, withTokens)
			register(t, g.as(everything), g.issuer, "acme", time.Hour)
			var conn *grpc.ClientConn
			if test.token {
				conn = g.dial(nil, g.tokens.Sign(g.tokens.Claims("reader", tokenAudience)))
			} else {
				conn = g.as("spiffe://test.example/reader")
			}
			get := func() codes.Code {
				_, err := pb.NewTokenServiceClient(conn).GetToken(soon(t), &pb.GetTokenRequest{Tenant: "tenants/acme"})
				return status.Code(err)
			}
			if code := get(); code != codes.OK {
				t.Fatal(code)
			}
			reflection, err := reflectionpb.NewServerReflectionClient(conn).ServerReflectionInfo(t.Context())
			if err != nil {
				t.Fatal(err)
			}
			if err := calls["ServerReflection"](soon(t), conn); err != nil {
				t.Fatal(err)
			}
			health, err := healthpb.NewHealthClient(conn).Watch(t.Context(), &healthpb.HealthCheckRequest{})
			if err != nil {
				t.Fatal(err)
			}
			if _, err := health.Recv(); err != nil {
				t.Fatal(err)
			}
			ended := make(chan error, 1)
			go func() { _, err := reflection.Recv(); ended <- err }()
			test.revoke(g)
			began := time.Now()
			until(t, "refused", func() bool { return get() == test.code })
			select {
			case err := <-ended:
				if status.Code(err) != test.code {
					t.Errorf("the stream ended with %v, want %v", err, test.code)
				}
			case <-time.After(time.Second):
				t.Error("the stream goes on")
			}
			t.Logf("refused %v after the file was written", time.Since(began).Round(10*time.Millisecond))
			if test.health != codes.OK {
				if _, err := health.Recv(); status.Code(err) != test.health {
					t.Errorf("watching health: %v", err)
				}
			}
		})
	}
}

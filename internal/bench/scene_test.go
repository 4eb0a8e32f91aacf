package bench_test

import (
	"bufio"
	"encoding/json"
	"fmt"
	"net/http/httptest"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"google.golang.org/protobuf/proto"

	pb "smokeball.internal/tokenbroker/gen/tokenbroker/v1"
	"smokeball.internal/tokenbroker/internal/access/accesstest"
	"smokeball.internal/tokenbroker/internal/redisstore/redistest"
	"smokeball.internal/tokenbroker/internal/simulator"
)

// scene is what is measured and what that needs: certificates, Redis, an issuer.
type scene struct {
	dir          string
	redis        *redistest.Server
	issuer       *simulator.Simulator
	issuerURL    string
	server, user files
	binary       string
	variables    []string // of replicas, NAME=VALUE; by default those of deploy/kubernetes that matter
}

const (
	principal = "spiffe://bench.example/caller"
	rules     = `rules:
  - {name: registers, principals: ["` + principal + `"], roles: [tenant.admin], tenants: ["*"]}
  - {name: reads, principals: ["` + principal + `"], roles: [token.reader], tenants: ["*"]}
limits:
  - {principals: ["` + principal + `"], calls_per_second: 1000000, open_calls: 100000, connections: 10000}
`
)

func newScene(t *testing.T) *scene {
	t.Helper()
	s := &scene{dir: t.TempDir(), variables: []string{"GOMEMLIMIT=460MiB"}, redis: redistest.Start(t, "--appendonly", "yes"), issuer: simulator.New()}
	server := httptest.NewServer(s.issuer)
	t.Cleanup(func() { s.issuer.Close(); server.Close() })
	s.issuerURL = server.URL
	authority := accesstest.NewAuthority(t)
	ca := s.write(t, "ca.pem", authority.PEM())
	pair := func(name string, c accesstest.Certificate) files {
		return files{CA: ca, Cert: s.write(t, name+".pem", c.PEM), Key: s.write(t, name+"-key.pem", c.KeyPEM)}
	}
	s.server = pair("server", authority.Issue("127.0.0.1", nil))
	s.user = pair("user", authority.Issue("caller", accesstest.SPIFFE(principal)))
	s.write(t, "access.yaml", []byte(rules))
	var err error
	if s.binary, err = build(); err != nil {
		t.Fatal(err)
	}
	if out, err := exec.CommandContext(t.Context(), s.binary, "keyset", "new", s.path("keyset.json")).CombinedOutput(); err != nil {
		t.Fatalf("keyset new: %v: %s", err, out)
	}
	return s
}

func (s *scene) path(name string) string { return filepath.Join(s.dir, name) }

func (s *scene) write(t *testing.T, name string, content []byte) string {
	t.Helper()
	if err := os.WriteFile(s.path(name), content, 0o600); err != nil {
		t.Fatal(err)
	}
	return s.path(name)
}

// built is where the binary is; empty: it was not needed.
var built string

// build builds the binary as "make build" does, once for all tests.
var build = sync.OnceValues(func() (binary string, err error) {
	if built, err = os.MkdirTemp("", "bench"); err != nil {
		return "", err
	}
	binary = filepath.Join(built, "tokenbroker")
	cmd := exec.Command("go", "build", "-trimpath", "-buildvcs=false", "-o", binary, "smokeball.internal/tokenbroker/cmd/tokenbroker")
	cmd.Env = append(os.Environ(), "CGO_ENABLED=0")
	if out, err := cmd.CombinedOutput(); err != nil {
		return "", fmt.Errorf("go build: %w: %s", err, out)
	}
	return binary, nil
})

// contender is a server that is measured, or a way to do without one for each call.
type contender struct {
	name    string
	process *os.Process // nil: it is in the process of the callers
	api     string
	metrics string // host and port of Prometheus metrics
	user    files
	way     way
	issuer  account
}

// garbage has the servers that are compared with the broker collect theirs when there are
// 230 MiB, as it does by half of its GOMEMLIMIT, and not at Go's 4: a ratio to a server that
// is busy collecting would flatter.
const garbage = "GOGC=5750"

// contenders starts all of them; the broker is the first.
func (s *scene) contenders(t *testing.T) []contender {
	t.Helper()
	broker := s.startBroker(t)
	response := s.register(t, broker)
	own := func(name, what string, user files, o serverOrder, variables ...string) contender {
		o.Response = response
		return startOwn(t, name, what, user, o, variables...)
	}
	return []contender{
		broker,
		own("bare gRPC, mTLS", "bare", s.user, serverOrder{Files: s.server}),
		own("bare gRPC, plain text", "bare", files{}, serverOrder{}),
		own("a GET of Redis per call, mTLS", "naive", s.user, serverOrder{Files: s.server, Redis: s.redis.URL()}),
		own("bare gRPC, mTLS, tuned as the broker", "bare", s.user, serverOrder{Files: s.server, Tuned: true}),
		own("bare gRPC, mTLS, Go's garbage", "bare", s.user, serverOrder{Files: s.server}, "GOGC=100"),
	}
}

// startOwn starts a server that is compared with the broker.
func startOwn(t *testing.T, name, what string, user files, o serverOrder, variables ...string) contender {
	t.Helper()
	order, err := json.Marshal(o)
	if err != nil {
		t.Fatal(err)
	}
	self, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	cmd := exec.Command(self)
	cmd.Env = append(append(os.Environ(), role+"="+what, noGrace, garbage), variables...)
	cmd.Stdin = strings.NewReader(string(order))
	c := contender{name: name, user: user}
	c.process = startAndRead(t, cmd, false, func(line string) bool {
		_, err := fmt.Sscan(line, &c.api, &c.metrics)
		return err == nil
	})
	return c
}

// inProcess are the ways to do without a call for each token: the broker's client, and a
// caller that buys for itself, from the same issuer.
func (s *scene) inProcess(broker contender) []contender {
	return []contender{
		{name: "`client`", way: byClient, api: broker.api, user: s.user},
		{name: "`x/oauth2`", way: byOAuth2, issuer: account{TokenURL: s.tokenURL(), ID: "client-acme", Secret: "secret"}},
	}
}

func (s *scene) tokenURL() string { return s.issuerURL + "/us/production/oauth2/token" }

// startBroker starts a replica with all that production has on.
func (s *scene) startBroker(t *testing.T, args ...string) contender {
	t.Helper()
	cmd := exec.Command(s.binary, append([]string{
		"serve", "--grpc-addr=127.0.0.1:0", "--ops-addr=127.0.0.1:0", "--redis-url=" + s.redis.URL(), "--keyset-file=" + s.path("keyset.json"),
		"--tls-cert-file=" + s.server.Cert, "--tls-key-file=" + s.server.Key, "--client-ca-file=" + s.server.CA,
		"--access-file=" + s.path("access.yaml"), "--audit=file:" + s.path("audit.log"),
		"--issuer-override=us/production=" + s.tokenURL()}, args...)...)
	cmd.Env = append([]string{"PATH=" + os.Getenv("PATH")}, s.variables...)
	c := contender{name: "tokenbroker", user: s.user}
	c.process = startAndRead(t, cmd, true, func(line string) bool {
		var record struct{ Msg, GRPC, Ops string }
		if json.Unmarshal([]byte(line), &record) != nil || record.Msg != "serving" {
			return false
		}
		c.api, c.metrics = record.GRPC, record.Ops
		return true
	})
	return c
}

// startAndRead starts a process that the end of the test ends, and gives its lines to
// found until that has what it wants.
func startAndRead(t *testing.T, cmd *exec.Cmd, ofStderr bool, found func(line string) bool) *os.Process {
	t.Helper()
	pipe, err := cmd.StdoutPipe()
	if ofStderr {
		pipe, err = cmd.StderrPipe()
	} else {
		cmd.Stderr = os.Stderr
	}
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	ready, ended := make(chan bool, 1), make(chan struct{})
	go func() {
		defer close(ended)
		waiting := true
		for lines := bufio.NewScanner(pipe); lines.Scan(); {
			if waiting && found(lines.Text()) {
				waiting = false
				ready <- true
			}
		}
		_ = cmd.Wait()
	}()
	t.Cleanup(func() {
		_ = cmd.Process.Signal(syscall.SIGTERM)
		select {
		case <-ended:
		case <-time.After(10 * time.Second):
			_ = cmd.Process.Kill()
			<-ended
		}
	})
	select {
	case <-ready:
	case <-ended:
		t.Fatalf("%v has ended", cmd.Args)
	case <-time.After(20 * time.Second):
		t.Fatalf("%v does not serve", cmd.Args)
	}
	return cmd.Process
}

// register registers the tenant acme, and returns what its callers are answered.
func (s *scene) register(t *testing.T, broker contender) []byte {
	t.Helper()
	s.issuer.SetClient(simulator.Client{Endpoint: "us/production", ID: "client-acme", Secrets: []string{"secret"}, Scopes: []string{"matters/read", "matters/write", "contacts/read", "files/read"}, ExpiresIn: 24 * time.Hour})
	conn, err := s.user.dial(broker.api)
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = conn.Close() }()
	_, err = pb.NewTenantServiceClient(conn).CreateTenant(t.Context(), &pb.CreateTenantRequest{TenantId: "acme", Tenant: &pb.Tenant{
		Region: pb.Region_REGION_US, ClientId: "client-acme", ClientSecret: "secret", ApiKey: "key-of-acme"}})
	if err != nil {
		t.Fatal(err)
	}
	return broker.answer(t, "acme")
}

// answer returns the message that the broker answers with.
func (c contender) answer(t *testing.T, tenant string) []byte {
	t.Helper()
	conn, err := c.user.dial(c.api)
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = conn.Close() }()
	response, err := pb.NewTokenServiceClient(conn).GetToken(t.Context(), &pb.GetTokenRequest{Tenant: "tenants/" + tenant})
	if err != nil {
		t.Fatal(err)
	}
	bytes, err := proto.Marshal(response)
	if err != nil {
		t.Fatal(err)
	}
	return bytes
}

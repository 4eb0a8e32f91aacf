package main_test

import (
	"bufio"
	"bytes"
	"context"
	"crypto/tls"
	"encoding/json"
	"flag"
	"io"
	"net/http"
	"net/http/httptest"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials/insecure"

	pb "smokeball.internal/tokenbroker/gen/tokenbroker/v1"
	"smokeball.internal/tokenbroker/internal/simulator"
)

// binary is the program under test, built as it is for production.
var binary string

func TestMain(m *testing.M) {
	// Tests that break something and wait for what comes of it mostly wait, so more
	// of them run at a time than there are processors, unless -parallel says so.
	flag.Parse()
	asked := false
	flag.Visit(func(f *flag.Flag) { asked = asked || f.Name == "test.parallel" })
	if !asked {
		_ = flag.Set("test.parallel", "4")
	}
	os.Exit(func() int {
		dir, err := os.MkdirTemp("", "tokenbroker")
		if err != nil {
			panic(err)
		}
		defer func() { _ = os.RemoveAll(dir) }()
		binary = filepath.Join(dir, "tokenbroker")
		if out, err := goBuild(context.Background(), "-o", binary, ".").CombinedOutput(); err != nil {
			panic(string(out))
		}
		return m.Run()
	}())
}

// goBuild returns the command that builds as "make build" does, so that what that has
// compiled is not compiled again.
func goBuild(ctx context.Context, args ...string) *exec.Cmd {
	build := exec.CommandContext(ctx, "go", append([]string{"build", "-trimpath"}, args...)...)
	build.Env = append(os.Environ(), "CGO_ENABLED=0")
	return build
}

// process is a running tokenbroker.
type process struct {
	t    testing.TB
	cmd  *exec.Cmd
	ops  string // address of the operators' side
	grpc string // address of the API
	log  *logBuffer
	done chan struct{} // closed when the process has ended
}

// logBuffer collects what a process writes to standard error.
type logBuffer struct {
	mu   sync.Mutex
	text bytes.Buffer
}

func (b *logBuffer) String() string {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.text.String()
}

// start runs the binary with args until the test ends, and returns when it says
// that it serves.
func start(t testing.TB, args ...string) *process {
	t.Helper()
	return startProgram(t, binary, nil, args...)
}

// startProgram is start for another binary and with variables (NAME=VALUE).
func startProgram(t testing.TB, program string, variables []string, args ...string) *process {
	t.Helper()
	p := &process{t: t, cmd: exec.Command(program, args...), log: &logBuffer{}, done: make(chan struct{})}
	// None of the settings of whoever runs the test. And no garbage is left lying, so
	// that a process's memory is what it has in use.
	p.cmd.Env = append([]string{"PATH=" + os.Getenv("PATH"), "GOGC=100"}, variables...)
	stderr, err := p.cmd.StderrPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := p.cmd.Start(); err != nil {
		t.Fatal(err)
	}
	serving := make(chan struct{})
	go func() {
		defer close(p.done)
		p.read(stderr, serving)
		_ = p.cmd.Wait()
	}()
	t.Cleanup(func() {
		p.kill()
		if t.Failed() {
			t.Logf("log of %v:\n%s", args, p.log)
		}
	})
	select {
	case <-serving:
	case <-p.done:
		t.Fatalf("%v ended: %s", args, p.log)
	case <-time.After(20 * time.Second):
		t.Fatalf("%v does not serve: %s", args, p.log)
	}
	return p
}

// read collects the log, and takes the addresses from the record that has them.
func (p *process) read(r io.Reader, serving chan struct{}) {
	lines := bufio.NewScanner(r)
	lines.Buffer(nil, 1<<20)
	for lines.Scan() {
		p.log.mu.Lock()
		p.log.text.Write(lines.Bytes())
		p.log.text.WriteByte('\n')
		p.log.mu.Unlock()
		var record struct{ Msg, GRPC, Ops string }
		if p.grpc == "" && json.Unmarshal(lines.Bytes(), &record) == nil && record.Msg == "serving" {
			p.grpc, p.ops = record.GRPC, record.Ops
			close(serving)
		}
	}
}

// kill ends the process at once.
func (p *process) kill() {
	_ = p.cmd.Process.Kill()
	<-p.done
}

// terminate asks the process to end and returns its exit code.
func (p *process) terminate() int {
	p.t.Helper()
	if err := p.cmd.Process.Signal(syscall.SIGTERM); err != nil {
		p.t.Fatal(err)
	}
	select {
	case <-p.done:
	case <-time.After(30 * time.Second):
		p.t.Fatalf("does not end: %s", p.log)
	}
	return p.cmd.ProcessState.ExitCode()
}

// ready waits until the process says that it is ready.
func (p *process) ready() *process {
	p.t.Helper()
	until(p.t, "ready", func() bool { return p.get("/readyz") == "ready\n" })
	return p
}

// get returns what the operators' side says.
func (p *process) get(path string) string {
	scheme, client := "http", &http.Client{Transport: &http.Transport{TLSClientConfig: &tls.Config{InsecureSkipVerify: true}, DisableKeepAlives: true}}
	if p.cmd != nil && slices.Contains(p.cmd.Args, "--ops-tls") { // Of dev, a test has its address alone.
		scheme = "https"
	}
	resp, err := client.Get(scheme + "://" + p.ops + path)
	if err != nil {
		return err.Error()
	}
	defer func() { _ = resp.Body.Close() }()
	body, _ := io.ReadAll(resp.Body)
	return string(body)
}

// connect returns a connection to the API.
func (p *process) connect() *grpc.ClientConn {
	p.t.Helper()
	conn, err := grpc.NewClient(p.grpc, grpc.WithTransportCredentials(insecure.NewCredentials()))
	if err != nil {
		p.t.Fatal(err)
	}
	p.t.Cleanup(func() { _ = conn.Close() })
	return conn
}

// until waits for something to become true.
func until(t testing.TB, what string, true func() bool) {
	t.Helper()
	for deadline := time.Now().Add(20 * time.Second); time.Now().Before(deadline); time.Sleep(20 * time.Millisecond) {
		if true() {
			return
		}
	}
	t.Fatalf("not %s within 20 s", what)
}

// keysetFile returns a fresh keyset, made by the binary.
func keysetFile(t testing.TB) string {
	t.Helper()
	path := filepath.Join(t.TempDir(), "keyset.json")
	if out, err := exec.Command(binary, "keyset", "new", path).CombinedOutput(); err != nil {
		t.Fatalf("%v: %s", err, out)
	}
	return path
}

// issuer is a simulated issuer on a socket.
type issuer struct {
	*simulator.Simulator
	url string
}

func startIssuer(t testing.TB) *issuer {
	sim := simulator.New()
	server := httptest.NewServer(sim)
	t.Cleanup(func() { sim.Close(); server.Close() })
	return &issuer{sim, server.URL}
}

// serveArgs are the arguments of a replica without TLS.
func serveArgs(redisURL, keyset string, issuer *issuer, more ...string) []string {
	args := []string{"serve", "--insecure", "--grpc-addr=127.0.0.1:0", "--ops-addr=127.0.0.1:0", "--log-level=debug",
		"--redis-url=" + redisURL, "--keyset-file=" + keyset}
	for _, place := range []string{"us/production", "us/staging", "au/production", "au/staging", "uk/production", "uk/staging"} {
		args = append(args, "--issuer-override="+place+"="+issuer.url+"/"+place+"/oauth2/token")
	}
	return append(args, more...)
}

// register registers a tenant, known to the issuer, with the secret "secret-of-ID".
func register(t testing.TB, conn *grpc.ClientConn, issuer *issuer, id string, lifetime time.Duration) {
	t.Helper()
	issuer.SetClient(simulator.Client{Endpoint: "us/production", ID: "client-" + id, Secrets: []string{"secret-of-" + id},
		Scopes: []string{"matters/read", "matters/write"}, ExpiresIn: lifetime})
	_, err := pb.NewTenantServiceClient(conn).CreateTenant(t.Context(), &pb.CreateTenantRequest{TenantId: id, Tenant: &pb.Tenant{
		Region: pb.Region_REGION_US, ClientId: "client-" + id, ClientSecret: "secret-of-" + id, ApiKey: "api-key-of-" + id,
	}})
	if err != nil && !strings.Contains(err.Error(), "AlreadyExists") {
		t.Fatal(err)
	}
}

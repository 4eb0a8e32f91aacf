package main_test

import (
	"crypto/tls"
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials"

	"smokeball.internal/tokenbroker/internal/access/accesstest"
)

// balancer is a program that stands in front of replicas, with the configuration
// that is shipped.
type balancer struct {
	config string // in deploy
	listen string // in config
	run    func(config string) *exec.Cmd
	// passes says that it passes connections on as they are, and knows nothing of calls.
	passes bool
}

// debianStream is the part of nginx that passes connections on, where it is not built in.
const debianStream = "/usr/lib/nginx/modules/ngx_stream_module.so"

var balancers = map[string]balancer{
	"haproxy":     {config: "haproxy.cfg", listen: ":9090", run: haproxy},
	"haproxy TCP": {config: "haproxy.cfg", listen: ":9443", run: haproxy, passes: true},
	"nginx":       {config: "nginx.conf", listen: "9090", run: nginx},
	"nginx TCP":   {config: "nginx-tcp.conf", listen: "9443", run: nginx, passes: true},
}

func haproxy(config string) *exec.Cmd { return exec.Command(installed("haproxy"), "-db", "-f", config) }

func nginx(config string) *exec.Cmd {
	globals := "daemon off;"
	if _, err := os.Stat(debianStream); err == nil && strings.HasSuffix(config, "nginx-tcp.conf") {
		globals += " load_module " + debianStream + ";"
	}
	return exec.Command(installed("nginx"), "-c", config, "-g", globals)
}

// installed returns where a program is that not everybody has on the PATH.
func installed(name string) string {
	if _, err := exec.LookPath(name); err != nil {
		return "/usr/sbin/" + name
	}
	return name
}

// behind is replicas behind a balancer.
type behind struct {
	*guarded
	balancer
	replicas []*process
	addr     string // of the balancer
	lives    map[string]time.Duration
}

const (
	behindTenants = 10
	behindClients = 4
	// Connections end often, so that the test sees what comes of it, and those that
	// are passed on find a replica that was away.
	connectionAge = "2s"
)

// behindRules let the clients read; "unknown" has no rule, nor has the balancer.
const behindRules = `
  - name: clients
    principals: ["jwt:client-*", "spiffe://test.example/client-*"]
    roles: [token.reader]
    tenants: ["*"]
`

// startBehind starts replicas with tenants, and a balancer in front of them.
func startBehind(t *testing.T, b balancer) *behind {
	t.Helper()
	f := &behind{guarded: startGuarded(t, behindRules, withTokens,
		"--grpc-addr="+loopbackAddress(t), "--ops-addr="+loopbackAddress(t), "--max-connection-age="+connectionAge), balancer: b}
	f.replicas = []*process{f.process}
	for len(f.replicas) < sceneReplicas {
		f.replicas = append(f.replicas, f.startAt(loopbackAddress(t), loopbackAddress(t)))
	}
	for _, p := range f.replicas {
		p.ready()
	}
	f.lives = map[string]time.Duration{}
	admin := f.as(everything)
	for n := range behindTenants {
		id := fmt.Sprintf("firm-%d", n)
		f.lives[id] = time.Hour
		register(t, admin, f.issuer, id, time.Hour)
	}
	f.startBalancer()
	return f
}

// startAt starts a replica at these addresses.
func (f *behind) startAt(grpcAddr, opsAddr string) *process {
	f.t.Helper()
	return start(f.t, append(f.args[:len(f.args):len(f.args)], "--grpc-addr="+grpcAddr, "--ops-addr="+opsAddr, "--audit=none")...)
}

// restart starts a replica that has ended again, at the same addresses.
func (f *behind) restart(n int) {
	f.t.Helper()
	old := f.replicas[n]
	f.replicas[n] = f.startAt(old.grpc, old.ops).ready()
}

// startBalancer starts the balancer until the test ends.
func (f *behind) startBalancer() {
	f.t.Helper()
	f.writeBalancer()
	f.addr = loopbackAddress(f.t)
	f.write(f.config, []byte(f.configured()))
	f.serve(f.balancer.run(f.path(f.config)))
}

// configured returns the balancer's configuration. Nothing of what is shipped is
// changed but addresses and paths.
func (f *behind) configured() string {
	f.t.Helper()
	config := readShipped(f.t, f.config)
	replace := func(old, replacement string) {
		f.t.Helper()
		if !strings.Contains(config, old) {
			f.t.Fatalf("deploy/%s does not have %q", f.config, old)
		}
		config = strings.ReplaceAll(config, old, replacement)
	}
	if strings.HasSuffix(f.config, ".cfg") {
		for _, port := range []string{":9090", ":9443", ":8404"} {
			addr := f.addr
			if port != f.listen {
				addr = loopbackAddress(f.t)
			}
			replace("bind "+port, "bind "+addr)
		}
	} else {
		replace("listen "+f.listen, "listen "+f.addr)
		replace("pid /tmp/", "pid "+f.dir+"/")
	}
	for n, p := range f.replicas {
		name := fmt.Sprintf("broker-%d:9090", n+1)
		if strings.HasSuffix(f.config, ".cfg") {
			_, port, _ := net.SplitHostPort(p.ops)
			replace(name+" port 9091", p.grpc+" port "+port)
		} else {
			replace(name, p.grpc)
		}
	}
	if f.config != "nginx-tcp.conf" {
		replace("/etc/tokenbroker/", f.dir+"/")
	}
	if f.config == "nginx.conf" {
		replace("/tmp/nginx-", f.dir+"/nginx-")
	}
	return config
}

// serve runs the balancer, and waits until it listens.
func (f *behind) serve(cmd *exec.Cmd) {
	f.t.Helper()
	log, err := os.Create(f.path("balancer.log"))
	if err != nil {
		f.t.Fatal(err)
	}
	defer func() { _ = log.Close() }()
	cmd.Stdout, cmd.Stderr = log, log
	if err := cmd.Start(); err != nil {
		f.t.Fatal(err)
	}
	ended := make(chan struct{})
	go func() { defer close(ended); _ = cmd.Wait() }()
	f.t.Cleanup(func() {
		_ = cmd.Process.Signal(syscall.SIGTERM) // nginx ends its workers then; if it were killed they would stay.
		<-ended
		if said, _ := os.ReadFile(log.Name()); f.t.Failed() {
			f.t.Logf("%s says:\n%s", f.config, tail(said, 4000))
		}
	})
	until(f.t, "listening", func() bool {
		select {
		case <-ended:
			said, _ := os.ReadFile(log.Name())
			f.t.Fatalf("%v ended: %s", cmd.Args, said)
		default:
		}
		conn, err := net.Dial("tcp", f.addr)
		if err == nil {
			_ = conn.Close()
		}
		return err == nil
	})
}

func tail(b []byte, most int) []byte { return b[max(0, len(b)-most):] }

// writeBalancer writes the certificates that a balancer shows its clients, and the
// replicas.
func (f *behind) writeBalancer() {
	f.t.Helper()
	for _, name := range []string{"balancer", "balancer-client"} {
		c := f.authority.Issue(name, accesstest.SPIFFE("spiffe://test.example/"+name))
		f.write(name+".pem", append(c.PEM, c.KeyPEM...)) // For haproxy.
		f.write(name+"-cert.pem", c.PEM)
		f.write(name+"-key.pem", c.KeyPEM)
	}
}

// readShipped returns a file of deploy.
func readShipped(t testing.TB, name string) string {
	t.Helper()
	content, err := os.ReadFile(filepath.Join("..", "..", "deploy", name))
	if err != nil {
		t.Fatal(err)
	}
	return string(content)
}

// retrying is how docs/balancing.md says that clients should be configured: what a
// replica cannot answer is asked again, and calls wait for a connection that is lost
// to come back.
const retrying = `{"methodConfig": [{
	"name": [{"service": "tokenbroker.v1.TokenService"}],
	"waitForReady": true,
	"retryPolicy": {"maxAttempts": 4, "initialBackoff": "0.05s", "maxBackoff": "1s", "backoffMultiplier": 2, "retryableStatusCodes": ["UNAVAILABLE"]}
}]}`

// client returns a connection of a client through the balancer, with what there is
// to prove who it is: a token, or if the balancer passes connections on, a certificate.
func (f *behind) client(name string, options ...grpc.DialOption) *grpc.ClientConn {
	f.t.Helper()
	config := &tls.Config{RootCAs: f.authority.Pool(), ServerName: "127.0.0.1"}
	if f.passes {
		config.Certificates = []tls.Certificate{f.authority.Issue(name, accesstest.SPIFFE("spiffe://test.example/"+name)).TLS}
	} else {
		options = append(options, grpc.WithPerRPCCredentials(bearer(f.tokens.Sign(f.tokens.Claims(name, tokenAudience)))))
	}
	return f.through(config, options...)
}

func (f *behind) through(config *tls.Config, options ...grpc.DialOption) *grpc.ClientConn {
	f.t.Helper()
	conn, err := grpc.NewClient(f.addr, append(options, grpc.WithTransportCredentials(credentials.NewTLS(config)))...)
	if err != nil {
		f.t.Fatal(err)
	}
	f.t.Cleanup(func() { _ = conn.Close() })
	return conn
}

var answeredMetric = regexp.MustCompile(`(?m)^grpc_server_handled_total\{grpc_code="OK",grpc_method="GetToken",.*\} (\d+)$`)

// answered returns how many tokens a replica has handed out since it started.
func (p *process) answered() int {
	n := 0
	if match := answeredMetric.FindStringSubmatch(p.get("/metrics")); match != nil {
		n, _ = strconv.Atoi(match[1])
	}
	return n
}

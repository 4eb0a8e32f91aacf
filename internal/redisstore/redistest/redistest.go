// Package redistest runs real Redis servers for tests: it is to a server that
// one can be sure of what a test asks for, where an imitation cannot be.
package redistest

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/redis/go-redis/v9"
)

const (
	// How long a server may take to answer: far more than it needs, since a
	// machine that runs tests is busy.
	startTimeout = 20 * time.Second
	// How many ports are tried.
	portTries = 10
	// Where they are: below those that systems give to outgoing connections.
	lowPort, highPort = 10_000, 32_000
)

// Server is a redis-server process of a test's own. Its methods fail the test if
// they cannot do what they say; they are not for concurrent use, save URL, Dir
// and Client.
type Server struct {
	t    testing.TB
	made program
	dir  string
	port int

	cmd    *exec.Cmd
	exited chan struct{} // closed when cmd has ended
	paused bool

	client func() *redis.Client
}

// program is what a server is started as.
type program struct {
	path  string             // of the binary
	args  func(int) []string // those that come after the server's own; they may depend on the port
	certs *certificates      // nil: without TLS
	// configure writes the configuration file of a server that is nothing but that
	// file, and returns the arguments that begin with it; nil for other servers.
	configure func(*Server) ([]string, error)
}

// Start starts redis-server on a free port of the loopback interface, with a data
// directory of its own, waits until it answers, and ends it with the test. args
// are further arguments for it, such as "--appendonly", "yes", or "--user",
// "name", "on", ">password", "~*", "+@all". Unless they say so, it saves nothing
// to disk. If the first names a configuration file, the rest of the settings is
// that file's. Without a redis-server the test fails.
//
// Client and the deployments' own commands come as the default user, without a
// password: to ask for one later, use CONFIG SET requirepass.
func Start(t testing.TB, args ...string) *Server {
	t.Helper()
	return launch(t, program{path: redisServer(t), args: fixed(args)})
}

// StartTLS is Start for a server that speaks nothing but TLS, with a certificate
// of a private authority, and wants one of the same authority from its clients.
// URL says where the files are.
func StartTLS(t testing.TB, args ...string) *Server {
	t.Helper()
	return launch(t, program{path: redisServer(t), args: fixed(args), certs: newCertificates(t)})
}

func redisServer(t testing.TB) string {
	t.Helper()
	path, err := exec.LookPath("redis-server")
	if err != nil {
		t.Fatalf("tests need redis-server, which `make test` installs: %v", err)
	}
	return path
}

func fixed(args []string) func(int) []string { return func(int) []string { return args } }

// launch starts what p says on a free port.
func launch(t testing.TB, p program) *Server {
	t.Helper()
	s := &Server{t: t, made: p, dir: t.TempDir()}
	s.client = sync.OnceValue(func() *redis.Client {
		options := &redis.Options{Addr: s.addr(), ContextTimeoutEnabled: true, DialerRetries: 1}
		if p.certs != nil {
			options.TLSConfig = p.certs.client(t)
		}
		c := redis.NewClient(options)
		t.Cleanup(func() { _ = c.Close() })
		return c
	})
	t.Cleanup(s.stop)
	var err error
	for range portTries {
		if s.port, err = freePort(); err != nil {
			continue
		}
		if err = s.start(); err == nil {
			return s
		}
	}
	t.Fatalf("start %s: %v", filepath.Base(p.path), err)
	return nil
}

// URL returns where the server is, as a store takes it: redis://127.0.0.1:port,
// or rediss:// with the files that it takes to speak to it.
func (s *Server) URL() string { return url("redis", "", s.made.certs, s) }

// url returns the address of servers: "redis" becomes "rediss" with TLS.
func url(scheme, path string, certs *certificates, servers ...*Server) string {
	var hosts []string
	for _, s := range servers {
		hosts = append(hosts, s.addr())
	}
	if certs != nil {
		scheme, path = strings.Replace(scheme, "redis", "rediss", 1), path+"?"+certs.query()
	}
	return scheme + "://" + strings.Join(hosts, ",") + path
}

// Dir returns the server's data directory. Its log is there too.
func (s *Server) Dir() string { return s.dir }

// Client returns a client for assertions. It is closed with the test.
func (s *Server) Client() *redis.Client { return s.client() }

// Kill ends the server as a power failure would, and waits for its end.
func (s *Server) Kill() {
	s.t.Helper()
	if err := s.cmd.Process.Kill(); err != nil && !errors.Is(err, os.ErrProcessDone) {
		s.t.Fatalf("kill redis-server: %v", err)
	}
	<-s.exited
	s.paused = false
}

// Running says whether the server is there and answers: it was not killed, and
// is not paused.
func (s *Server) Running() bool {
	select {
	case <-s.exited:
		return false
	default:
		return !s.paused
	}
}

// Restart starts the server again, after a Kill if it still runs, on the same
// port, with the same arguments and the data that was on disk.
func (s *Server) Restart() {
	s.t.Helper()
	s.Kill()
	if err := s.start(); err != nil {
		s.t.Fatalf("restart redis-server: %v", err)
	}
}

// Pause stops the server in its tracks: connections stay, and are accepted, but
// nothing is answered.
func (s *Server) Pause() {
	s.t.Helper()
	if err := s.cmd.Process.Signal(syscall.SIGSTOP); err != nil {
		s.t.Fatalf("pause redis-server: %v", err)
	}
	// The signal is only on its way; what follows relies on it having arrived.
	for {
		var status syscall.WaitStatus
		_, err := syscall.Wait4(s.cmd.Process.Pid, &status, syscall.WUNTRACED, nil)
		if errors.Is(err, syscall.EINTR) {
			continue
		}
		if err != nil || !status.Stopped() {
			s.t.Fatalf("pause redis-server: status %v, error %v", status, err)
		}
		s.paused = true
		return
	}
}

// Resume lets a paused server go on.
func (s *Server) Resume() {
	s.t.Helper()
	if err := s.cmd.Process.Signal(syscall.SIGCONT); err != nil {
		s.t.Fatalf("resume redis-server: %v", err)
	}
	s.paused = false
}

func (s *Server) addr() string { return net.JoinHostPort("127.0.0.1", strconv.Itoa(s.port)) }

// start starts the process and waits until it answers, or ends it.
func (s *Server) start() error {
	args, err := s.arguments()
	if err != nil {
		return err
	}
	said := s.log() // By the server before, if this is a restart.
	// Not the test's context: that ends before the test's clean-up, which may
	// need the server.
	s.cmd = exec.CommandContext(context.Background(), s.made.path, args...) //nolint:gosec // G204: it is a server as found in PATH
	s.cmd.SysProcAttr = dieWithParent()
	if err := s.cmd.Start(); err != nil {
		s.cmd = nil
		return err
	}
	cmd, exited := s.cmd, make(chan struct{})
	s.exited = exited
	go func() {
		_ = cmd.Wait()
		close(exited)
	}()
	if err := s.awaitReady(len(said)); err != nil {
		s.stop()
		return err
	}
	return nil
}

func (s *Server) arguments() ([]string, error) {
	if s.made.configure != nil {
		return s.made.configure(s)
	}
	file, args := []string{}, s.made.args(s.port)
	if len(args) > 0 && !strings.HasPrefix(args[0], "-") {
		file, args = args[:1], args[1:]
	}
	own := []string{"--bind", "127.0.0.1", "--dir", s.dir, "--logfile", s.logfile(), "--daemonize", "no"}
	if len(file) == 0 {
		own = append(own, "--save", "")
	}
	for _, setting := range s.listening() {
		own = append(own, "--"+setting[0], setting[1])
	}
	return slices.Concat(file, own, args), nil
}

// listening returns the settings that have the server listen.
func (s *Server) listening() [][2]string {
	port := strconv.Itoa(s.port)
	if s.made.certs == nil {
		return [][2]string{{"port", port}}
	}
	return [][2]string{
		{"port", "0"}, {"tls-port", port}, {"tls-replication", "yes"}, {"tls-auth-clients", "yes"},
		{"tls-cert-file", s.made.certs.cert}, {"tls-key-file", s.made.certs.key}, {"tls-ca-cert-file", s.made.certs.ca},
	}
}

// awaitReady returns nil once this very process says in its log, from offset on,
// that it listens and has read its data: a port that was free a moment ago may
// be another server's now, and a server may not talk to everyone.
func (s *Server) awaitReady(offset int) error {
	for deadline := time.After(startTimeout); ; {
		log := s.log()[offset:]
		if bytes.Contains(log, []byte("Ready to accept connections")) || bytes.Contains(log, []byte("+monitor master")) {
			return nil
		}
		select {
		case <-s.exited:
			return fmt.Errorf("it ended at once: %s", s.lastWords())
		case <-deadline:
			return fmt.Errorf("not ready within %v: %s", startTimeout, s.lastWords())
		case <-time.After(5 * time.Millisecond):
		}
	}
}

// stop ends the process, if there is one, and waits for its end.
func (s *Server) stop() {
	if s.cmd == nil {
		return
	}
	_ = s.cmd.Process.Kill() // An error means that it has ended.
	<-s.exited
}

func (s *Server) logfile() string { return filepath.Join(s.dir, "redis.log") }

// log returns all that was logged; nothing, if there is no log.
func (s *Server) log() []byte {
	log, _ := os.ReadFile(s.logfile())
	return log
}

// lastWords returns the end of the log, for the reason why the server ended.
func (s *Server) lastWords() string {
	lines := bytes.Split(bytes.TrimSpace(s.log()), []byte("\n")) // Bad arguments are told before there is a log.
	return string(bytes.Join(lines[max(0, len(lines)-3):], []byte("; ")))
}

// freePort returns a port of the loopback interface that is free now. It is below
// those of outgoing connections: while the server is down, its port could else
// become the near end of such a connection, even of a client's that is trying to
// reach that very port and then meets itself.
func freePort() (int, error) {
	port := lowPort + rand.N(highPort-lowPort)
	l, err := new(net.ListenConfig).Listen(context.Background(), "tcp", net.JoinHostPort("127.0.0.1", strconv.Itoa(port)))
	if err != nil {
		return 0, err
	}
	return port, l.Close()
}

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
)

// Server is a redis-server process of a test's own. Its methods fail the test if
// they cannot do what they say; they are not for concurrent use, save URL, Dir
// and Client.
type Server struct {
	t    testing.TB
	path string // of redis-server
	args []string
	dir  string
	port int

	cmd    *exec.Cmd
	exited chan struct{} // closed when cmd has ended

	client func() *redis.Client
}

// Start starts redis-server on a free port of the loopback interface, with a data
// directory of its own, waits until it answers, and ends it with the test. args
// are further arguments for it, such as "--appendonly", "yes". Unless they say
// so, it saves nothing to disk. Without a redis-server the test fails.
//
// Arguments may not ask for a password or TLS: for a password, use CONFIG SET
// requirepass.
func Start(t testing.TB, args ...string) *Server {
	t.Helper()
	path, err := exec.LookPath("redis-server")
	if err != nil {
		t.Fatalf("tests need redis-server, which `make redis-server` installs: %v", err)
	}
	s := &Server{t: t, path: path, args: args, dir: t.TempDir()}
	s.client = sync.OnceValue(func() *redis.Client {
		c := redis.NewClient(&redis.Options{Addr: s.addr(), ContextTimeoutEnabled: true})
		t.Cleanup(func() { _ = c.Close() })
		return c
	})
	t.Cleanup(s.stop)
	for range portTries {
		if s.port, err = freePort(); err != nil {
			continue
		}
		if err = s.start(); err == nil {
			return s
		}
	}
	t.Fatalf("start redis-server: %v", err)
	return nil
}

// URL returns where the server is: redis://127.0.0.1:port.
func (s *Server) URL() string { return "redis://" + s.addr() }

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
		return
	}
}

// Resume lets a paused server go on.
func (s *Server) Resume() {
	s.t.Helper()
	if err := s.cmd.Process.Signal(syscall.SIGCONT); err != nil {
		s.t.Fatalf("resume redis-server: %v", err)
	}
}

func (s *Server) addr() string { return net.JoinHostPort("127.0.0.1", strconv.Itoa(s.port)) }

// start starts the process and waits until it answers, or ends it.
func (s *Server) start() error {
	args := append([]string{
		"--bind", "127.0.0.1", "--port", strconv.Itoa(s.port), "--dir", s.dir,
		"--logfile", s.logfile(), "--daemonize", "no", "--save", "",
	}, s.args...)
	// Not the test's context: that ends before the test's clean-up, which may
	// need the server.
	s.cmd = exec.CommandContext(context.Background(), s.path, args...) //nolint:gosec // G204: it is redis-server as found in PATH
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
	if err := s.awaitAnswer(); err != nil {
		s.stop()
		return err
	}
	return nil
}

// awaitAnswer returns nil once this very process answers PING: a port that was
// free a moment ago may be another server's now.
func (s *Server) awaitAnswer() error {
	ctx, cancel := context.WithTimeout(context.Background(), startTimeout)
	defer cancel()
	c := redis.NewClient(&redis.Options{Addr: s.addr(), MaxRetries: -1, ContextTimeoutEnabled: true})
	defer func() { _ = c.Close() }()
	for {
		err := c.Ping(ctx).Err() // An error while it reads its data.
		if err == nil {
			if info := c.Info(ctx, "server").Val(); strings.Contains(info, fmt.Sprintf("process_id:%d\r\n", s.cmd.Process.Pid)) {
				return nil
			}
			err = errors.New("another process answers")
		}
		select {
		case <-s.exited:
			return fmt.Errorf("it ended at once: %s", s.lastWords())
		case <-ctx.Done():
			return fmt.Errorf("no answer within %v: %w", startTimeout, err)
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

// lastWords returns the end of the log, for the reason why the server ended.
func (s *Server) lastWords() string {
	log, err := os.ReadFile(s.logfile())
	if err != nil {
		return err.Error() // Bad arguments are told before there is a log.
	}
	lines := bytes.Split(bytes.TrimSpace(log), []byte("\n"))
	return string(bytes.Join(lines[max(0, len(lines)-3):], []byte("; ")))
}

// freePort returns a port of the loopback interface that is free now. It is from
// below those that systems give to outgoing connections: while the server is
// down, its port could else become the near end of such a connection, even of a
// client's that is trying to reach that very port and then meets itself.
func freePort() (int, error) {
	const low, high = 10_000, 32_000
	port := low + rand.N(high-low)
	l, err := new(net.ListenConfig).Listen(context.Background(), "tcp", net.JoinHostPort("127.0.0.1", strconv.Itoa(port)))
	if err != nil {
		return 0, err
	}
	return port, l.Close()
}

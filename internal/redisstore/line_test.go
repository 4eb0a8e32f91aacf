package redisstore_test

import (
	"bytes"
	"net"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
)

// line is the network between a store and its Redis: it can be cut, and it can
// lose an answer.
type line struct {
	to       string
	listener net.Listener

	mu        sync.Mutex
	down      bool
	lose      string // the answer to the next command with this in it
	lost      int
	says      [2]string // what is answered, and what comes of it, as long as that
	halt      string    // in commands whose answers wait for meanwhile
	meanwhile func()
	conns     map[net.Conn]bool
	running   sync.WaitGroup
}

// newLine lays a line to the Redis at url. It ends with the test.
func newLine(t *testing.T, url string) *line {
	t.Helper()
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	l := &line{to: strings.TrimPrefix(url, "redis://"), listener: listener, conns: map[net.Conn]bool{}}
	l.running.Go(l.accept)
	t.Cleanup(func() {
		_ = listener.Close()
		l.cut()
		l.running.Wait()
	})
	return l
}

func (l *line) url() string { return "redis://" + l.listener.Addr().String() }

// cut ends all connections and lets none pass.
func (l *line) cut() {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.down = true
	for c := range l.conns {
		_ = c.Close()
	}
}

func (l *line) mend() {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.down = false
}

// loseAnswer lets the next command that has this in it pass, but not its answer:
// the connection breaks instead.
func (l *line) loseAnswer(to string) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.lose = to
}

// answersLost returns how many answers were lost.
func (l *line) answersLost() int {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.lost
}

func (l *line) accept() {
	for {
		client, err := l.listener.Accept()
		if err != nil {
			return
		}
		server, err := net.Dial("tcp", l.to)
		if err != nil || !l.keep(client, server) {
			_ = client.Close()
			if server != nil {
				_ = server.Close()
			}
			continue
		}
		losing := make(chan struct{}) // closed when the next answer is to be lost
		halted := new(atomic.Bool)    // the next answer is to wait
		l.running.Go(func() { l.pass(client, server, losing, halted, true) })
		l.running.Go(func() { l.pass(server, client, losing, halted, false) })
	}
}

func (l *line) keep(conns ...net.Conn) bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.down {
		return false
	}
	for _, c := range conns {
		l.conns[c] = true
	}
	return true
}

// pass copies until either end is closed, and then closes both.
func (l *line) pass(from, to net.Conn, losing chan struct{}, halted *atomic.Bool, commands bool) {
	defer func() { _, _ = from.Close(), to.Close() }()
	buf := make([]byte, 64<<10)
	for {
		n, err := from.Read(buf)
		if err != nil {
			return
		}
		if commands && l.loses(buf[:n]) {
			close(losing)
		}
		if commands && l.halts(buf[:n]) {
			halted.Store(true)
		}
		if !commands && halted.Swap(false) {
			l.meanwhile()
		}
		if !commands {
			select {
			case <-losing:
				return
			default:
			}
			l.twist(buf[:n])
		}
		if _, err := to.Write(buf[:n]); err != nil {
			return
		}
	}
}

// twistAnswers has every answer that says one thing say another, of the same
// length.
func (l *line) twistAnswers(from, to string) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.says = [2]string{from, to}
}

func (l *line) twist(answer []byte) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if at := bytes.Index(answer, []byte(l.says[0])); at >= 0 {
		copy(answer[at:], l.says[1])
	}
}

// onAnswer has something done between the answer to each command that has this in
// it, and its arrival.
func (l *line) onAnswer(to string, do func()) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.halt, l.meanwhile = to, do
}

func (l *line) halts(command []byte) bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.halt != "" && bytes.Contains(bytes.ToUpper(command), []byte(l.halt))
}

func (l *line) loses(command []byte) bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.lose == "" || !bytes.Contains(command, []byte(l.lose)) {
		return false
	}
	l.lose = ""
	l.lost++
	return true
}

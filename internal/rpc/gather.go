package rpc

import (
	"net"
	"runtime"
	"sync"
	"time"
)

const (
	// maxGathered is how many bytes wait while others are being sent: what a record of TLS
	// takes. A write for which there is no room waits, as it would for the system.
	maxGathered = 16 << 10
	// lingering is how long a connection that was closed may take for what it had to send.
	lingering = time.Second
)

// gathering is a connection that sends what is written a moment later, together with what
// is written until then. gRPC's server does that with answers of less than 1,000 bytes in
// all, and one with a token has more: each would be a record of TLS and a write of the
// system to itself, which is a quarter of what a call takes.
//
// As with a socket, what was written may be sent still; an error is of a write after the one
// that it befell, and closes the connection.
type gathering struct {
	net.Conn          // with TLS
	raw      net.Conn // beneath that

	mu      sync.Mutex
	change  sync.Cond // of waiting or err
	waiting *written  // to be sent; nil: nothing
	sending bool      // a goroutine is at it
	err     error     // of writes from now on
}

// written is what is sent at once.
type written struct{ bytes []byte }

// spare are those that nobody has: a connection has none while it sends nothing.
var spare = sync.Pool{New: func() any { return new(written) }}

func gather(secured, raw net.Conn) *gathering {
	g := &gathering{Conn: secured, raw: raw}
	g.change.L = &g.mu
	return g
}

// Write implements net.Conn.
func (g *gathering) Write(p []byte) (int, error) {
	g.mu.Lock()
	defer g.mu.Unlock()
	for g.err == nil && g.waiting != nil && len(g.waiting.bytes)+len(p) > maxGathered {
		g.change.Wait()
	}
	if g.err != nil {
		return 0, g.err
	}
	if g.waiting == nil {
		g.waiting = spare.Get().(*written)
	}
	g.waiting.bytes = append(g.waiting.bytes, p...)
	if !g.sending {
		g.sending = true
		go g.send()
	}
	return len(p), nil
}

// send sends until there is nothing to be sent.
func (g *gathering) send() {
	for {
		runtime.Gosched() // Calls that are about to be answered are, before it goes on.
		now := g.next()
		if now == nil {
			return
		}
		_, err := g.Conn.Write(now.bytes)
		now.bytes = now.bytes[:0]
		spare.Put(now)
		if err != nil {
			g.fail(err)
		}
	}
}

// next returns what is to be sent next. nil: there is nothing, and who asked is done; a
// connection that was closed while there was something is closed now.
func (g *gathering) next() *written {
	g.mu.Lock()
	defer g.mu.Unlock()
	now := g.waiting
	if now == nil {
		g.sending = false
		if g.err != nil {
			_ = g.Conn.Close()
		}
		return nil
	}
	g.waiting = nil
	g.change.Broadcast()
	return now
}

// fail closes the connection without a farewell, which its peer does not take or cannot be
// sent, so that reading from it ends as well.
func (g *gathering) fail(err error) {
	g.mu.Lock()
	defer g.mu.Unlock()
	g.err, g.waiting = err, nil
	g.change.Broadcast()
	_ = g.raw.Close()
}

// Close implements net.Conn. Nothing can be written from then on, but what was written is
// sent, for which it does not wait.
func (g *gathering) Close() error {
	g.mu.Lock()
	defer g.mu.Unlock()
	g.err = net.ErrClosed
	g.change.Broadcast()
	if g.sending {
		return g.Conn.SetWriteDeadline(time.Now().Add(lingering))
	}
	return g.Conn.Close()
}

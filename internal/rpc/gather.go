package rpc

import (
	"net"
	"runtime"
	"sync"
	"time"
)

const (
	// maxGathered is how many bytes wait while as many are being sent: what a record of TLS
	// takes. What there is no room for has to wait, as it would for the system.
	maxGathered = 16 << 10
	// lingering is how long a connection that was closed may take for what it had to send,
	// its farewell included. TLS allows the farewell as much.
	lingering = 5 * time.Second
)

// gathering is a connection that sends what is written a moment later, together with what
// is written until then. gRPC's server waits for more only while there are less than 1,000
// bytes, and an answer with a token has more: most are a record of TLS and a write of the
// system to themselves, which is a quarter of what a call takes.
//
// As with a socket, what was written may not have been sent; an error is of a write after
// the one that it befell, and closes the connection. gRPC takes for sent what is written: a
// peer that takes nothing for several seconds while it is being closed loses up to two
// records.
type gathering struct {
	net.Conn          // with TLS
	raw      net.Conn // beneath that

	mu      sync.Mutex
	change  sync.Cond // of waiting or err
	waiting *written  // to be sent; nil: nothing
	sending bool      // a goroutine is at it
	closed  bool
	err     error // of writes from now on
}

// written is what is sent at once.
type written struct{ bytes []byte }

// spare are those that nobody has: a connection has none while it sends nothing.
var spare = sync.Pool{New: func() any { return &written{make([]byte, 0, maxGathered)} }}

func gather(secured, raw net.Conn) *gathering {
	g := &gathering{Conn: secured, raw: raw}
	g.change.L = &g.mu
	return g
}

// Write implements net.Conn.
func (g *gathering) Write(p []byte) (int, error) {
	g.mu.Lock()
	defer g.mu.Unlock()
	taken := 0
	for taken < len(p) {
		for g.err == nil && g.waiting != nil && len(g.waiting.bytes) == maxGathered {
			g.change.Wait()
		}
		if g.err != nil {
			return taken, g.err
		}
		if g.waiting == nil {
			g.waiting = spare.Get().(*written)
		}
		part := p[taken:min(len(p), taken+maxGathered-len(g.waiting.bytes))]
		g.waiting.bytes = append(g.waiting.bytes, part...)
		taken += len(part)
		if !g.sending {
			g.sending = true
			go g.send()
		}
	}
	return taken, nil
}

// send sends until there is nothing to be sent.
func (g *gathering) send() {
	for {
		runtime.Gosched() // Calls that are about to be answered may be, before it goes on.
		now, over := g.next()
		if over {
			_ = g.Conn.Close()
		}
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

// next returns what is to be sent next. nil: there is nothing, and who asked is done; over
// says that the connection, closed or broken meanwhile, is to be closed now.
func (g *gathering) next() (now *written, over bool) {
	g.mu.Lock()
	defer g.mu.Unlock()
	now = g.waiting
	if now == nil {
		g.sending = false
		return nil, g.err != nil
	}
	g.waiting = nil
	g.change.Broadcast()
	return now, false
}

// fail has nothing more written or sent, after which the connection is over, for who reads
// from it as well.
func (g *gathering) fail(err error) {
	g.mu.Lock()
	defer g.mu.Unlock()
	g.err, g.waiting = err, nil
	g.change.Broadcast()
}

// Close implements net.Conn. Nothing can be written from then on. What was written is sent,
// as long as that takes no longer than lingering; Close does not wait for it.
func (g *gathering) Close() error {
	g.mu.Lock()
	again := g.closed
	g.closed, g.err = true, net.ErrClosed
	g.change.Broadcast()
	sending := g.sending
	g.mu.Unlock()
	switch {
	case again: // gRPC may.
		return nil
	case sending: // It is closed when that is done, and no deadline of TLS's own delays it.
		time.AfterFunc(lingering, func() { _ = g.raw.Close() })
		return nil
	}
	return g.Conn.Close()
}

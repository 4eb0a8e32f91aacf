package rpc

import (
	"container/list"
	"errors"
	"log/slog"
	"net"
	"sync"
	"sync/atomic"
	"time"

	"golang.org/x/time/rate"
	"google.golang.org/grpc/credentials"

	"smokeball.internal/tokenbroker/internal/access"
)

// maxStrangers is how many connections may be open on which nobody is known: in
// the middle of a handshake, or without a certificate and before the first call
// with a good token. An honest one is known within milliseconds, so what has to
// go when there are more is the one that has been there for longest.
const maxStrangers = 1000

// door is the credentials of the server: it has TLS done, learns from the guard
// who has come, and counts.
type door struct {
	credentials.TransportCredentials
	certificates *access.Certificates
	guard        *access.Guard
	log          *slog.Logger
	some         *rate.Sometimes // A client that tries again and again is one record a second.
	strangers    *strangers
}

func newDoor(certificates *access.Certificates, guard *access.Guard, log *slog.Logger) door {
	return door{credentials.NewTLS(certificates.Config()), certificates, guard, log, &rate.Sometimes{First: 1, Interval: time.Second}, &strangers{}}
}

// guest is a connection, and what gRPC knows of it (credentials.AuthInfo).
type guest struct {
	credentials.TLSInfo
	caller *access.Caller // by certificate; may be nil
	peer   string
	raw    net.Conn

	refusals atomic.Int32

	mu     sync.Mutex
	counts *access.Caller // the connection counts as one of this caller's
	gone   bool
	forget func() (there bool) // takes it off the list of strangers
}

// ServerHandshake implements credentials.TransportCredentials. It says in the log
// why clients were turned away before they were clients: they see little more
// than a connection that closes.
func (d door) ServerHandshake(raw net.Conn) (net.Conn, credentials.AuthInfo, error) {
	g := &guest{peer: raw.RemoteAddr().String(), raw: raw}
	g.forget = d.strangers.add(raw)
	secured, err := d.welcome(raw, g)
	if err != nil {
		g.leave()
		d.some.Do(func() { d.log.Warn("connection turned away", "peer", g.peer, "error", err) })
		return nil, nil, err
	}
	return g.connection(secured), g, nil
}

func (d door) welcome(raw net.Conn, g *guest) (net.Conn, error) {
	secured, info, err := d.TransportCredentials.ServerHandshake(raw)
	if err != nil {
		return nil, err
	}
	g.TLSInfo = info.(credentials.TLSInfo)
	if g.caller, err = d.certificates.Caller(g.State); err != nil {
		return nil, err
	}
	if g.caller != nil {
		return secured, g.known(d.guard, g.caller)
	}
	return secured, nil
}

// Clone implements credentials.TransportCredentials.
func (d door) Clone() credentials.TransportCredentials {
	d.TransportCredentials = d.TransportCredentials.Clone()
	return d
}

// known says that somebody was found to be on the connection, which counts as one
// of theirs from then on; the first who comes. The error says that they have too
// many, or that it had to go before.
func (g *guest) known(guard *access.Guard, c *access.Caller) error {
	g.mu.Lock()
	defer g.mu.Unlock()
	if g.counts != nil || g.gone {
		return nil
	}
	if err := guard.Connect(c); err != nil {
		return err
	}
	if !g.forget() { // gRPC may not close a second time what is closed already.
		c.Disconnect()
		return errCrowded
	}
	g.counts = c
	return nil
}

var errCrowded = errors.New("there are too many connections on which nobody is known, and this one was among them")

// Refused calls that a connection may have, while nobody is known on it and after
// that. Who is refused that often does not listen, and coming again slows it down.
const (
	maxStrangersRefusals = 100
	maxRefusals          = 1000
)

// refused says that a call was refused before its message was read. A connection
// of too many is closed: what it costs its client to come again slows it down.
func (g *guest) refused() {
	g.mu.Lock()
	most := int32(maxRefusals)
	if g.counts == nil {
		most = maxStrangersRefusals
	}
	g.mu.Unlock()
	if g.refusals.Add(1) > most {
		_ = g.raw.Close()
	}
}

func (g *guest) leave() {
	g.mu.Lock()
	defer g.mu.Unlock()
	if g.gone {
		return
	}
	g.gone = true
	g.forget()
	if g.counts != nil {
		g.counts.Disconnect()
	}
}

// connection returns what gRPC is given of the guest's connection.
func (g *guest) connection(secured net.Conn) net.Conn { return gather(&leaving{secured, g}, g.raw) }

// leaving notices when a connection closes.
type leaving struct {
	net.Conn
	guest *guest
}

// Close implements net.Conn.
func (l *leaving) Close() error {
	defer l.guest.leave() // It counts for as long as there is something of it.
	return l.Conn.Close()
}

// strangers are the connections on which nobody is known yet, oldest first.
type strangers struct {
	mu   sync.Mutex
	list list.List
}

// add adds a connection, and closes the oldest if there are too many. forget
// takes it off the list, and says whether it was there still.
func (s *strangers) add(conn net.Conn) (forget func() (there bool)) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.list.Len() >= maxStrangers {
		oldest := s.list.Front()
		_ = s.list.Remove(oldest).(net.Conn).Close()
	}
	e := s.list.PushBack(conn)
	return func() bool {
		s.mu.Lock()
		defer s.mu.Unlock()
		before := s.list.Len()
		s.list.Remove(e) // Does nothing if it is off the list.
		return s.list.Len() < before
	}
}

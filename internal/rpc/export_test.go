package rpc

import (
	"net"

	"buf.build/go/protovalidate"
	"google.golang.org/grpc"
	"google.golang.org/grpc/tap"

	pb "smokeball.internal/tokenbroker/gen/tokenbroker/v1"
	"smokeball.internal/tokenbroker/internal/access"
)

// Crowd is the connections on which nobody is known.
type Crowd struct{ strangers strangers }

// Enter adds a connection. known is what is called when it is found whose it is.
func (c *Crowd) Enter(conn net.Conn) (known func(*access.Guard, *access.Caller) error) {
	g := &guest{forget: c.strangers.add(conn)}
	return g.known
}

// MaxStrangers is how many there may be.
const MaxStrangers = maxStrangers

// Gather returns a guest's connection, that sends to conn together what is written at about
// the same time. gone says whether the guest has left.
func Gather(conn net.Conn) (gathered net.Conn, gone func() bool) {
	g := &guest{raw: conn, forget: func() bool { return true }}
	return g.connection(conn), func() bool {
		g.mu.Lock()
		defer g.mu.Unlock()
		return g.gone
	}
}

// Room is what can be written to it while it sends, Lingering how long it does after it was
// closed.
const (
	Room      = maxGathered
	Lingering = lingering
)

// KeepsRules is the short way through the rules.
func KeepsRules(r *pb.GetTokenRequest) bool { return keepsRules(r) }

// HotPath returns what is on the way of a unary call beside gRPC: what looks at it, the
// interceptor, and the service.
func HotPath(c Config) (look tap.ServerInHandle, way grpc.UnaryServerInterceptor, service pb.TokenServiceServer, err error) {
	e, err := newEntrance(c)
	if err != nil {
		return nil, nil, nil, err
	}
	validator, err := protovalidate.New()
	if err != nil {
		return nil, nil, nil, err
	}
	w := newWay(c, validator)
	server := grpc.NewServer()
	service = &tokenService{broker: c.Broker, log: c.Logger}
	pb.RegisterTokenServiceServer(server, service)
	return e.look, w.unary, service, w.metrics.measure(server, c.Metrics)
}

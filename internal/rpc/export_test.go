package rpc

import (
	"net"

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

// KeepsRules is the short way through the rules.
func KeepsRules(r *pb.GetTokenRequest) bool { return keepsRules(r) }

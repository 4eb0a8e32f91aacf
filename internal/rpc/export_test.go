package rpc

import (
	"net"

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

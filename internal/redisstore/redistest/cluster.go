package redistest

import (
	"context"
	"fmt"
	"net"
	"slices"
	"strconv"
	"strings"
	"testing"

	"github.com/redis/go-redis/v9"
)

const (
	shards   = 3
	allSlots = 16384
)

// Cluster is a Redis Cluster of three primaries with a replica each. They take a
// node for dead after a second and a half of silence, and its replica becomes a
// primary about a second later.
type Cluster struct {
	t       testing.TB
	certs   *certificates
	servers []*Server // shards primaries, then their replicas in the same order, as they were at the start
}

// StartCluster starts a cluster, waits until it serves and every replica has its
// primary's data, and ends it with the test. args are further arguments for each
// node, see Start.
func StartCluster(t testing.TB, args ...string) *Cluster {
	t.Helper()
	return startCluster(t, nil, args)
}

// StartClusterTLS is StartCluster for a cluster that speaks nothing but TLS, see
// StartTLS.
func StartClusterTLS(t testing.TB, args ...string) *Cluster {
	t.Helper()
	return startCluster(t, newCertificates(t), args)
}

func startCluster(t testing.TB, certs *certificates, args []string) *Cluster {
	t.Helper()
	c := &Cluster{t: t, certs: certs}
	path := redisServer(t)
	args = slices.Concat([]string{
		"--cluster-enabled", "yes", "--cluster-node-timeout", fmt.Sprint(deadAfter.Milliseconds()),
		// A replica is one however long it has not heard of its primary, and as soon
		// as it has: others do not count it before it was sent something.
		"--cluster-replica-validity-factor", "0", "--repl-diskless-sync-delay", "0", "--repl-ping-replica-period", "1",
	}, args)
	if certs != nil {
		args = append(args, "--tls-cluster", "yes")
	}
	for range 2 * shards {
		c.servers = append(c.servers, launch(t, program{path: path, certs: certs, args: func(port int) []string {
			// The nodes' own port, which is else out of the range of freePort.
			return slices.Concat(args, []string{"--cluster-port", strconv.Itoa(busPort(port))})
		}}))
	}
	c.form()
	return c
}

// busPort returns the port that the nodes talk to each other on.
func busPort(port int) int {
	if port >= highPort-1 {
		return port - 1
	}
	return port + 1
}

// form makes a cluster of the servers.
func (c *Cluster) form() {
	c.t.Helper()
	for n, s := range c.servers {
		c.do(s, "cluster", "set-config-epoch", n+1)
		if n < shards {
			c.do(s, "cluster", "addslotsrange", n*allSlots/shards, (n+1)*allSlots/shards-1)
		}
		if n > 0 {
			c.do(s, "cluster", "meet", "127.0.0.1", c.servers[0].port, busPort(c.servers[0].port))
		}
	}
	poll(c.t, "all nodes know each other", func() bool {
		return !slices.ContainsFunc(c.servers, func(s *Server) bool {
			nodes := c.do(s, "cluster", "nodes")
			return strings.Count(nodes, " connected") != len(c.servers) || strings.Contains(nodes, "handshake")
		})
	})
	for n := range shards {
		c.do(c.servers[shards+n], "cluster", "replicate", c.do(c.servers[n], "cluster", "myid"))
	}
	poll(c.t, "the cluster serves and its replicas follow", func() bool {
		return c.Serves() && !slices.ContainsFunc(c.servers[shards:], func(s *Server) bool { return !follows(s) })
	})
}

// Serves says whether every node knows of a primary and a replica for every slot,
// and that they can be asked.
func (c *Cluster) Serves() bool {
	c.t.Helper()
	return !slices.ContainsFunc(c.servers, func(s *Server) bool { return !c.complete(s) })
}

// complete says whether a node knows of a primary and a replica for every slot.
func (c *Cluster) complete(s *Server) bool {
	c.t.Helper()
	parts := c.slots(s)
	return strings.Contains(c.do(s, "cluster", "info"), "cluster_state:ok") && len(parts) == shards &&
		!slices.ContainsFunc(parts, func(part redis.ClusterSlot) bool { return len(part.Nodes) != 2 })
}

// slots returns who has which slots, as a node sees it.
func (c *Cluster) slots(s *Server) []redis.ClusterSlot {
	c.t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), startTimeout)
	defer cancel()
	parts, err := s.Client().ClusterSlots(ctx).Result() //nolint:staticcheck // SA1019: it is what the client itself asks for.
	if err != nil {
		c.t.Fatalf("slots of the cluster: %v", err)
	}
	return parts
}

// do returns the answer of a node to a command, as text.
func (c *Cluster) do(s *Server, command ...any) string {
	c.t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), startTimeout)
	defer cancel()
	answer, err := s.Client().Do(ctx, command...).Text()
	if err != nil {
		c.t.Fatalf("%v: %v", command, err)
	}
	return answer
}

// URL returns where the cluster is, as a store takes it: redis+cluster:// with
// all nodes.
func (c *Cluster) URL() string { return url("redis+cluster", "", c.certs, c.servers...) }

// Servers returns all nodes.
func (c *Cluster) Servers() []*Server { return c.servers }

// Primary returns the node that has the key, as the others see it: after it has
// died, that is the dead one until they have agreed.
func (c *Cluster) Primary(key string) *Server { return c.ofKey(key, 0) }

// Replica returns the node that is the replica of Primary; nil, if there is none.
func (c *Cluster) Replica(key string) *Server { return c.ofKey(key, 1) }

// ofKey returns the primary (0) or the replica (1) of a key.
func (c *Cluster) ofKey(key string, which int) *Server {
	c.t.Helper()
	n := slices.IndexFunc(c.servers, (*Server).Running)
	if n < 0 {
		c.t.Fatal("no node of the cluster is running")
	}
	ctx, cancel := context.WithTimeout(context.Background(), startTimeout)
	defer cancel()
	slot, err := c.servers[n].Client().ClusterKeySlot(ctx, key).Result()
	if err != nil {
		c.t.Fatalf("slot of %s: %v", key, err)
	}
	for _, part := range c.slots(c.servers[n]) {
		if int(slot) < part.Start || int(slot) > part.End || which >= len(part.Nodes) {
			continue
		}
		_, port, _ := net.SplitHostPort(part.Nodes[which].Addr)
		return c.servers[slices.IndexFunc(c.servers, func(s *Server) bool { return strconv.Itoa(s.port) == port })]
	}
	return nil
}

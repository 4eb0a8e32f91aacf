package redistest

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/redis/go-redis/v9"
)

const (
	// What the sentinels call the primary.
	primaryName = "registry"
	// How long a deployment may take to be one; most of it is waiting for servers
	// to hear of each other.
	formTimeout = 60 * time.Second
	// How long a server has to be silent to be taken for dead. Shorter, and a busy
	// machine has failovers that nobody asked for.
	deadAfter = 1500 * time.Millisecond
)

// Sentinel is a primary, its replica and three sentinels, two of which have to
// agree that the primary is dead. They take it for dead after a second and a
// half of silence, and make the replica the primary about two seconds later.
type Sentinel struct {
	t         testing.TB
	certs     *certificates
	servers   []*Server
	sentinels []*Server
}

// StartSentinel starts a deployment, waits until all know of each other, and ends
// it with the test. args are further arguments for the primary and the replica,
// see Start.
func StartSentinel(t testing.TB, args ...string) *Sentinel {
	t.Helper()
	return startSentinel(t, nil, args)
}

// StartSentinelTLS is StartSentinel for a deployment that speaks nothing but TLS,
// see StartTLS.
func StartSentinelTLS(t testing.TB, args ...string) *Sentinel {
	t.Helper()
	return startSentinel(t, newCertificates(t), args)
}

func startSentinel(t testing.TB, certs *certificates, args []string) *Sentinel {
	t.Helper()
	d := &Sentinel{t: t, certs: certs}
	path := redisServer(t)
	// A diskless copy is sent after five seconds, in case others want one too.
	args = slices.Concat([]string{"--repl-diskless-sync-delay", "0"}, args)
	primary := launch(t, program{path: path, args: fixed(args), certs: certs})
	port := fmt.Sprint(primary.port)
	replica := launch(t, program{path: path, args: fixed(slices.Concat(args, []string{"--replicaof", "127.0.0.1", port})), certs: certs})
	d.servers = []*Server{primary, replica}
	poll(t, "the replica follows the primary", func() bool { return follows(replica) })
	for range 3 {
		d.sentinels = append(d.sentinels, launch(t, program{path: path, certs: certs, configure: func(s *Server) ([]string, error) {
			return configureSentinel(s, port)
		}}))
	}
	poll(t, "the sentinels know each other and the replica", func() bool {
		for _, s := range d.sentinels {
			known := d.ask(s)
			if known["num-other-sentinels"] != "2" || known["num-slaves"] != "1" || known["flags"] != "master" {
				return false
			}
		}
		return true
	})
	return d
}

// configureSentinel writes the file that a sentinel cannot do without, unless it
// is there: the sentinel keeps in it what it has learned.
func configureSentinel(s *Server, port string) ([]string, error) {
	file := filepath.Join(s.dir, fmt.Sprintf("sentinel-%d.conf", s.port))
	if _, err := os.Stat(file); err == nil {
		return []string{file, "--sentinel"}, nil
	}
	settings := []string{
		"bind 127.0.0.1", "dir " + s.dir, "logfile " + s.logfile(), "daemonize no",
		"sentinel monitor " + primaryName + " 127.0.0.1 " + port + " 2",
		fmt.Sprintf("sentinel down-after-milliseconds %s %d", primaryName, deadAfter.Milliseconds()),
		"sentinel failover-timeout " + primaryName + " 3000",
	}
	for _, setting := range s.listening() {
		settings = append(settings, setting[0]+" "+setting[1])
	}
	return []string{file, "--sentinel"}, os.WriteFile(file, []byte(strings.Join(settings, "\n")+"\n"), 0o600)
}

// URL returns where the deployment is, as a store takes it: redis+sentinel://
// with all sentinels.
func (d *Sentinel) URL() string {
	return url("redis+sentinel", "/"+primaryName, d.certs, d.sentinels...)
}

// Primary returns the server that the sentinels take for the primary now: after
// the primary has died, that is the dead one until they have agreed. The key is
// for the likeness to Cluster's; here one server has all keys.
func (d *Sentinel) Primary(string) *Server { return d.byRole(true) }

// Replica returns the other one.
func (d *Sentinel) Replica(string) *Server { return d.byRole(false) }

// Sentinels returns the servers that watch.
func (d *Sentinel) Sentinels() []*Server { return d.sentinels }

func (d *Sentinel) byRole(primary bool) *Server {
	d.t.Helper()
	var found *Server
	poll(d.t, "a sentinel says who is the primary", func() bool {
		for _, s := range d.sentinels {
			if port := d.ask(s)["port"]; port != "" {
				found = d.servers[slices.IndexFunc(d.servers, func(s *Server) bool { return (fmt.Sprint(s.port) == port) == primary })]
				return true
			}
		}
		return false
	})
	return found
}

// ask returns what a sentinel knows of the primary; nothing, if it does not
// answer.
func (d *Sentinel) ask(sentinel *Server) map[string]string {
	if !sentinel.Running() {
		return nil
	}
	ctx, cancel := context.WithTimeout(context.Background(), time.Second)
	defer cancel()
	known := redis.NewMapStringStringCmd(ctx, "sentinel", "master", primaryName)
	_ = sentinel.Client().Process(ctx, known)
	return known.Val()
}

// follows says whether a server is a replica that has its primary's data.
func follows(s *Server) bool {
	ctx, cancel := context.WithTimeout(context.Background(), time.Second)
	defer cancel()
	return strings.Contains(s.Client().Info(ctx, "replication").Val(), "master_link_status:up")
}

// poll waits until what is described is so.
func poll(t testing.TB, what string, so func() bool) {
	t.Helper()
	for deadline := time.Now().Add(formTimeout); !so(); {
		if time.Now().After(deadline) {
			t.Fatalf("not within %v: %s", formTimeout, what)
		}
		<-time.After(20 * time.Millisecond)
	}
}

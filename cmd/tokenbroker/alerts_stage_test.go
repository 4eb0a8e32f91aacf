package main_test

import (
	"context"
	"errors"
	"fmt"
	"os"
	"strings"
	"sync"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"smokeball.internal/tokenbroker/internal/redisstore/redistest"
)

// crew is some replicas without TLS, which come back where they were.
type crew struct {
	s      *stage
	redis  *redistest.Server
	issuer *issuer
	keyset string
	args   []string           // beside the addresses
	conns  []*grpc.ClientConn // to each replica, which outlive it

	mu       sync.Mutex
	replicas []*process
}

// enlist starts n replicas, a Prometheus that watches over them, and a desk for their
// operator.
func (s *stage) enlist(redis *redistest.Server, n int, settings ...string) *crew {
	s.t.Helper()
	c := &crew{s: s, redis: redis, issuer: startIssuer(s.t), keyset: keysetFile(s.t)}
	config := s.t.TempDir() + "/tokenbroker.yaml"
	content := append([]string{"redis-url: " + redis.URL(), "keyset-file: " + c.keyset}, settings...)
	if err := os.WriteFile(config, []byte(strings.Join(content, "\n")+"\n"), 0o600); err != nil {
		s.t.Fatal(err)
	}
	c.args = append(serveArgs(redis.URL(), c.keyset, c.issuer), "--log-level=info", "--config="+config)
	var scraped []string
	for range n {
		p := c.start(loopbackAddress(s.t), loopbackAddress(s.t)).ready()
		c.replicas, c.conns, scraped = append(c.replicas, p), append(c.conns, p.connect()), append(scraped, p.ops)
	}
	s.monitor = watchOver(s.t, scraped...)
	s.desk = newDesk(s.t, machine{c.systemctl, c.journalctl}, map[string]string{
		"TOKENBROKER_ADDR": c.replicas[0].grpc, "TOKENBROKER_ADDR_INSECURE": "true", "OPS": "http://" + c.replicas[0].ops,
		"CONFIG": config, "KEYSET_FILE": c.keyset, "REDIS_URL": redis.URL(), "TOKEN_ENDPOINT": c.issuer.url + "/us/production/oauth2/token",
	})
	return c
}

func (c *crew) start(grpcAddr, opsAddr string) *process {
	return start(c.s.t, append(c.args[:len(c.args):len(c.args)], "--grpc-addr="+grpcAddr, "--ops-addr="+opsAddr)...)
}

// systemctl does to the replicas and to Redis what systemd would.
func (c *crew) systemctl(verb, unit string) (string, error) {
	switch verb + " " + unit {
	case "start redis-server":
		if !c.redis.Running() {
			c.redis.Restart()
		}
	case "start tokenbroker":
		c.restart(func(p *process) bool { return p.ended() })
	case "restart tokenbroker":
		c.restart(func(*process) bool { return true })
	case "status redis-server":
		return fmt.Sprintf("running: %v", c.redis.Running()), nil
	case "status tokenbroker":
		return fmt.Sprintf("running: %v", !c.replica(0).ended()), nil
	default:
		return "", errors.New("nobody does that here: " + verb + " " + unit)
	}
	return "done", nil
}

func (c *crew) journalctl(string) string {
	c.mu.Lock()
	defer c.mu.Unlock()
	var log strings.Builder
	for _, p := range c.replicas {
		log.WriteString(p.log.String())
	}
	return log.String()
}

func (c *crew) replica(n int) *process {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.replicas[n]
}

// restart starts those of the replicas anew at their addresses, after their end if they
// still run.
func (c *crew) restart(those func(*process) bool) {
	c.mu.Lock()
	defer c.mu.Unlock()
	for n, old := range c.replicas {
		if those(old) {
			if !old.ended() {
				old.terminate()
			}
			c.replicas[n] = c.start(old.grpc, old.ops)
		}
	}
}

// ended says whether the process has ended.
func (p *process) ended() bool {
	select {
	case <-p.done:
		return true
	default:
		return false
	}
}

// registered registers tenants whose tokens live for so long.
func (c *crew) registered(lifetime time.Duration, ids ...string) {
	c.s.t.Helper()
	// After a restart the connection takes a moment to come back.
	until(c.s.t, "connected", func() bool {
		_, err := get(c.s.t.Context(), c.conns[0], "nobody")
		return status.Code(err) == codes.NotFound
	})
	for _, id := range ids {
		register(c.s.t, c.conns[0], c.issuer, id, lifetime)
	}
}

// again has somebody do something over and over, until the stage ends or stop is called.
func (s *stage) again(pause time.Duration, do func()) (stop func()) {
	ctx, cancel := context.WithCancel(s.t.Context())
	var doing sync.WaitGroup
	doing.Go(func() {
		for ctx.Err() == nil {
			do()
			select {
			case <-time.After(pause):
			case <-ctx.Done():
			}
		}
	})
	stop = func() { cancel(); doing.Wait() }
	s.t.Cleanup(stop)
	return stop
}

// asked has a service ask for tokens of these tenants, each twice a second. What it gets
// is not looked at.
func (s *stage) asked(conn *grpc.ClientConn, ids ...string) (stop func()) {
	var stops []func()
	for _, id := range ids {
		stops = append(stops, s.again(500*time.Millisecond, func() { _, _ = get(s.t.Context(), conn, id) }))
	}
	return func() {
		for _, stop := range stops {
			stop()
		}
	}
}

// warmed has a replica hand out a token of each of these tenants.
func (s *stage) warmed(conn *grpc.ClientConn, ids ...string) {
	s.t.Helper()
	for _, id := range ids {
		if _, err := get(s.t.Context(), conn, id); err != nil {
			s.t.Fatal(err)
		}
	}
}

// backup writes what is registered to a file, for $BACKUP.
func (c *crew) backup() {
	c.s.t.Helper()
	file := c.s.path("tenants.jsonl")
	if stdout, stderr, code := verb(c.s.t, "", export(c.redis, c.keyset, file)...); code != 0 {
		c.s.t.Fatalf("exit code %d: %s%s", code, stdout, stderr)
	}
	c.s.set("BACKUP", file)
}

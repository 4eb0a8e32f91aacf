package main_test

import (
	"context"
	"fmt"
	"math/rand/v2"
	"net"
	"net/http/httptest"
	"regexp"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/grpc/resolver"
	"google.golang.org/grpc/resolver/manual"

	"smokeball.internal/tokenbroker/internal/redisstore/redistest"
	"smokeball.internal/tokenbroker/internal/simulator"
)

const (
	sceneReplicas = 3
	sceneTenants  = 20
)

// scene is a fleet that can be broken in all its parts, under load. Its replicas
// and its issuer come back where they were.
type scene struct {
	t        *testing.T
	redisURL string
	redis    *redistest.Server // nil if there are several of them:
	several  deployment
	issuer   *gate
	keyset   string
	replicas []*process
	conns    []*grpc.ClientConn // to each replica, which outlive it
	lives    map[string]time.Duration
}

// build starts the replicas and registers tenants whose tokens live for shortest
// to longest.
func (s *scene) build(shortest, longest time.Duration) {
	s.t.Helper()
	s.issuer, s.keyset = openGate(s.t), keysetFile(s.t)
	for range sceneReplicas {
		p := start(s.t, s.args(loopbackAddress(s.t), loopbackAddress(s.t))...)
		s.replicas = append(s.replicas, p)
	}
	for _, p := range s.replicas {
		s.conns = append(s.conns, p.ready().connect())
	}
	s.lives = map[string]time.Duration{}
	for n := range sceneTenants {
		id := fmt.Sprintf("firm-%d", n)
		life := shortest + (longest-shortest)*time.Duration(n)/(sceneTenants-1)
		s.lives[id] = life.Round(time.Second)
		register(s.t, s.conns[0], s.issuer.issuer, id, s.lives[id])
	}
	s.warm()
}

func (s *scene) args(grpcAddr, opsAddr string) []string {
	return serveArgs(s.redisURL, s.keyset, s.issuer.issuer, "--api-override=us/production="+s.issuer.issuer.url+"/us/production"+simulator.APIPath, "--grpc-addr="+grpcAddr, "--ops-addr="+opsAddr, "--log-level=info")
}

// warm has every replica hand out a token of every tenant once.
func (s *scene) warm() {
	s.t.Helper()
	for id := range s.lives {
		for n, conn := range s.conns {
			if _, err := get(s.t.Context(), conn, id); err != nil {
				s.t.Fatalf("%s on replica %d: %v", id, n, err)
			}
		}
	}
}

// restart starts a replica that has ended again, at the same addresses.
func (s *scene) restart(n int) {
	s.t.Helper()
	old := s.replicas[n]
	s.replicas[n] = start(s.t, s.args(old.grpc, old.ops)...).ready()
}

// balanced returns a connection as services have it: to all replicas in turn,
// and what one cannot answer is tried at another.
func (s *scene) balanced() *grpc.ClientConn {
	s.t.Helper()
	conn, err := grpc.NewClient("fleet:///", grpc.WithResolvers(s.names()), grpc.WithTransportCredentials(insecure.NewCredentials()),
		grpc.WithDefaultServiceConfig(`{
			"loadBalancingConfig": [{"round_robin": {}}],
			"methodConfig": [{
				"name": [{"service": "tokenbroker.v1.TokenService"}],
				"retryPolicy": {"maxAttempts": 4, "initialBackoff": "0.05s", "maxBackoff": "1s", "backoffMultiplier": 2, "retryableStatusCodes": ["UNAVAILABLE"]}
			}]}`))
	if err != nil {
		s.t.Fatal(err)
	}
	s.t.Cleanup(func() { _ = conn.Close() })
	return conn
}

// names resolves fleet:/// to all replicas.
func (s *scene) names() resolver.Builder {
	fleet := manual.NewBuilderWithScheme("fleet")
	var addresses []resolver.Address
	for _, p := range s.replicas {
		addresses = append(addresses, resolver.Address{Addr: p.grpc})
	}
	fleet.InitialState(resolver.State{Addresses: addresses})
	return fleet
}

// servedEverywhere waits until every replica has handed out a token of every
// tenant since it was called, and returns how long that took.
func (s *scene) servedEverywhere(within time.Duration) time.Duration {
	s.t.Helper()
	ctx, cancel := context.WithTimeout(s.t.Context(), within)
	defer cancel()
	begun := time.Now()
	var waiting sync.WaitGroup
	for id := range s.lives {
		for n, conn := range s.conns {
			waiting.Go(func() {
				for {
					_, err := get(ctx, conn, id)
					if err == nil {
						return
					}
					select {
					case <-time.After(callPause):
					case <-ctx.Done():
						s.t.Errorf("%s on replica %d is not served within %v: %v", id, n, within, err)
						return
					}
				}
			})
		}
	}
	waiting.Wait()
	return time.Since(begun)
}

// noPanic looks for what must not be in the logs of the replicas, whatever
// breaks.
func (s *scene) noPanic() {
	s.t.Helper()
	for n, p := range s.replicas {
		if log := p.log.String(); strings.Contains(log, "panic") {
			s.t.Errorf("replica %d panics:\n%s", n, log)
		}
	}
}

// lasts lets time pass in which something stays as it is: a fault, or its being
// over, has no event to wait for.
func lasts(t testing.TB, d time.Duration) {
	select {
	case <-time.After(d):
	case <-t.Context().Done():
	}
}

var exchangesMetric = regexp.MustCompile(`(?m)^tokenbroker_exchanges_total\{.*\} (\d+)$`)

// tried returns how many exchanges the replicas have tried since they started,
// those included that did not reach the issuer.
func (s *scene) tried() int {
	sum := 0
	for _, p := range s.replicas {
		for _, match := range exchangesMetric.FindAllStringSubmatch(p.get("/metrics"), -1) {
			n, _ := strconv.Atoi(match[1])
			sum += n
		}
	}
	return sum
}

// gate is an issuer that can stop listening.
type gate struct {
	*issuer
	t      testing.TB
	addr   string
	server *httptest.Server
}

func openGate(t testing.TB) *gate {
	t.Helper()
	addr := loopbackAddress(t)
	g := &gate{issuer: &issuer{simulator.New(), "http://" + addr}, t: t, addr: addr}
	g.open()
	t.Cleanup(func() { g.Close(); g.server.Close() })
	return g
}

// open listens.
func (g *gate) open() {
	g.t.Helper()
	l, err := net.Listen("tcp", g.addr)
	if err != nil {
		g.t.Fatal(err)
	}
	g.server = httptest.NewUnstartedServer(g.Simulator)
	_ = g.server.Listener.Close()
	g.server.Listener = l
	g.server.Start()
}

// shut refuses connections from now on, and ends those there are.
func (g *gate) shut() { g.server.Close() }

// loopbackAddress returns an address that is free now. Its port is below those
// that systems give to outgoing connections, so that it is still free when
// whoever listened there comes back.
func loopbackAddress(t testing.TB) string {
	t.Helper()
	const low, high = 10_000, 32_000
	for range 10 {
		addr := net.JoinHostPort("127.0.0.1", strconv.Itoa(low+rand.N(high-low)))
		if l, err := net.Listen("tcp", addr); err == nil {
			_ = l.Close()
			return addr
		}
	}
	t.Fatal("no port is free")
	return ""
}

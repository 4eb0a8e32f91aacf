package main_test

import (
	"context"
	"crypto/tls"
	"fmt"
	"maps"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	healthpb "google.golang.org/grpc/health/grpc_health_v1"
	"google.golang.org/grpc/status"
)

// TestNoCallFailsBehindABalancer replaces all replicas in turn, and kills one, under
// load through each of the balancers that deploy has a configuration for.
func TestNoCallFailsBehindABalancer(t *testing.T) {
	for name, b := range balancers {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			f := startBehind(t, b)
			f.knowsCallers()
			f.allowsManyStreams()
			tried := &attempts{}
			var clients []*grpc.ClientConn
			for n := range behindClients {
				clients = append(clients, f.client(fmt.Sprintf("client-%d", n), grpc.WithDefaultServiceConfig(retrying), grpc.WithStatsHandler(tried)))
			}
			l := startLoad(t, f.lives, clients...)
			bare := f.startBare(f.client("client-bare"))
			streams := f.startStreams(clients)
			lasts(t, 2*time.Second) // Until it is known that there are tokens.
			f.allAnswer()

			for n, p := range f.replicas {
				if code := p.terminate(); code != 0 {
					t.Errorf("replica %d exits with %d", n, code)
				}
				f.restart(n)
				lasts(t, time.Second) // Clients find it again.
			}
			t.Logf("without retries, replaced in turn: %v", bare.take())
			t.Logf("streams, replaced in turn: %v", streams.take())
			f.replicas[0].kill()
			lasts(t, 2*time.Second)
			f.restart(0)
			t.Logf("without retries, one killed: %v", bare.take())
			t.Logf("streams, one killed: %v", streams.take())
			f.allAnswer()

			l.stop()
			n := l.take()
			t.Logf("with retries: %v", n)
			t.Logf("%d tries, of them %d transparent", tried.tries.Load(), tried.transparent.Load())
			if n.failedWithout > 0 {
				t.Errorf("%d calls fail", n.failedWithout)
			}
		})
	}
}

// knowsCallers shows that who calls arrives at the replicas.
func (f *behind) knowsCallers() {
	f.t.Helper()
	nobody := f.through(&tls.Config{RootCAs: f.authority.Pool(), ServerName: "127.0.0.1"})
	for who, want := range map[*grpc.ClientConn]string{
		f.client("client-1"): "OK",
		f.client("unknown"):  "PermissionDenied/NOT_ALLOWED",
		nobody:               "Unauthenticated", // By the balancer, or a replica.
	} {
		_, err := get(soon(f.t), who, "firm-0")
		if got := reason(err); !strings.HasPrefix(got, want) {
			f.t.Errorf("%v, want %v (%v)", got, want, err)
		}
	}
}

// allowsManyStreams shows that there can be more streams on one connection than
// balancers allow by default.
func (f *behind) allowsManyStreams() {
	f.t.Helper()
	conn := f.client("client-1")
	for n := range 300 {
		stream, err := healthpb.NewHealthClient(conn).Watch(soon(f.t), &healthpb.HealthCheckRequest{})
		if err == nil {
			_, err = stream.Recv()
		}
		if err != nil {
			f.t.Errorf("stream %d: %v", n, err)
			return
		}
	}
	_ = conn.Close()
}

// allAnswer waits until every replica has handed out a token that it was asked
// for through the balancer.
func (f *behind) allAnswer() {
	f.t.Helper()
	before := make([]int, len(f.replicas))
	for n, p := range f.replicas {
		before[n] = p.answered()
	}
	until(f.t, "answering on all replicas", func() bool {
		for n, p := range f.replicas {
			if p.answered() == before[n] {
				return false
			}
		}
		return true
	})
}

// ends counts how calls or streams ended.
type ends struct {
	mu      sync.Mutex
	reasons map[string]int
	last    map[string]error
}

func (e *ends) note(err error) {
	e.mu.Lock()
	defer e.mu.Unlock()
	if e.reasons == nil {
		e.reasons, e.last = map[string]int{}, map[string]error{}
	}
	e.reasons[reason(err)]++
	e.last[reason(err)] = err
}

func (e *ends) take() map[string]int {
	e.mu.Lock()
	defer e.mu.Unlock()
	taken := maps.Clone(e.reasons)
	e.reasons = nil
	return taken
}

// startBare has a caller that does not retry.
func (f *behind) startBare(conn *grpc.ClientConn) *ends {
	ctx, cancel := context.WithCancel(f.t.Context())
	e := &ends{}
	var callers sync.WaitGroup
	f.t.Cleanup(func() { cancel(); callers.Wait() })
	for range 5 {
		callers.Go(func() {
			for ctx.Err() == nil {
				if _, err := get(ctx, conn, "firm-0"); ctx.Err() == nil {
					e.note(err)
				}
				lasts(f.t, callPause/2)
			}
		})
	}
	return e
}

// startStreams keeps streams open.
func (f *behind) startStreams(conns []*grpc.ClientConn) *ends {
	ctx, cancel := context.WithCancel(f.t.Context())
	e := &ends{}
	var watchers sync.WaitGroup
	f.t.Cleanup(func() { cancel(); watchers.Wait() })
	for _, conn := range slices.Repeat(conns, 5) {
		watchers.Go(func() {
			for ctx.Err() == nil {
				err := watchHealth(ctx, conn)
				if ctx.Err() == nil {
					e.note(err)
					if status.Code(err) != codes.Unavailable {
						f.t.Logf("stream: %v", err)
					}
				}
				lasts(f.t, callPause)
			}
		})
	}
	return e
}

// watchHealth watches health until that ends.
func watchHealth(ctx context.Context, conn *grpc.ClientConn) error {
	stream, err := healthpb.NewHealthClient(conn).Watch(ctx, &healthpb.HealthCheckRequest{})
	for err == nil {
		_, err = stream.Recv()
	}
	return err
}

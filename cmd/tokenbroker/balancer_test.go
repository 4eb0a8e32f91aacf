package main_test

import (
	"context"
	"crypto/tls"
	"fmt"
	"maps"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"google.golang.org/grpc"
	healthpb "google.golang.org/grpc/health/grpc_health_v1"
	"google.golang.org/grpc/stats"

	pb "smokeball.internal/tokenbroker/gen/tokenbroker/v1"
)

// TestNoCallFailsBehindABalancer replaces all replicas in turn, and kills one, under
// load through each of the balancers that deploy has a configuration for.
func TestNoCallFailsBehindABalancer(t *testing.T) {
	t.Parallel()
	for name, b := range balancers {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			f := startBehind(t, b)
			f.knowsCallers()
			f.allowsManyStreams()

			tries := &attempts{}
			var clients []*grpc.ClientConn
			for n := range behindClients {
				clients = append(clients, f.client(fmt.Sprintf("client-%d", n), grpc.WithDefaultServiceConfig(retrying), grpc.WithStatsHandler(tries)))
			}
			l := startLoad(t, f.lives, clients...)
			impatient := f.startImpatient(f.client("client-impatient"))
			// On connections of their own: what streams hold open, balancers of connections count.
			streams := f.startStreams(f.client("client-watch-0"), f.client("client-watch-1"))
			f.allAnswer()
			lasts(t, slack) // From then on the book knows that there are tokens.

			for n, p := range f.replicas {
				if code := p.terminate(); code != 0 {
					t.Errorf("replica %d exits with %d", n, code)
				}
				f.restart(n)
				lasts(t, time.Second) // It is found again, and the next one goes while there is load on all.
			}
			f.allAnswer()
			t.Logf("replaced in turn: of callers who do not retry %v", impatient.take())
			ended := streams.take()
			f.streamsEnded("replaced in turn", ended, "Unavailable/SHUTTING_DOWN", "Unavailable")
			if said := ended["Unavailable/SHUTTING_DOWN"]; said < len(f.replicas) {
				t.Errorf("%d streams ended with what a replica says", said)
			}

			f.replicas[0].kill()
			lasts(t, 2*time.Second) // For as long it is found out, and done without.
			t.Logf("one killed: of callers who do not retry %v", impatient.take())
			// What becomes of the streams of a replica that says nothing any more, the
			// balancer says in its own words.
			f.streamsEnded("one killed", streams.take(), "Unavailable", "Internal")
			f.restart(0)
			f.allAnswer()

			l.stop()
			n := l.take()
			t.Logf("%d tries, %v", tries.Load(), n)
			if n.callsWith < 500 {
				t.Errorf("%d calls: too little to show anything", n.callsWith)
			}
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
		f.client("client-0"): "OK",
		f.client("unknown"):  "PermissionDenied/NOT_ALLOWED",
		nobody:               "Unauthenticated", // Not the balancer; it or a replica says so.
	} {
		_, err := get(soon(f.t), who, "firm-0")
		if got := reason(err); !strings.HasPrefix(got, want) {
			f.t.Errorf("%v, want %v (%v)", got, want, err)
		}
	}
}

// quietStreams are what stays open for as long as nothing happens. Each opens one,
// and returns how to wait for what comes next on it.
var quietStreams = map[string]func(context.Context, *grpc.ClientConn) (next func() error, err error){
	"Watch of health": func(ctx context.Context, conn *grpc.ClientConn) (func() error, error) {
		stream, err := healthpb.NewHealthClient(conn).Watch(ctx, &healthpb.HealthCheckRequest{})
		return func() error { _, err := stream.Recv(); return err }, err
	},
	"WatchToken": func(ctx context.Context, conn *grpc.ClientConn) (func() error, error) {
		stream, err := pb.NewTokenServiceClient(conn).WatchToken(ctx, &pb.WatchTokenRequest{Tenant: "tenants/firm-0"})
		return func() error { _, err := stream.Recv(); return err }, err
	},
}

// allowsManyStreams shows that more streams can be open on one connection than
// balancers allow by default, each with an answer, and calls beside them.
func (f *behind) allowsManyStreams() {
	f.t.Helper()
	conn := f.client("client-0")
	defer func() { _ = conn.Close() }()
	// One for all: none ends and makes room for another. nginx makes a connection for each.
	ctx, cancel := context.WithTimeout(f.t.Context(), time.Minute)
	defer cancel()
	for name, open := range quietStreams {
		for n := range 150 {
			next, err := open(ctx, conn)
			if err == nil {
				err = next()
			}
			if err != nil {
				f.t.Errorf("%s, %d of them open: %v", name, n, err)
				return
			}
		}
	}
	if _, err := get(ctx, conn, "firm-0"); err != nil {
		f.t.Errorf("a call beside streams: %v", err)
	}
}

// allAnswer waits until every replica has handed out a token that it was asked
// for through the balancer.
func (f *behind) allAnswer() {
	f.t.Helper()
	before := make([]int, len(f.replicas))
	for n, p := range f.replicas {
		before[n] = p.answered()
	}
	var fresh []*grpc.ClientConn
	defer func() {
		for _, conn := range fresh {
			_ = conn.Close()
		}
	}()
	until(f.t, "answering on all replicas", func() bool {
		if f.passes { // Who comes anew goes where there are fewest connections, and streams hold some.
			conn := f.client("client-new")
			fresh = append(fresh, conn)
			_, _ = get(soon(f.t), conn, "firm-0")
		}
		for n, p := range f.replicas {
			if p.answered() == before[n] {
				return false
			}
		}
		return true
	})
}

// streamsEnded fails if streams ended in other ways than these.
func (f *behind) streamsEnded(when string, how map[string]int, want ...string) {
	f.t.Helper()
	f.t.Logf("%s: streams ended with %v", when, how)
	for code := range how {
		if !slices.Contains(want, code) {
			f.t.Errorf("%s: streams end with %s, want %v", when, code, want)
		}
	}
}

// ends counts how calls or streams ended.
type ends struct {
	mu  sync.Mutex
	how map[string]int
}

func (e *ends) note(err error) {
	e.mu.Lock()
	defer e.mu.Unlock()
	e.how[reason(err)]++
}

// take returns the counts since it was called last.
func (e *ends) take() map[string]int {
	e.mu.Lock()
	defer e.mu.Unlock()
	taken := maps.Clone(e.how)
	clear(e.how)
	return taken
}

// startImpatient has callers who take the first answer for the last, until the
// test ends.
func (f *behind) startImpatient(conn *grpc.ClientConn) *ends {
	return f.again(5, func(ctx context.Context) error {
		_, err := get(ctx, conn, "firm-0")
		return err
	})
}

// startStreams has streams that are opened again when they end, until the test
// ends.
func (f *behind) startStreams(conns ...*grpc.ClientConn) *ends {
	var turn int
	var mu sync.Mutex
	names := slices.Sorted(maps.Keys(quietStreams))
	return f.again(10*len(conns), func(ctx context.Context) error {
		mu.Lock()
		turn++
		conn, open := conns[turn%len(conns)], quietStreams[names[turn/len(conns)%len(names)]]
		mu.Unlock()
		next, err := open(ctx, conn)
		for err == nil {
			err = next()
		}
		return err
	})
}

// again does something again and again, n at a time, until the test ends, and
// counts how it went.
func (f *behind) again(n int, do func(context.Context) error) *ends {
	ctx, cancel := context.WithCancel(context.Background())
	e := &ends{how: map[string]int{}}
	var doers sync.WaitGroup
	f.t.Cleanup(func() { cancel(); doers.Wait() })
	for range n {
		doers.Go(func() {
			for {
				err := do(ctx)
				if ctx.Err() != nil {
					return
				}
				e.note(err)
				select {
				case <-time.After(callPause / 2):
				case <-ctx.Done():
				}
			}
		})
	}
	return e
}

// attempts counts how often tokens were asked for, each repetition included.
type attempts struct{ atomic.Int64 }

// TagRPC implements stats.Handler.
func (*attempts) TagRPC(ctx context.Context, info *stats.RPCTagInfo) context.Context {
	if strings.HasSuffix(info.FullMethodName, "/GetToken") {
		return context.WithValue(ctx, counted{}, true)
	}
	return ctx
}

type counted struct{}

// HandleRPC implements stats.Handler.
func (a *attempts) HandleRPC(ctx context.Context, s stats.RPCStats) {
	if _, begins := s.(*stats.Begin); begins && ctx.Value(counted{}) != nil {
		a.Add(1)
	}
}

// TagConn implements stats.Handler.
func (*attempts) TagConn(ctx context.Context, _ *stats.ConnTagInfo) context.Context { return ctx }

// HandleConn implements stats.Handler.
func (*attempts) HandleConn(context.Context, stats.ConnStats) {}

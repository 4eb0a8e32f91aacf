package main_test

import (
	"context"
	"slices"
	"sync"
	"testing"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/protobuf/types/known/durationpb"

	pb "smokeball.internal/tokenbroker/gen/tokenbroker/v1"
)

// crowd is many streams of WatchToken.
type crowd struct {
	mu   sync.Mutex
	have map[string][]time.Time // :: token id → when it came to each
}

func (c *crowd) came(id string) []time.Time {
	c.mu.Lock()
	defer c.mu.Unlock()
	return slices.Clone(c.have[id])
}

// watch watches the tenant acme until the test ends, and no stream may end before.
func (c *crowd) watch(t *testing.T, conns []*grpc.ClientConn, streams int) {
	ctx, cancel := context.WithCancel(t.Context())
	var watching sync.WaitGroup
	t.Cleanup(func() { cancel(); watching.Wait() })
	req := &pb.WatchTokenRequest{Tenant: "tenants/acme", HeartbeatInterval: durationpb.New(25 * time.Second)}
	for n := range streams {
		watching.Go(func() {
			s, err := pb.NewTokenServiceClient(conns[n%len(conns)]).WatchToken(ctx, req)
			for err == nil {
				var resp *pb.WatchTokenResponse
				if resp, err = s.Recv(); err == nil && resp.GetToken() != nil {
					c.mu.Lock()
					c.have[resp.GetToken().GetTokenId()] = append(c.have[resp.GetToken().GetTokenId()], time.Now())
					c.mu.Unlock()
				}
			}
			if ctx.Err() == nil {
				t.Errorf("a stream ended: %v", err)
			}
		})
	}
}

// TestTenThousandWatch has one replica, as it is in production, with so many streams
// of WatchToken, and shows what a stream takes of memory and how long a token that
// replaces a rejected one takes to the last of them.
func TestTenThousandWatch(t *testing.T) {
	const streams, connections = 10_000, 10
	g := startGuarded(t, "limits: [{principals: [\""+everything+"\"], open_calls: 20000, calls_per_second: 20000}]\n", "--log-level=info")
	register(t, g.as(everything), g.issuer, "acme", time.Hour)
	first, err := get(t.Context(), g.as(everything), "acme")
	if err != nil {
		t.Fatal(err)
	}
	var conns []*grpc.ClientConn
	for range connections {
		conns = append(conns, g.as(everything))
	}
	quiet, begun := g.process.memory(), time.Now()
	c := &crowd{have: map[string][]time.Time{}}
	c.watch(t, conns, streams)
	until(t, "all watch", func() bool { return len(c.came(first.GetTokenId())) == streams })
	t.Logf("%d streams on %d connections have a token after %v", streams, connections, time.Since(begun).Round(time.Millisecond))
	each := (g.process.memory() - quiet) * 1024 / streams
	t.Logf("memory: %.1f MiB without streams, %.1f MiB with them: %.1f KiB for each", quiet, g.process.memory(), each)
	if each > 40 {
		t.Errorf("a stream takes %.1f KiB; the goal is 32", each)
	}

	forced := time.Now()
	// On a connection of its own: these have as many streams as they may.
	resp, err := pb.NewTokenServiceClient(g.as(everything)).RefreshToken(t.Context(), &pb.RefreshTokenRequest{Tenant: "tenants/acme", RejectedTokenId: first.GetTokenId()})
	if err != nil {
		t.Fatal(err)
	}
	answered := time.Since(forced)
	until(t, "all have the new token", func() bool { return len(c.came(resp.GetToken().GetTokenId())) == streams })
	came := c.came(resp.GetToken().GetTokenId())
	slices.SortFunc(came, time.Time.Compare)
	t.Logf("a forced refresh is answered after %v; half of the streams have the token after %v, the last after %v", answered.Round(time.Millisecond),
		came[streams/2].Sub(forced).Round(time.Millisecond), came[streams-1].Sub(forced).Round(time.Millisecond))
}

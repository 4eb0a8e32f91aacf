package bench_test

import (
	"context"
	"fmt"
	"net/http"
	"os"
	"regexp"
	"strconv"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sync/errgroup"
	"google.golang.org/grpc"
	"google.golang.org/grpc/connectivity"

	pb "smokeball.internal/tokenbroker/gen/tokenbroker/v1"
)

// startPoint is how long starts took with so many tenants registered, from the start of
// the process until it is ready.
type startPoint struct {
	N  int       `json:"tenants"`
	MS []float64 `json:"ready_ms"`
}

// memoryCurve is what a replica takes with more and more of something.
type memoryCurve struct {
	Of     string        `json:"of"`
	Points []memoryPoint `json:"points"`
}

// memoryPoint is in bytes: what the process has of the machine's memory, and what is in
// use of its heap when the garbage has just been collected.
type memoryPoint struct {
	N    int     `json:"n"`
	RSS  float64 `json:"rss"`
	Heap float64 `json:"heap"`
}

// slopes returns what one more takes, by least squares over all points.
func (c memoryCurve) slopes() (rss, heap float64) {
	var n, x, r, h, xx, xr, xh float64
	for _, p := range c.Points {
		at := float64(p.N)
		n, x, r, h, xx, xr, xh = n+1, x+at, r+p.RSS, h+p.Heap, xx+at*at, xr+at*p.RSS, xh+at*p.Heap
	}
	return (n*xr - x*r) / (n*xx - x*x), (n*xh - x*h) / (n*xx - x*x)
}

// whileFilling registers more and more tenants, and measures how long a start takes and
// what a replica takes that holds none of them; and then what it takes for tokens,
// connections and streams.
func (s *scene) whileFilling(t *testing.T, z sizes) (starts []startPoint, curves []memoryCurve) {
	t.Helper()
	replica := s.replica(t, "memory")
	registered := memoryCurve{Of: "tenant that is registered"}
	numbers := append([]int{0}, z.tenants[1:]...)
	if most := z.tenants[len(z.tenants)-1]; most > 1000 {
		numbers = []int{0, most / 1000, most / 10, most / 2, most}
	}
	before := 0
	for _, n := range numbers {
		s.fill(t, before, n, true)
		before = n
		p := startPoint{N: n}
		for i := range z.starts {
			p.MS = append(p.MS, s.startAndEnd(t, fmt.Sprintf("start-%d-%d", n, i)).Seconds()*1000)
		}
		starts = append(starts, p)
		registered.Points = append(registered.Points, s.memory(t, replica, n))
	}
	tokens := memoryCurve{Of: "tenant with its token"}
	before = 0
	for _, n := range numbers {
		replica.ask(t, before, n)
		before = n
		tokens.Points = append(tokens.Points, s.memory(t, replica, n))
	}
	return starts, []memoryCurve{registered, tokens, s.overIdle(t, z, replica), s.overStreams(t, z, replica)}
}

// startAndEnd starts a replica, and returns how long it took to be ready.
func (s *scene) startAndEnd(t *testing.T, name string) time.Duration {
	t.Helper()
	begun := time.Now()
	c := s.replica(t, name)
	for !ready(t, c) {
		if time.Since(begun) > time.Minute {
			t.Fatal("a replica does not become ready")
		}
		time.Sleep(time.Millisecond)
	}
	took := time.Since(begun)
	_ = c.process.Signal(syscall.SIGTERM)
	return took
}

func ready(t *testing.T, c contender) bool {
	t.Helper()
	req, err := http.NewRequestWithContext(t.Context(), http.MethodGet, "http://"+c.metrics+"/readyz", nil)
	if err != nil {
		t.Fatal(err)
	}
	resp, err := http.DefaultClient.Do(req)
	if err != nil {
		return false
	}
	_ = resp.Body.Close()
	return resp.StatusCode == http.StatusOK
}

// overIdle measures what connections take that nothing is asked on.
func (s *scene) overIdle(t *testing.T, z sizes, replica contender) memoryCurve {
	t.Helper()
	curve := memoryCurve{Of: "idle connection (mTLS)"}
	conns := make([]*grpc.ClientConn, 0, z.idle[len(z.idle)-1])
	for _, n := range z.idle {
		more := replica.dial(t, n-len(conns))
		if err := connected(t.Context(), more); err != nil {
			t.Fatal(err)
		}
		conns = append(conns, more...)
		curve.Points = append(curve.Points, s.memory(t, replica, n))
	}
	for _, conn := range conns {
		_ = conn.Close()
	}
	return curve
}

// overStreams measures what streams of WatchToken take, each of another tenant.
func (s *scene) overStreams(t *testing.T, z sizes, replica contender) memoryCurve {
	t.Helper()
	curve := memoryCurve{Of: "stream of WatchToken"}
	const perConnection = 500
	most := z.streams[len(z.streams)-1]
	conns := replica.dial(t, max(1, most/perConnection))
	if err := connected(t.Context(), conns); err != nil {
		t.Fatal(err)
	}
	open := 0
	for _, n := range z.streams {
		for ; open < n; open++ {
			stream, err := pb.NewTokenServiceClient(conns[open%len(conns)]).WatchToken(t.Context(), &pb.WatchTokenRequest{Tenant: "tenants/" + id(open)})
			if err != nil {
				t.Fatal(err)
			}
			if _, err := stream.Recv(); err != nil {
				t.Fatal(err)
			}
		}
		curve.Points = append(curve.Points, s.memory(t, replica, n))
	}
	return curve
}

// dial returns connections, which the end of the test closes.
func (c contender) dial(t *testing.T, count int) []*grpc.ClientConn {
	t.Helper()
	conns := make([]*grpc.ClientConn, count)
	for i := range conns {
		conn, err := c.user.dial(c.api)
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { _ = conn.Close() })
		conns[i] = conn
	}
	return conns
}

// connected waits until all connections are made.
func connected(ctx context.Context, conns []*grpc.ClientConn) error {
	for _, conn := range conns {
		conn.Connect()
	}
	for _, conn := range conns {
		for state := conn.GetState(); state != connectivity.Ready; state = conn.GetState() {
			if !conn.WaitForStateChange(ctx, state) {
				return ctx.Err()
			}
		}
	}
	return nil
}

// memory measures when the replica has collected its garbage: it is asked for
// something until it does.
func (s *scene) memory(t *testing.T, c contender, n int) memoryPoint {
	t.Helper()
	const collections = "go_gc_duration_seconds_count"
	conn := c.dial(t, 1)[0]
	before := metric(t, c.metrics, collections)
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	var asking errgroup.Group
	for range 8 {
		asking.Go(func() error {
			for ctx.Err() == nil { // Where there is no tenant yet, the answer is that there is none.
				_, _ = pb.NewTokenServiceClient(conn).GetToken(ctx, &pb.GetTokenRequest{Tenant: "tenants/" + id(0)})
			}
			return nil
		})
	}
	for ctx.Err() == nil && metric(t, c.metrics, collections) < before+2 {
		time.Sleep(5 * time.Millisecond)
	}
	cancel()
	_ = asking.Wait()
	_ = conn.Close()
	p := memoryPoint{N: n, RSS: rssOf(t, c.process.Pid), Heap: metric(t, c.metrics, "go_memstats_heap_alloc_bytes")}
	for range 10 { // What is not swept yet is garbage.
		time.Sleep(20 * time.Millisecond)
		p.Heap = min(p.Heap, metric(t, c.metrics, "go_memstats_heap_alloc_bytes"))
	}
	return p
}

var residentSet = regexp.MustCompile(`VmRSS:\s+(\d+) kB`)

// rssOf returns how many bytes a process has in memory.
func rssOf(t *testing.T, pid int) float64 {
	t.Helper()
	text, err := os.ReadFile(fmt.Sprintf("/proc/%d/status", pid))
	if err != nil {
		t.Fatal(err)
	}
	match := residentSet.FindSubmatch(text)
	if match == nil {
		t.Fatal("the system does not say how much memory a process has")
	}
	kib, _ := strconv.ParseFloat(string(match[1]), 64)
	return kib * 1024
}

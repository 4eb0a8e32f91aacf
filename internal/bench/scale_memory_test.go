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

// memoryPoint is in bytes.
type memoryPoint struct {
	N int `json:"n"`
	// Held is in use of the heap, when the garbage has just been collected, and of stacks.
	Held float64 `json:"held"`
	// Resident is what the process has of the machine's memory.
	Resident float64 `json:"resident"`
}

func heldOf(p memoryPoint) float64     { return p.Held }
func residentOf(p memoryPoint) float64 { return p.Resident }

// slope returns what one more takes, by least squares over all points.
func (c memoryCurve) slope(of func(memoryPoint) float64) float64 {
	var n, x, y, xx, xy float64
	for _, p := range c.Points {
		at := float64(p.N)
		n, x, y, xx, xy = n+1, x+at, y+of(p), xx+at*at, xy+at*of(p)
	}
	return (n*xy - x*y) / (n*xx - x*x)
}

// whileFilling registers more and more tenants, and measures how long a start takes and
// what a replica takes that holds none of them; and then what it takes for tokens,
// connections and streams.
func (s *scene) whileFilling(t *testing.T, z sizes) (starts []startPoint, curves []memoryCurve) {
	t.Helper()
	replica := s.replica(t, "memory")
	registered := memoryCurve{Of: "tenant that is registered"}
	numbers := append([]int{0}, z.tenants[1:]...)
	if most := last(z.tenants); most > 1000 {
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
		registered.Points = append(registered.Points, memory(t, replica, n))
	}
	tokens := memoryCurve{Of: "tenant with its token"}
	before = 0
	for _, n := range numbers {
		replica.ask(t, before, n)
		before = n
		tokens.Points = append(tokens.Points, memory(t, replica, n))
	}
	return starts, []memoryCurve{registered, tokens, s.overIdle(t, z), s.overStreams(t, z)}
}

// startAndEnd starts a replica, and returns how long it took to be ready.
func (s *scene) startAndEnd(t *testing.T, name string) time.Duration {
	t.Helper()
	begun := time.Now()
	c := s.replica(t, name)
	for {
		if status, _ := get(t, c.metrics, "/readyz"); status == http.StatusOK {
			break
		}
		if time.Since(begun) > time.Minute {
			t.Fatal("a replica does not become ready")
		}
		time.Sleep(time.Millisecond)
	}
	took := time.Since(begun)
	_ = c.process.Signal(syscall.SIGTERM)
	return took
}

// overIdle measures what connections take that nothing is asked on.
func (s *scene) overIdle(t *testing.T, z sizes) memoryCurve {
	t.Helper()
	replica := s.replica(t, "idle")
	curve := memoryCurve{Of: "idle connection (mTLS)"}
	open := 0
	for _, n := range z.idle {
		if err := connected(t.Context(), replica.dial(t, n-open)); err != nil {
			t.Fatal(err)
		}
		open = n
		curve.Points = append(curve.Points, memory(t, replica, n))
	}
	return curve
}

// overStreams measures what streams of WatchToken take, each of another tenant.
func (s *scene) overStreams(t *testing.T, z sizes) memoryCurve {
	t.Helper()
	const perConnection = 500
	replica, most := s.replica(t, "streams"), last(z.streams)
	curve := memoryCurve{Of: "stream of WatchToken"}
	replica.ask(t, 0, most) // The tokens are not the streams'.
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
		curve.Points = append(curve.Points, memory(t, replica, n))
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

// memory measures when the replica has collected its garbage.
func memory(t *testing.T, c contender, n int) memoryPoint {
	t.Helper()
	for range 2 { // What pools hold goes with the second.
		if code, _ := get(t, c.metrics, "/debug/pprof/heap?gc=1"); code != http.StatusOK {
			t.Fatalf("the replica does not collect its garbage: %d", code)
		}
	}
	return memoryPoint{
		N: n, Held: metric(t, c.metrics, "go_memstats_heap_alloc_bytes") + metric(t, c.metrics, "go_memstats_stack_inuse_bytes"), Resident: residentSetOf(t, c.process.Pid),
	}
}

var residentSet = regexp.MustCompile(`VmRSS:\s+(\d+) kB`)

// residentSetOf returns how many bytes a process has in memory.
func residentSetOf(t *testing.T, pid int) float64 {
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

package bench_test

import (
	"fmt"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"sync"
	"testing"
	"time"

	"golang.org/x/sync/errgroup"

	pb "smokeball.internal/tokenbroker/gen/tokenbroker/v1"
	"smokeball.internal/tokenbroker/internal/redisstore"
	"smokeball.internal/tokenbroker/internal/redisstore/redistest"
	"smokeball.internal/tokenbroker/internal/seal"
	"smokeball.internal/tokenbroker/internal/secret"
	"smokeball.internal/tokenbroker/internal/simulator"
	"smokeball.internal/tokenbroker/internal/tenant"
	"smokeball.internal/tokenbroker/internal/token"
)

// sizes are how much of everything is measured.
type sizes struct {
	rounds      int
	period      time.Duration
	tenants     []int // in the memory of a replica, and registered; the last is the most
	connections []int
	steadyRate  float64 // calls per second
	idle        []int   // connections that do nothing
	streams     []int
	starts      int // at each number of tenants
	storm       int // tenants that are asked for at once
	stormRate   int // exchanges per second
}

func sizesOf() sizes {
	if *measure {
		return sizes{
			rounds: *rounds, period: *period, tenants: []int{1, 100, 10_000, 100_000}, connections: []int{1, 10, 100, 1000}, steadyRate: 3000,
			idle: []int{0, 250, 500, 1000}, streams: []int{0, 1000, 2000, 5000}, starts: 7, storm: 10_000, stormRate: 140,
		}
	}
	return sizes{
		rounds: 1, period: 100 * time.Millisecond, tenants: []int{1, 50}, connections: []int{10}, steadyRate: 200,
		idle: []int{0, 10}, streams: []int{0, 10}, starts: 1, storm: 120, stormRate: 50,
	}
}

// TestScale measures what becomes of one replica when there is more of everything: each
// is a curve, of which none may rise where nothing is said to cost.
func TestScale(t *testing.T) {
	z, report, made := sizesOf(), readScale(t), newScene(t)
	// What docs/operations.md plans with for the most tenants, and for as many calls at once.
	made.variables = []string{"GOMEMLIMIT=1GiB"}
	t.Run("tenants", func(t *testing.T) {
		report.Tenants, report.Bare = made.emptied(t).overTenants(t, z)
	})
	t.Run("connections", func(t *testing.T) {
		report.Connections, report.Steady = made.emptied(t).overConnections(t, z)
	})
	t.Run("memory", func(t *testing.T) {
		report.Start, report.Memory = made.emptied(t).whileFilling(t, z)
	})
	t.Run("storm", func(t *testing.T) {
		report.Storm = made.emptied(t).coldStorm(t, z)
	})
	if !t.Failed() {
		report.write(t, z)
	}
}

// emptied returns the scene with a Redis and an issuer of its own, which know nothing.
func (s *scene) emptied(t *testing.T) *scene {
	t.Helper()
	empty := *s
	empty.redis, empty.issuer = redistest.Start(t, "--appendonly", "yes"), simulator.New()
	server := httptest.NewServer(empty.issuer)
	t.Cleanup(func() { empty.issuer.Close(); server.Close() })
	empty.issuerURL = server.URL
	return &empty
}

// loadPoint is what was measured at one point of a curve, a value for each round.
type loadPoint struct {
	N    int       `json:"n"`
	Rate []float64 `json:"calls_per_second"`
	P50  []float64 `json:"p50_ms"`
	P99  []float64 `json:"p99_ms"`
	CPU  []float64 `json:"cpu_us_per_call"`
	// ScrapeMS is how long /metrics took.
	ScrapeMS []float64 `json:"scrape_ms,omitempty"`
}

// measure adds a round. The replica is not scraped meanwhile: that walks over all the
// tokens that it holds, and is measured by itself.
func (p *loadPoint) measure(t *testing.T, replica contender, how plan) {
	t.Helper()
	var before, after time.Duration
	out := load(t, how.order(replica), func() { before = cpuOf(t, replica.process.Pid) }, func() { after = cpuOf(t, replica.process.Pid) })
	if out.Failed > 0 || out.Calls == 0 {
		t.Fatalf("%d calls, %d failed: %s", out.Calls, out.Failed, out.Failure)
	}
	ms := func(d time.Duration) float64 { return d.Seconds() * 1000 }
	p.Rate = append(p.Rate, float64(out.Calls)/out.Took.Seconds())
	p.P50, p.P99 = append(p.P50, ms(quantile(out.Counts, .5))), append(p.P99, ms(quantile(out.Counts, .99)))
	p.CPU = append(p.CPU, ms(after-before)*1000/float64(out.Calls))
}

// overTenants measures replicas that hold the tokens of so many tenants each, and
// whose callers go through all of them; and beside them bare servers that hold as many
// answers in a map, for what that costs anybody.
func (s *scene) overTenants(t *testing.T, z sizes) (points, bare []loadPoint) {
	t.Helper()
	s.fill(t, 0, last(z.tenants), true)
	points, bare = make([]loadPoint, len(z.tenants)), make([]loadPoint, len(z.tenants))
	replicas, maps := make([]contender, len(z.tenants)), make([]contender, len(z.tenants))
	for i, n := range z.tenants {
		points[i].N, bare[i].N = n, n
		replicas[i] = s.replica(t, fmt.Sprintf("calls-%d", n))
		replicas[i].ask(t, 0, n)
		maps[i] = startOwn(t, "map", "bare", s.user, serverOrder{Files: s.server, Response: replicas[i].answer(t, id(0)), Answers: n}, roomBeside(n))
	}
	for round := range z.rounds {
		for i := range points {
			i = (i + round) % len(points)
			begun := time.Now()
			if code, _ := get(t, replicas[i].metrics, "/metrics"); code != http.StatusOK {
				t.Fatalf("/metrics answers %d", code)
			}
			points[i].ScrapeMS = append(points[i].ScrapeMS, time.Since(begun).Seconds()*1000)
			how := plan{period: z.period, connections: 8, callers: 64, tenants: points[i].N}
			points[i].measure(t, replicas[i], how)
			bare[i].measure(t, maps[i], how)
		}
	}
	return points, bare
}

// roomBeside has a bare server that holds so many answers let as much garbage lie as
// the replica does.
func roomBeside(answers int) string {
	const room, empty, answer = 512 << 20, 4 << 20, 2 << 10 // Bytes; an answer's are 2 KiB with what is around it.
	return fmt.Sprintf("GOGC=%d", 100*room/(empty+answers*answer))
}

// overConnections measures one replica and one tenant over so many connections: with
// callers who ask without pause, one for each connection or 64, and with a thousand
// callers who ask for the same all the time.
func (s *scene) overConnections(t *testing.T, z sizes) (unpaced, steady []loadPoint) {
	t.Helper()
	s.fill(t, 0, 1, true)
	replica := s.replica(t, "connections")
	replica.ask(t, 0, 1)
	unpaced, steady = make([]loadPoint, len(z.connections)), make([]loadPoint, len(z.connections))
	most := last(z.connections)
	for round := range z.rounds {
		for i := range z.connections {
			i = (i + round) % len(z.connections)
			n := z.connections[i]
			unpaced[i].N, steady[i].N = n, n
			p := plan{period: z.period, connections: n, callers: max(64, n), tenants: 1}
			unpaced[i].measure(t, replica, p)
			p.callers, p.rate = most, z.steadyRate
			steady[i].measure(t, replica, p)
		}
	}
	return unpaced, steady
}

// replica starts a replica that logs and audits under a name of its own.
func (s *scene) replica(t *testing.T, name string, args ...string) contender {
	t.Helper()
	return s.startBroker(t, append([]string{"--audit=file:" + s.path("audit-"+name+".log")}, args...)...)
}

// id returns the name of a tenant, as the callers of a load name it.
func id(n int) string { return fmt.Sprintf("t%06d", n) }

// ask asks for the tokens of these tenants, in one order, on a few connections.
func (c contender) ask(t *testing.T, from, to int) {
	t.Helper()
	var asking errgroup.Group
	const callers, connections = 64, 4
	for k := range connections {
		conn, err := c.user.dial(c.api)
		if err != nil {
			t.Fatal(err)
		}
		defer func() { _ = conn.Close() }()
		for n := range callers / connections {
			asking.Go(func() error {
				for i := from + k + n*connections; i < to; i += callers {
					if _, err := pb.NewTokenServiceClient(conn).GetToken(t.Context(), &pb.GetTokenRequest{Tenant: "tenants/" + id(i)}); err != nil {
						return fmt.Errorf("%s: %w", id(i), err)
					}
				}
				return nil
			})
		}
	}
	if err := asking.Wait(); err != nil {
		t.Fatal(err)
	}
}

// fill registers tenants, and with tokens keeps one of a day for each, as another
// replica would have: a hundred thousand are not to be bought for a measurement of
// what it takes to hand them out.
func (s *scene) fill(t *testing.T, from, to int, tokens bool) {
	t.Helper()
	keyset, err := seal.Load(t.Context(), s.path("keyset.json"))
	if err != nil {
		t.Fatal(err)
	}
	store, err := redisstore.Open(redisstore.Config{URL: s.redis.URL(), Prefix: "tokenbroker:", Keyset: keyset, Logger: slog.New(slog.DiscardHandler)})
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = store.Close() }()
	const writers = 32
	var failed sync.Map
	var filling sync.WaitGroup
	for w := range writers {
		filling.Go(func() {
			for n := from + w; n < to; n += writers {
				if err := s.put(t, store, n, tokens); err != nil {
					failed.Store(id(n), err)
					return
				}
			}
		})
	}
	filling.Wait()
	failed.Range(func(name, err any) bool { t.Fatalf("%s: %v", name, err); return false })
}

func (s *scene) put(t *testing.T, store *redisstore.Store, n int, withToken bool) error {
	client := s.client(n)
	created, err := store.CreateTenant(t.Context(), tenant.Tenant{
		ID: id(n), DisplayName: "The firm " + id(n), Region: tenant.US, Environment: tenant.Production, ClientID: client.ID,
		Secret: tenant.Secret{Value: secret.New(client.Secrets[0])}, APIKey: secret.New("api-key-of-firm-" + id(n)),
	})
	if err != nil || !withToken {
		return err
	}
	key := token.Credential{Endpoint: s.issuerURL + "/us/production/oauth2/token", ClientID: client.ID, SecretID: created.Secret.ID}.Key()
	now, text := time.Now(), secret.New(randomText(tokenSize))
	_, err = store.Save(t.Context(), key, &token.Token{
		ID: token.ID(text), AccessToken: text, Scopes: client.Scopes, Issued: now, Expires: now.Add(24 * time.Hour), RefreshAt: now.Add(23 * time.Hour),
	})
	return err
}

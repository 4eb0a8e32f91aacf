package main_test

import (
	"fmt"
	"io"
	"net/http"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"smokeball.internal/tokenbroker/client"
	"smokeball.internal/tokenbroker/internal/simulator"
)

// newClient returns a client of all replicas.
func (s *scene) newClient() *client.Client {
	s.t.Helper()
	c, err := client.New(s.t.Context(), "fleet:///replicas", client.WithInsecure(), client.WithDialOptions(grpc.WithResolvers(s.names())))
	if err != nil {
		s.t.Fatal(err)
	}
	s.t.Cleanup(func() { _ = c.Close() })
	return c
}

// customer asks a source for its token again and again, and notes when there was
// none.
type customer struct {
	source *client.TokenSource

	mu      sync.Mutex
	asked   int
	end     time.Time // of the last token
	early   int       // how often there was none before that
	errors  []error
	from    time.Time     // when there was none first
	to      time.Time     // and last
	slowest time.Duration // answer
}

func (c *customer) ask() {
	begun := time.Now()
	tok, err := c.source.Token()
	took := time.Since(begun)
	c.mu.Lock()
	defer c.mu.Unlock()
	c.asked++
	c.slowest = max(c.slowest, took)
	if err == nil {
		c.end = tok.Expiry
		return
	}
	if c.errors = append(c.errors, err); c.from.IsZero() {
		c.from = begun
	}
	if begun.Before(c.end) {
		c.early++
	}
	c.to = time.Now()
}

// keepAsking has all ask until stop is called.
func keepAsking(customers map[string]*customer) (stop func()) {
	var asking sync.WaitGroup
	stopped := make(chan struct{})
	for _, c := range customers {
		asking.Go(func() {
			for {
				select {
				case <-stopped:
					return
				case <-time.After(10 * time.Millisecond):
					c.ask()
				}
			}
		})
	}
	return func() { close(stopped); asking.Wait() }
}

// Callers go by what they have while the whole broker is away. What has ended is an
// error that says so at once, until the broker is back.
func TestCallersNoticeNothingOfABrokerThatIsAwayWhileTheirTokensLive(t *testing.T) {
	t.Parallel()
	s := &scene{t: t}
	plainRedis()(s)
	s.build(time.Hour, time.Hour)
	const short, long, down = 15 * time.Second, 40 * time.Second, 31 * time.Second // 77 % of the long life
	c := s.newClient()
	customers := map[string]*customer{}
	for id, life := range map[string]time.Duration{"short": short, "long": long} {
		register(t, s.conns[0], s.issuer.issuer, id, life)
		customers[id] = &customer{source: c.TokenSource("tenants/" + id)}
		customers[id].ask()
	}
	ends := customers["short"].end
	stop := keepAsking(customers)
	for _, p := range s.replicas {
		p.kill()
	}
	killed := time.Now()
	lasts(t, down)
	for n := range s.replicas {
		s.restart(n)
	}
	back := time.Now()
	until(t, "short has a token again", func() bool { _, err := customers["short"].source.Token(); return err == nil })
	lasts(t, 2*time.Second)
	stop()

	without := customers["short"]
	t.Logf("away for %v; with a token of %v: %d calls, %d failed, the slowest took %v", back.Sub(killed).Round(time.Millisecond), long,
		customers["long"].asked, len(customers["long"].errors), customers["long"].slowest.Round(time.Microsecond))
	t.Logf("with one of %v: %d calls, %d failed, from %v after its safe end to %v after the broker was back; the slowest took %v", short,
		without.asked, len(without.errors), without.from.Sub(ends).Round(time.Millisecond), without.to.Sub(back).Round(time.Millisecond), without.slowest.Round(time.Microsecond))
	for id, c := range customers {
		if c.early > 0 {
			t.Errorf("%s: %d errors while there was a token: %v", id, c.early, c.errors[0])
		}
	}
	if len(without.errors) == 0 {
		t.Fatal("no error though the token has ended")
	}
	err := without.errors[len(without.errors)-1]
	t.Log(err)
	if status.Code(err) != codes.Unavailable || !strings.Contains(err.Error(), "tenants/short") {
		t.Errorf("not a clear error: %v", err)
	}
	if without.slowest > 2*time.Second {
		t.Errorf("a caller waited for %v", without.slowest)
	}
	// The pauses between attempts to connect are six seconds at most.
	if took := without.to.Sub(back); took > 10*time.Second {
		t.Errorf("recovered %v after the broker was back", took)
	}
}

// TestNoTokenIsMissedWhenAllReplicasAreReplacedInTurn is a release, seen by services
// that have the client.
func TestNoTokenIsMissedWhenAllReplicasAreReplacedInTurn(t *testing.T) {
	t.Parallel()
	s := &scene{t: t}
	plainRedis()(s)
	s.build(15*time.Second, 30*time.Second)
	c := s.newClient()
	customers := map[string]*customer{}
	for id := range s.lives {
		customers[id] = &customer{source: c.TokenSource("tenants/" + id)}
		customers[id].ask()
	}
	stop := keepAsking(customers)
	bought := s.issuer.Bought(simulator.AllClients)
	begun := time.Now()
	for n, p := range s.replicas {
		if code := p.terminate(); code != 0 {
			t.Errorf("replica %d exits with %d", n, code)
		}
		s.restart(n)
		lasts(t, 5*time.Second)
	}
	took := time.Since(begun)
	stop()
	calls := 0
	for id, c := range customers {
		calls += c.asked
		for _, err := range c.errors {
			t.Errorf("%s: %v", id, err)
		}
	}
	bought = s.issuer.Bought(simulator.AllClients) - bought
	t.Logf("%d calls of %d sources in %v, none failed; %d tokens bought meanwhile", calls, len(customers), took.Round(time.Millisecond), bought)
	if bought == 0 {
		t.Error("too little to show anything")
	}
}

// A Smokeball that rejects every token, for a reason that no token cures, costs one
// exchange in each interval, however many requests it rejects.
func TestAnAPIThatRejectsEveryTokenCostsOneExchangePerInterval(t *testing.T) {
	t.Parallel()
	s := &scene{t: t}
	plainRedis()(s)
	s.build(time.Hour, time.Hour)
	const life, interval, requests = 20 * time.Second, 5 * time.Second, 1000 // A quarter of their life, as the tokens live short.
	issuer := s.issuer.issuer
	register(t, s.conns[0], issuer, "acme", life)
	if err := issuer.SetAPIFault("client-acme", simulator.Fault{Kind: simulator.KindStatus, Status: http.StatusUnauthorized}); err != nil {
		t.Fatal(err)
	}
	source := s.newClient().TokenSource("tenants/acme")
	smokeball := &http.Client{Transport: &client.Transport{Source: source, Base: &http.Transport{MaxIdleConnsPerHost: requests}}}
	var rejected, failed atomic.Int64
	var asking sync.WaitGroup
	begun := time.Now()
	const lasting = 3 * interval
	for range requests {
		asking.Go(func() {
			for time.Since(begun) < lasting {
				resp, err := smokeball.Get("/matters")
				if err != nil {
					failed.Add(1)
					t.Error(err)
					return
				}
				_, _ = io.Copy(io.Discard, resp.Body)
				_ = resp.Body.Close()
				if resp.StatusCode == http.StatusUnauthorized {
					rejected.Add(1)
				}
				time.Sleep(100 * time.Millisecond)
			}
		})
	}
	asking.Wait()
	took := time.Since(begun)
	// The first, and one more for each interval that has begun.
	bought, most := issuer.Bought("client-acme"), 2+int(took/interval)
	t.Logf("%d answers of 401 to %d requests at a time in %v: %d exchanges, %d at most", rejected.Load(), requests, took.Round(time.Millisecond), bought, most)
	if bought < 2 || bought > most || rejected.Load() < requests {
		t.Errorf("%d exchanges in %v, %d answers: %s", bought, took, rejected.Load(), fmt.Sprint(failed.Load(), " failed"))
	}
}

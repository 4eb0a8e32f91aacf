package main_test

import (
	"context"
	"fmt"
	"maps"
	"os"
	"regexp"
	"slices"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"google.golang.org/grpc"

	pb "smokeball.internal/tokenbroker/gen/tokenbroker/v1"
	"smokeball.internal/tokenbroker/internal/simulator"
)

// TestNoCallFailsWhenAReplicaIsKilled has callers as services are: balanced over
// the replicas, and what one does not answer is asked of another.
func TestNoCallFailsWhenAReplicaIsKilled(t *testing.T) {
	t.Parallel()
	playBalanced(t, func(s *scene) {
		s.replicas[0].kill()
		lasts(t, 20*time.Second) // For refreshes that the others have to make.
		s.restart(0)
	})
}

// TestNoCallFailsWhenAllReplicasAreReplacedInTurn is what a release does.
func TestNoCallFailsWhenAllReplicasAreReplacedInTurn(t *testing.T) {
	t.Parallel()
	playBalanced(t, func(s *scene) {
		for n, p := range s.replicas {
			if code := p.terminate(); code != 0 {
				t.Errorf("replica %d exits with %d", n, code)
			}
			s.restart(n)
			lasts(t, 5*time.Second) // Callers find it again, and there is load on all when the next one goes.
		}
	})
}

// playBalanced does something to the replicas under load.
func playBalanced(t *testing.T, breaks func(*scene)) {
	t.Helper()
	s := &scene{t: t}
	plainRedis()(s)
	s.build(15*time.Second, 45*time.Second)
	conn := s.balanced()
	l := startLoad(t, s.lives, conn, conn, conn)
	bought := s.issuer.Bought(simulator.AllClients)
	breaks(s)
	took := s.servedEverywhere(20 * time.Second)
	lasts(t, 5*time.Second) // What comes late shows under load.
	l.stop()
	s.noPanic()
	n := l.take()
	t.Logf("%v", n)
	bought = s.issuer.Bought(simulator.AllClients) - bought
	t.Logf("%d tokens bought; all %d tenants served on all %d replicas %v after the end", bought, len(s.lives), len(s.replicas), took.Round(time.Millisecond))
	if n.callsWith < 1000 || bought == 0 {
		t.Errorf("%d calls, %d purchases: too little to show anything", n.callsWith, bought)
	}
	if n.failedWithout > 0 {
		t.Errorf("the issuer sells, and %d calls fail", n.failedWithout)
	}
	// Every token that was bought was handed out, beside those there were: nothing
	// was bought twice. What a replica was buying when it ended is lost with it.
	if used := n.news - len(s.lives); bought > used+len(s.replicas) {
		t.Errorf("%d tokens bought, %d of them used", bought, used)
	}
}

// TestAReplicaThatWasFrozenWithTheLeaseTakesTheNewerToken freezes a replica in
// the middle of exchanges for longer than its leases. The others buy meanwhile.
// When it goes on, with an answer that is older than what they have, theirs
// stays, in Redis and everywhere.
func TestAReplicaThatWasFrozenWithTheLeaseTakesTheNewerToken(t *testing.T) {
	t.Parallel()
	s := &scene{t: t}
	plainRedis()(s)
	s.build(100*time.Second, 119*time.Second)
	l := startLoad(t, s.lives, s.conns[1:]...)
	former := s.tokensOf(0)

	if err := s.issuer.SetFault(simulator.AllClients, simulator.Fault{Kind: simulator.KindDelay, Delay: time.Second}); err != nil {
		t.Fatal(err)
	}
	asked := s.issuer.Requests(simulator.AllClients)
	ctx, cancel := context.WithCancel(t.Context())
	var waiting sync.WaitGroup
	for id := range s.lives {
		waiting.Go(func() { _, _ = s.replace(ctx, 0, id, former[id]) })
	}
	until(t, "in the middle of all exchanges", func() bool { return s.issuer.Requests(simulator.AllClients) == asked+len(s.lives) })
	s.replicas[0].pause()
	s.issuer.ClearFaults()
	leases := s.redis.Client().Keys(t.Context(), "tokenbroker:lease:*").Val()
	if len(leases) != len(s.lives) {
		t.Fatalf("%d leases for %d exchanges", len(leases), len(s.lives))
	}
	cancel()
	waiting.Wait()

	frozen := time.Now()
	newer := map[string]string{}
	var mu sync.Mutex
	for id := range s.lives {
		waiting.Go(func() {
			tok, err := s.replace(t.Context(), 1, id, former[id])
			if err != nil {
				t.Errorf("%s while the holder of the lease is frozen: %v", id, err)
			}
			mu.Lock()
			defer mu.Unlock()
			newer[id] = tok.GetTokenId()
		})
	}
	waiting.Wait()
	took := time.Since(frozen)
	for id := range s.lives {
		if newer[id] == former[id] || newer[id] == "" {
			t.Fatalf("%s was not replaced", id)
		}
	}
	if err := s.replicas[0].cmd.Process.Signal(syscall.SIGCONT); err != nil {
		t.Fatal(err)
	}
	for n := range s.conns {
		until(t, "served from the newer tokens everywhere", func() bool { return maps.Equal(s.tokensOf(n), newer) })
	}
	lasts(t, 3*time.Second) // What the replica had on its way arrives.
	for n := range s.conns {
		if got := s.tokensOf(n); !maps.Equal(got, newer) {
			t.Errorf("replica %d hands out %v, want %v", n, got, newer)
		}
	}
	if got, want := s.tokensInRedis(), slices.Sorted(maps.Values(newer)); !slices.Equal(got, want) {
		t.Errorf("Redis has the tokens %v, want %v", got, want)
	}
	l.stop()
	late := 0 // Answers of the frozen exchanges that made it.
	for _, id := range s.replicas[0].bought() {
		if !slices.Contains(slices.Collect(maps.Values(former)), id) {
			late++
		}
	}
	t.Logf("%d leases were left; the others had newer tokens %v after the freeze; of the frozen exchanges %d brought a token afterwards", len(leases), took.Round(time.Millisecond), late)
	t.Logf("callers of the others: %v", l.take())
	if took < 10*time.Second {
		t.Errorf("the others bought after %v: the leases were not held", took)
	}
}

// replace has a replica replace a token.
func (s *scene) replace(ctx context.Context, replica int, id, rejected string) (*pb.Token, error) {
	resp, err := pb.NewTokenServiceClient(s.conns[replica]).RefreshToken(ctx,
		&pb.RefreshTokenRequest{Tenant: "tenants/" + id, RejectedTokenId: rejected}, grpc.WaitForReady(true))
	return resp.GetToken(), err
}

// tokensOf returns the ids of the tokens that a replica hands out, by tenant.
func (s *scene) tokensOf(replica int) map[string]string {
	s.t.Helper()
	ids := map[string]string{}
	for id := range s.lives {
		tok, err := get(s.t.Context(), s.conns[replica], id)
		if err != nil {
			s.t.Fatalf("%s on replica %d: %v", id, replica, err)
		}
		ids[id] = tok.GetTokenId()
	}
	return ids
}

// tokensInRedis returns the ids of the tokens that Redis has, sorted.
func (s *scene) tokensInRedis() []string {
	var ids []string
	for _, key := range s.redis.Client().Keys(s.t.Context(), "tokenbroker:token:*").Val() {
		id, _, _ := strings.Cut(s.redis.Client().Get(s.t.Context(), key).Val(), ".")
		ids = append(ids, id)
	}
	slices.Sort(ids)
	return ids
}

var boughtRecord = regexp.MustCompile(`"msg":"token bought".*"token_id":"([0-9a-f]+)"`)

// bought returns the ids of the tokens that a replica has bought.
func (p *process) bought() []string {
	var ids []string
	for _, match := range boughtRecord.FindAllStringSubmatch(p.log.String(), -1) {
		ids = append(ids, match[1])
	}
	return ids
}

// pause stops the process in its tracks, and returns when it stands.
func (p *process) pause() {
	p.t.Helper()
	if err := p.cmd.Process.Signal(syscall.SIGSTOP); err != nil {
		p.t.Fatal(err)
	}
	until(p.t, "stopped", func() bool {
		stat, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", p.cmd.Process.Pid))
		return err == nil && strings.Contains(string(stat), ") T ")
	})
}

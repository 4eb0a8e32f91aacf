package redisstore_test

import (
	"testing"
	"time"

	"smokeball.internal/tokenbroker/internal/redisstore"
	"smokeball.internal/tokenbroker/internal/token"
)

// turnRequest is one of somebody who waits: a turn every half minute, three at
// once.
var turnRequest = token.TurnRequest{Cost: 30 * time.Second, Burst: 3, Patience: 50 * time.Second}

func admit(t *testing.T, s *redisstore.Store, endpoint string, r token.TurnRequest) token.Turn {
	t.Helper()
	turn, err := s.Admit(t.Context(), endpoint, r)
	if err != nil {
		t.Fatal(err)
	}
	return turn
}

func TestTheFleetSharesOneBudgetForEachIssuer(t *testing.T) {
	onBoth(t, func(t *testing.T, f *fixture) {
		replicas := []*redisstore.Store{f.Store, f.open(t, f.keyset), f.open(t, f.keyset)}
		for n, s := range replicas {
			if turn := admit(t, s, "us", turnRequest); !turn.Given || turn.Wait != 0 || turn.Owed != n+1 || turn.Buyers != n+1 {
				t.Errorf("replica %d: %+v", n, turn)
			}
		}
		// The next has to wait for its turn, and the one after it for too long.
		if turn := admit(t, replicas[0], "us", turnRequest); !turn.Given || !near(turn.Wait, 30*time.Second) || turn.Buyers != 3 {
			t.Errorf("the fourth: %+v", turn)
		}
		for range 2 { // A turn that is not given costs nothing.
			if turn := admit(t, replicas[1], "us", turnRequest); turn.Given || !near(turn.Wait, 10*time.Second) || turn.Owed != 4 {
				t.Errorf("the fifth: %+v", turn)
			}
		}
		if turn := admit(t, replicas[1], "au", turnRequest); !turn.Given || turn.Wait != 0 || turn.Buyers != 1 {
			t.Errorf("another issuer: %+v", turn)
		}
	})
}

// After a failover the clock may be behind that of the server before.
func TestABudgetFromTheFutureIsNotWaitedFor(t *testing.T) {
	onBoth(t, func(t *testing.T, f *fixture) {
		admit(t, f.Store, "us", turnRequest)
		for _, key := range f.keys(t) {
			if f.raw.Type(t.Context(), key).Val() == "string" {
				f.raw.Set(t.Context(), key, time.Now().Add(24*time.Hour).UnixMicro(), time.Hour)
			}
		}
		if turn := admit(t, f.Store, "us", turnRequest); turn.Given || turn.Wait > 2*time.Minute {
			t.Errorf("%+v", turn)
		}
	})
}

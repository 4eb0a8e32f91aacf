package broker_test

import (
	"maps"
	"testing"
	"testing/synctest"
	"time"

	"smokeball.internal/tokenbroker/internal/broker/brokertest"
	"smokeball.internal/tokenbroker/internal/token"
)

func TestTokensThatWillBeMissedAreToldWithTheLifeThatIsLeft(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		fleet := brokertest.NewFleet(t, 1)
		b := fleet.Replicas[0]
		want := func(when string, left map[string]time.Duration) {
			t.Helper()
			got := map[string]time.Duration{}
			for h := range b.Held() {
				got[h.Tenant] = h.Left
			}
			if !maps.Equal(got, left) {
				t.Errorf("%s: %v, want %v", when, got, left)
			}
		}
		want("nothing", map[string]time.Duration{})
		fleet.Register(t, "warm", warm)
		fleet.Register(t, "busy", nil)
		get(t, b, "warm")
		time.Sleep(10 * time.Minute)
		get(t, b, "busy")
		want("one that was only bought", map[string]time.Duration{"warm": 50 * time.Minute})
		get(t, b, "busy")
		want("in use", map[string]time.Duration{"warm": 50 * time.Minute, "busy": time.Hour})
		fleet.Issuer.Set(func(i *brokertest.Issuer) {
			i.Answer = func(token.Credential) *token.Failure { return &token.Failure{Class: token.Unavailable} }
		})
		time.Sleep(55 * time.Minute)
		want("one has ended", map[string]time.Duration{"warm": 0, "busy": 5 * time.Minute})
	})
}

func TestATokenThatIsLeftToExpireIsNotMissed(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		fleet := brokertest.NewFleet(t, 2)
		fleet.Register(t, "acme", nil)
		get(t, fleet.Replicas[0], "acme")
		get(t, fleet.Replicas[1], "acme")
		time.Sleep(50 * time.Minute) // One has replaced it, the other heard of that, and nobody has asked since.
		for n, b := range fleet.Replicas {
			for h := range b.Held() {
				t.Errorf("replica %d misses %v", n, h)
			}
		}
	})
}

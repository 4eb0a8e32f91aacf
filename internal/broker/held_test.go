package broker_test

import (
	"maps"
	"slices"
	"testing"
	"testing/synctest"
	"time"

	"smokeball.internal/tokenbroker/internal/broker"
	"smokeball.internal/tokenbroker/internal/broker/brokertest"
	"smokeball.internal/tokenbroker/internal/secret"
	"smokeball.internal/tokenbroker/internal/tenant"
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

func TestNobodyMissesTheTokenOfATenantThatIsDisabledOrHasAnotherSecret(t *testing.T) {
	for name, change := range map[string]func(*tenant.Tenant) error{
		"disabled": func(t *tenant.Tenant) error { t.Disabled = true; return nil },
		"rotated":  func(t *tenant.Tenant) error { t.Secret = tenant.Secret{Value: secret.New("another")}; return nil },
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				fleet := brokertest.NewFleet(t, 1)
				b := fleet.Replicas[0]
				fleet.Register(t, "acme", nil)
				get(t, b, "acme")
				get(t, b, "acme")
				fleet.Issuer.Set(func(i *brokertest.Issuer) {
					i.Answer = func(token.Credential) *token.Failure { return &token.Failure{Class: token.CredentialsRejected} }
				})
				time.Sleep(50 * time.Minute)
				if n := len(slices.Collect(b.Held())); n != 1 {
					t.Fatalf("%d tokens end and are missed, want 1", n)
				}
				if _, err := broker.NewRegistry(b, fleet.Store).Update(t.Context(), "acme", "", false, change); err != nil {
					t.Fatal(err)
				}
				_, _ = b.Get(t.Context(), "acme", nil, 0) // Somebody asks, and the tenant is read.
				time.Sleep(15 * time.Minute)
				for h := range b.Held() {
					t.Errorf("%v is missed", h)
				}
			})
		})
	}
}

package broker_test

import (
	"errors"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"smokeball.internal/tokenbroker/internal/broker"
	"smokeball.internal/tokenbroker/internal/broker/brokertest"
	"smokeball.internal/tokenbroker/internal/secret"
	"smokeball.internal/tokenbroker/internal/tenant"
	"smokeball.internal/tokenbroker/internal/token"
)

// always has an issuer fail.
func always(class token.Class) func(token.Credential) *token.Failure {
	return func(token.Credential) *token.Failure {
		return &token.Failure{Class: class, Message: "as the test wants it"}
	}
}

// tries returns how many exchanges may fail between the token's refresh point and
// its safe end: every 15 to 30 seconds, a little more often at the beginning and at
// the end.
func tries(tok *token.Token) int {
	return 15 + int(tok.SafeEnd().Sub(tok.RefreshAt)/(15*time.Second))
}

// onlySecret has an issuer accept one secret.
func onlySecret(s string) func(token.Credential) *token.Failure {
	return func(c token.Credential) *token.Failure {
		if c.Secret.Reveal() == s {
			return nil
		}
		return &token.Failure{Class: token.CredentialsRejected, Message: "answers invalid_client"}
	}
}

func TestAWrongSecretIsTriedOnceAndTheRightOneAtOnce(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		fleet := brokertest.NewFleet(t, 2)
		// This one hears of nothing that the others do.
		deaf := newReplica(t, fleet, fleet.Store)
		replicas := append([]*broker.Broker{deaf}, fleet.Replicas...)
		fleet.Issuer.Answer = onlySecret("right")
		fleet.Register(t, "acme", nil)
		var callers sync.WaitGroup
		for _, replica := range replicas {
			for range 100 {
				callers.Go(func() {
					if f := failure(t, replica, "acme"); f.Class != token.CredentialsRejected {
						t.Errorf("class %s", f.Class)
					}
				})
			}
		}
		callers.Wait()
		for range 60 {
			time.Sleep(5 * time.Second)
			for _, replica := range replicas {
				failure(t, replica, "acme")
			}
		}
		if got := fleet.Issuer.Asked("client of acme"); got != 1 {
			t.Errorf("%d exchanges with a wrong secret in five minutes", got)
		}
		if _, err := fleet.Registry().Rotate(t.Context(), "acme", broker.Rotation{Secret: secret.New("right"), SkipVerification: true}); err != nil {
			t.Fatal(err)
		}
		for _, replica := range replicas {
			get(t, replica, "acme")
		}
		if got := fleet.Issuer.Asked("client of acme"); got != 2 {
			t.Errorf("%d exchanges, want one more with the right secret", got)
		}
	})
}

func TestARefusalIsTriedAgainSometime(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		fleet := brokertest.NewFleet(t, 1)
		fleet.Issuer.Answer = always(token.GrantRejected)
		fleet.Register(t, "acme", nil)
		failure(t, fleet.Replicas[0], "acme")
		fleet.Issuer.Set(func(i *brokertest.Issuer) { i.Answer = nil }) // Mended at the issuer's side.
		time.Sleep(11 * time.Minute)
		get(t, fleet.Replicas[0], "acme")
	})
}

func TestAnOutageOfTheIssuerIsSatOut(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		fleet := brokertest.NewFleet(t, 2)
		fleet.Issuer.Took = time.Second
		fleet.Register(t, "acme", nil)
		bought := get(t, fleet.Replicas[0], "acme")
		fleet.Issuer.Set(func(i *brokertest.Issuer) { i.Answer = always(token.Unavailable) })
		before := fleet.Issuer.Asked("client of acme")
		for time.Now().Before(bought.SafeEnd().Add(-time.Second)) {
			time.Sleep(time.Second)
			asked := time.Now()
			for _, replica := range fleet.Replicas {
				if tok := get(t, replica, "acme"); tok.ID != bought.ID {
					t.Fatal("another token")
				}
			}
			if waited := time.Since(asked); waited != 0 {
				t.Fatalf("waited %v", waited)
			}
		}
		if got, most := fleet.Issuer.Asked("client of acme")-before, tries(bought); got < most/3 || got > most {
			t.Errorf("%d exchanges tried while the issuer is away, want at most %d", got, most)
		}
		time.Sleep(time.Minute)
		if f := failure(t, fleet.Replicas[0], "acme"); f.Class != token.Unavailable || !f.Holds(time.Now()) {
			t.Errorf("after the end: %+v", f)
		}
		fleet.Issuer.Set(func(i *brokertest.Issuer) { i.Answer = nil })
		time.Sleep(30 * time.Second)
		for _, replica := range fleet.Replicas {
			get(t, replica, "acme")
		}
	})
}

func TestAFailingIssuerIsNotHammered(t *testing.T) {
	for _, test := range []struct {
		class  token.Class
		within int // exchanges in ten minutes, with callers every 100 ms on three replicas
	}{
		{token.Unavailable, 45}, {token.Malformed, 45}, {token.Throttled, 25}, {token.Blocked, 25}, {token.CredentialsRejected, 1},
	} {
		t.Run(string(test.class), func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				fleet := brokertest.NewFleet(t, 3)
				fleet.Issuer.Answer = always(test.class)
				fleet.Register(t, "acme", nil)
				for range 6000 - 1 {
					for _, replica := range fleet.Replicas {
						failure(t, replica, "acme")
					}
					time.Sleep(100 * time.Millisecond)
				}
				if got := fleet.Issuer.Asked("client of acme"); got > test.within {
					t.Errorf("%d exchanges, want at most %d", got, test.within)
				}
			})
		})
	}
}

func TestRetryAfterIsHonoured(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		fleet := brokertest.NewFleet(t, 2)
		fleet.Issuer.Answer = func(token.Credential) *token.Failure {
			return &token.Failure{Class: token.Throttled, RetryAfter: 5 * time.Minute}
		}
		fleet.Register(t, "acme", nil)
		failure(t, fleet.Replicas[0], "acme")
		fleet.Issuer.Set(func(i *brokertest.Issuer) { i.Answer = nil })
		time.Sleep(5*time.Minute - time.Second)
		if f := failure(t, fleet.Replicas[1], "acme"); time.Until(f.RetryAt) != time.Second {
			t.Errorf("to be tried again in %v", time.Until(f.RetryAt))
		}
		time.Sleep(time.Second)
		get(t, fleet.Replicas[1], "acme")
	})
}

func TestTheSecretBeforeStandsIn(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		fleet := brokertest.NewFleet(t, 1)
		fleet.Issuer.Answer = onlySecret("good")
		fleet.Register(t, "acme", nil)
		_, err := fleet.Registry().Rotate(t.Context(), "acme", broker.Rotation{
			Secret: secret.New("too new"), SkipVerification: true, FallbackTTL: time.Hour})
		if err != nil {
			t.Fatal(err)
		}
		synctest.Wait()
		get(t, fleet.Replicas[0], "acme")
		if got := fleet.Issuer.Asked("client of acme"); got != 2 {
			t.Errorf("%d exchanges, want one with each secret", got)
		}
		time.Sleep(2 * time.Hour)
		if f := failure(t, fleet.Replicas[0], "acme"); f.Class != token.CredentialsRejected {
			t.Errorf("after the fallback has ended: %v", f)
		}
	})
}

func TestATokenWithoutLifetimeIsHandedOutOnceAndNotKept(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		fleet := brokertest.NewFleet(t, 1)
		fleet.Issuer.Lifetime = -1
		fleet.Register(t, "acme", nil)
		get(t, fleet.Replicas[0], "acme")
		if f := failure(t, fleet.Replicas[0], "acme"); time.Until(f.RetryAt) > time.Second {
			t.Errorf("paused for %v", time.Until(f.RetryAt))
		}
		time.Sleep(time.Second)
		get(t, fleet.Replicas[0], "acme")
		if got := fleet.Issuer.Bought("client of acme"); got != 2 {
			t.Errorf("%d tokens bought", got)
		}
	})
}

func TestTheSameTokenAgainIsNotASpin(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		fleet := brokertest.NewFleet(t, 2)
		fleet.Issuer.Same = true
		fleet.Register(t, "acme", nil)
		end := get(t, fleet.Replicas[0], "acme").Expires
		for time.Now().Before(end.Add(-2 * time.Minute)) {
			time.Sleep(time.Second)
			for _, replica := range fleet.Replicas {
				if tok := get(t, replica, "acme"); tok.Expires.After(end) {
					t.Fatalf("the end moved from %v to %v", end, tok.Expires)
				}
			}
		}
		if got := fleet.Issuer.Asked("client of acme"); got > 8 {
			t.Errorf("%d exchanges for one token", got)
		}
	})
}

func TestARepeatedTokenNearItsEndIsNotBoughtForEveryCall(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		fleet := brokertest.NewFleet(t, 1)
		fleet.Issuer.Same = true
		fleet.Register(t, "acme", nil)
		end := get(t, fleet.Replicas[0], "acme").Expires
		time.Sleep(time.Until(end) - 50*time.Second)
		// A replica that has just started finds a token in the store which it would
		// not hand out any more, and gets the same from the issuer.
		late, before := fleet.Add(t), fleet.Issuer.Asked("client of acme")
		for range 200 {
			if tok := get(t, late, "acme"); tok.Expires.After(end) {
				t.Fatalf("the end moved from %v to %v", end, tok.Expires)
			}
			time.Sleep(200 * time.Millisecond)
		}
		if got := fleet.Issuer.Asked("client of acme") - before; got > 6 {
			t.Errorf("%d exchanges in 40 seconds", got)
		}
	})
}

func TestAPanicInAFlightEndsTheFlightOnly(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		fleet := brokertest.NewFleet(t, 1)
		var broken atomic.Bool
		broken.Store(true)
		fleet.Issuer.Answer = func(token.Credential) *token.Failure {
			if broken.Load() {
				panic("an issuer's secret")
			}
			return nil
		}
		fleet.Register(t, "acme", nil)
		_, err := fleet.Replicas[0].Get(t.Context(), "acme", nil, 0)
		if err == nil || errors.As(err, new(*token.Failure)) {
			t.Errorf("Get = %v", err)
		}
		broken.Store(false)
		if failure(t, fleet.Replicas[0], "acme"); fleet.Issuer.Asked("client of acme") != 1 {
			t.Error("tried again at once")
		}
		time.Sleep(time.Second)
		get(t, fleet.Replicas[0], "acme") // The lease was given back too.
	})
}

func TestDeletedTenantsAreForgottenWithTheirRefusal(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		fleet := brokertest.NewFleet(t, 1)
		fleet.Issuer.Answer = always(token.ScopeRejected)
		fleet.Register(t, "acme", nil)
		failure(t, fleet.Replicas[0], "acme")
		if err := fleet.Store.DeleteTenant(t.Context(), "acme", etag(t, fleet, "acme")); err != nil {
			t.Fatal(err)
		}
		if _, err := fleet.Replicas[0].Get(t.Context(), "acme", nil, 0); !errors.Is(err, tenant.ErrNotFound) {
			t.Errorf("Get = %v", err)
		}
	})
}

func etag(t *testing.T, fleet *brokertest.Fleet, id string) string {
	t.Helper()
	r, err := fleet.Store.Tenant(t.Context(), id)
	if err != nil {
		t.Fatal(err)
	}
	return r.Etag
}

package broker_test

import (
	"context"
	"errors"
	"strconv"
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

func warm(r *tenant.Tenant) { r.KeepWarm = true }

// rotate gives the tenant acme a secret that is not tried.
func rotate(t *testing.T, fleet *brokertest.Fleet, to string) {
	t.Helper()
	_, err := fleet.Registry().Rotate(t.Context(), "acme", broker.Rotation{Secret: secret.New(to), SkipVerification: true, FallbackTTL: time.Hour})
	if err != nil {
		t.Fatal(err)
	}
	synctest.Wait()
}

func TestAnIssuerThatHangsIsRememberedAsOneThatFails(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		fleet := brokertest.NewFleet(t, 1)
		fleet.Issuer.Took = time.Minute
		fleet.Register(t, "acme", nil)
		b := fleet.Replicas[0]
		if f := failure(t, b, "acme"); f.Class != token.Unavailable || !f.Holds(time.Now()) {
			t.Errorf("%+v", f)
		}
		before := time.Now()
		failure(t, b, "acme")
		if waited := time.Since(before); waited != 0 || fleet.Issuer.Asked("client of acme") != 1 {
			t.Errorf("the next caller waited %v, %d exchanges", waited, fleet.Issuer.Asked("client of acme"))
		}
		time.Sleep(24 * time.Hour)
		if n := b.Entries(); n != 0 {
			t.Errorf("%d entries in memory a day later", n)
		}
	})
}

func TestRefreshAheadGoesOnAfterAFailure(t *testing.T) {
	for name, fail := range map[string]func(*testing.T, *brokertest.Fleet, *token.Token){
		"of a refresh ahead, hanging": func(_ *testing.T, fleet *brokertest.Fleet, _ *token.Token) {
			fleet.Issuer.Set(func(i *brokertest.Issuer) { i.Took = time.Minute })
			time.Sleep(50 * time.Minute)
		},
		"of a forced refresh": func(t *testing.T, fleet *brokertest.Fleet, held *token.Token) {
			time.Sleep(2 * time.Minute)
			fleet.Issuer.Set(func(i *brokertest.Issuer) { i.Answer = always(token.Unavailable) })
			if _, err := fleet.Replicas[0].Refresh(t.Context(), "acme", nil, held.ID); err == nil {
				t.Error("no failure")
			}
		},
	} {
		for _, keep := range []bool{true, false} {
			t.Run(name+", warm "+strconv.FormatBool(keep), func(t *testing.T) {
				synctest.Test(t, func(t *testing.T) {
					fleet := brokertest.NewFleet(t, 1)
					fleet.Register(t, "acme", func(r *tenant.Tenant) { r.KeepWarm = keep })
					fail(t, fleet, get(t, fleet.Replicas[0], "acme"))
					fleet.Issuer.Set(func(i *brokertest.Issuer) { i.Took, i.Answer = 0, nil })
					before := fleet.Issuer.Asked("client of acme")
					time.Sleep(24 * time.Hour)
					got := fleet.Issuer.Asked("client of acme") - before
					if keep && (got < 30 || got > 36) || !keep && (got > 1 || fleet.Replicas[0].Entries() != 0) {
						t.Errorf("%d exchanges in the day after, %d entries", got, fleet.Replicas[0].Entries())
					}
				})
			})
		}
	}
}

// slow is a store whose answers take time, or do not come at all.
type slow struct {
	*brokertest.Store
	took time.Duration
	hang atomic.Bool
}

func (s *slow) Tenant(ctx context.Context, id string) (*tenant.Tenant, error) {
	if s.hang.Load() {
		<-ctx.Done()
		return nil, ctx.Err()
	}
	r, err := s.Store.Tenant(ctx, id)
	time.Sleep(s.took)
	return r, err
}

func newSlow(t *testing.T, took time.Duration) (*broker.Broker, *slow, *brokertest.Fleet) {
	fleet := brokertest.NewFleet(t, 1)
	fleet.Register(t, "acme", nil)
	s := &slow{Store: fleet.Store, took: took}
	return newReplica(t, fleet, s), s, fleet
}

func TestAskingForTenantsThatDoNotExistTroublesNoOther(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b, _, fleet := newSlow(t, time.Millisecond)
		ctx, cancel := context.WithCancel(t.Context())
		defer cancel()
		for n := range 4 {
			go func() {
				time.Sleep(time.Duration(n) * 250 * time.Microsecond)
				for ctx.Err() == nil {
					_, _ = b.Get(ctx, "nobody"+strconv.Itoa(n), nil, 0)
				}
			}()
		}
		get(t, b, "acme")
		fleet.Store.SetAway(true)
		get(t, b, "acme")
	})
}

func TestAStoreThatHangsAfterAResyncIsNotWaitedFor(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b, s, _ := newSlow(t, 0)
		get(t, b, "acme")
		b.Resync()
		s.hang.Store(true)
		waits := time.Duration(0)
		for range 100 {
			before := time.Now()
			get(t, b, "acme")
			waited := time.Since(before)
			waits += waited
			if waited > 100*time.Millisecond {
				t.Errorf("waited %v", waited)
			}
		}
		if waits > 100*time.Millisecond {
			t.Errorf("100 calls waited %v together", waits)
		}
	})
}

func TestCreatingATenantThatExistsInAnOutageDoesNotForgetIt(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		fleet := brokertest.NewFleet(t, 1)
		fleet.Register(t, "acme", nil)
		synctest.Wait()
		get(t, fleet.Replicas[0], "acme")
		fleet.Store.SetAway(true)
		_, err := fleet.Registry().Create(t.Context(), tenant.Tenant{ID: "acme", Region: tenant.US, Environment: tenant.Production,
			ClientID: "x", Secret: tenant.Secret{Value: secret.New("x")}}, false)
		if !errors.Is(err, broker.ErrStore) {
			t.Errorf("Create = %v", err)
		}
		get(t, fleet.Replicas[0], "acme")
	})
}

func TestABlipWhileTheFormerSecretIsTriedIsNoRefusal(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		fleet := brokertest.NewFleet(t, 1)
		var blip atomic.Bool
		blip.Store(true)
		fleet.Issuer.Answer = func(c token.Credential) *token.Failure {
			if c.Secret.Reveal() == "good" && blip.Load() {
				return &token.Failure{Class: token.Unavailable}
			}
			return onlySecret("good")(c)
		}
		fleet.Register(t, "acme", nil)
		rotate(t, fleet, "too new")
		if f := failure(t, fleet.Replicas[0], "acme"); f.Class != token.Unavailable {
			t.Errorf("%v", &f)
		}
		blip.Store(false)
		time.Sleep(time.Minute)
		get(t, fleet.Replicas[0], "acme")
	})
}

func TestATenantHeardToBeDisabledIsNotBoughtForWhileTheStoreIsAway(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		fleet := brokertest.NewFleet(t, 1)
		fleet.Register(t, "acme", warm)
		synctest.Wait()
		get(t, fleet.Replicas[0], "acme")
		disable(t, fleet, true)
		synctest.Wait()
		fleet.Store.SetAway(true)
		time.Sleep(6 * time.Hour)
		if got := fleet.Issuer.Asked("client of acme"); got != 1 {
			t.Errorf("%d exchanges", got)
		}
	})
}

func TestATenantDisabledWhileItsCallerWaitsGetsNoToken(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		fleet := brokertest.NewFleet(t, 1)
		fleet.Issuer.Took = 5 * time.Second
		fleet.Register(t, "acme", nil)
		go func() {
			time.Sleep(time.Second)
			disable(t, fleet, true)
		}()
		if _, err := fleet.Replicas[0].Get(t.Context(), "acme", nil, 0); !errors.Is(err, broker.ErrDisabled) {
			t.Errorf("Get = %v", err)
		}
	})
}

func TestTheTokenOfACheckWithTheFormerSecretIsPutToUse(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		fleet := brokertest.NewFleet(t, 1)
		fleet.Issuer.Answer = onlySecret("good")
		fleet.Register(t, "acme", nil)
		rotate(t, fleet, "too new")
		finding, err := fleet.Registry().Check(t.Context(), "acme", true)
		if err != nil || finding.FallbackUntil.IsZero() {
			t.Fatalf("Check = %+v, %v", finding, err)
		}
		get(t, fleet.Replicas[0], "acme")
		if got := fleet.Issuer.Asked("client of acme"); got != 2 {
			t.Errorf("%d exchanges", got)
		}
	})
}

func TestAnIssuerThatComesBackShortlyBeforeTheEndIsAskedInTime(t *testing.T) {
	for range 20 { // Pauses are drawn by chance.
		synctest.Test(t, func(t *testing.T) {
			fleet := brokertest.NewFleet(t, 1)
			b := fleet.Replicas[0]
			fleet.Issuer.Lifetime = 5 * time.Minute
			fleet.Register(t, "acme", nil)
			end := get(t, b, "acme").SafeEnd()
			fleet.Issuer.Set(func(i *brokertest.Issuer) { i.Answer = always(token.Unavailable) })
			for time.Now().Before(end.Add(time.Minute)) {
				time.Sleep(time.Second)
				if time.Until(end) == 8*time.Second {
					fleet.Issuer.Set(func(i *brokertest.Issuer) { i.Answer = nil })
				}
				before := time.Now()
				if get(t, b, "acme"); time.Since(before) != 0 {
					t.Fatalf("%v before the end: waited %v", time.Until(end), time.Since(before))
				}
			}
		})
	}
}

// Near a token's end it is tried more often. That is no reason to wait for longer
// once there is none.
func TestAThrottleIsNotSatOutForLongerThanWithoutAToken(t *testing.T) {
	for range 20 { // Pauses are drawn by chance.
		synctest.Test(t, func(t *testing.T) {
			fleet := brokertest.NewFleet(t, 1)
			b := fleet.Replicas[0]
			fleet.Issuer.Lifetime = time.Minute
			fleet.Register(t, "acme", nil)
			end := get(t, b, "acme").SafeEnd()
			fleet.Issuer.Set(func(i *brokertest.Issuer) { i.Answer = always(token.Throttled) })
			for time.Now().Before(end.Add(10 * time.Second)) {
				time.Sleep(100 * time.Millisecond)
				_, _ = b.Get(t.Context(), "acme", nil, 0)
			}
			fleet.Issuer.Set(func(i *brokertest.Issuer) { i.Answer = nil })
			mended := time.Now()
			persist(t, b, "acme")
			if took := time.Since(mended); took > 25*time.Second {
				t.Fatalf("served %v after it was mended", took)
			}
		})
	}
}

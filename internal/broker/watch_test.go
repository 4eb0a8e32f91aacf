package broker_test

import (
	"context"
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

// watcher notes what a watch brings.
type watcher struct {
	mu      sync.Mutex
	answers []*broker.Answer
	times   []time.Time
	err     error
}

// watch watches acme from a goroutine that ends with the test or with an error.
func watch(t *testing.T, b *broker.Broker, scopes ...string) *watcher {
	t.Helper()
	seen := &watcher{}
	ctx, cancel := context.WithCancel(t.Context())
	var done sync.WaitGroup
	done.Go(func() {
		w := b.Watch("acme", scopes)
		defer w.Close()
		for {
			a, news, err := w.Next(ctx)
			seen.mu.Lock()
			if err != nil {
				seen.err = err
				seen.mu.Unlock()
				return
			}
			if news {
				seen.answers, seen.times = append(seen.answers, a), append(seen.times, time.Now())
			}
			seen.mu.Unlock()
		}
	})
	t.Cleanup(func() { cancel(); done.Wait() })
	return seen
}

func (w *watcher) seen() ([]*broker.Answer, error) {
	synctest.Wait()
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.answers, w.err
}

// want wants so many answers, each with another token than the one before, and
// that the watch goes on.
func (w *watcher) want(t *testing.T, n int) *broker.Answer {
	t.Helper()
	answers, err := w.seen()
	if err != nil || len(answers) != n {
		t.Fatalf("%d answers, error %v, want %d", len(answers), err, n)
	}
	return answers[n-1]
}

// A day of a token that nobody asks for but who watches it: no moment without one,
// on every replica the same, and not one exchange more than it takes.
func TestAWatchedTokenIsReplacedBeforeItEnds(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		fleet := brokertest.NewFleet(t, 3)
		fleet.Register(t, "acme", nil)
		var watchers []*watcher
		for _, b := range fleet.Replicas {
			watchers = append(watchers, watch(t, b), watch(t, b))
		}
		time.Sleep(24 * time.Hour)
		bought := fleet.Issuer.Asked("client of acme")
		if bought < 31 || bought > 34 {
			t.Errorf("%d exchanges in a day", bought)
		}
		for _, w := range watchers {
			w.want(t, bought)
			for n := range w.answers {
				if n > 0 && !w.times[n].Before(w.answers[n-1].Token.SafeEnd()) {
					t.Errorf("token %d came at %v, the one before was good until %v", n, w.times[n], w.answers[n-1].Token.SafeEnd())
				}
				if w.answers[n].Token.ID != watchers[0].answers[n].Token.ID {
					t.Errorf("token %d is not the same for all", n)
				}
			}
		}
	})
}

func TestATokenThatNobodyWatchesAnyMoreIsLeftToExpire(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		fleet := brokertest.NewFleet(t, 1)
		fleet.Register(t, "acme", nil)
		b := fleet.Replicas[0]
		w := b.Watch("acme", nil)
		if _, _, err := w.Next(t.Context()); err != nil {
			t.Fatal(err)
		}
		w.Close()
		time.Sleep(3 * time.Hour)
		// The one whose watcher has gone was in use, so there is one more.
		if got := fleet.Issuer.Asked("client of acme"); got > 2 {
			t.Errorf("%d exchanges", got)
		}
		if b.Entries() != 0 || b.Bells() != 0 {
			t.Errorf("%d entries and %d bells are left", b.Entries(), b.Bells())
		}
	})
}

func TestAWatchHearsWhatARequestNeedsBesideTheToken(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		fleet := brokertest.NewFleet(t, 2)
		fleet.Register(t, "acme", nil)
		w := watch(t, fleet.Replicas[1])
		first := w.want(t, 1)
		update(t, fleet, func(r *tenant.Tenant) { r.APIKey = secret.New("another key") })
		second := w.want(t, 2)
		if second.APIKey.Reveal() != "another key" || second.Token.ID != first.Token.ID {
			t.Errorf("then %q with token %s, before %s", second.APIKey.Reveal(), second.Token.ID, first.Token.ID)
		}
		update(t, fleet, func(r *tenant.Tenant) { r.DisplayName = "Another name" })
		w.want(t, 2)
		update(t, fleet, func(r *tenant.Tenant) { r.AccountID = "account-2" })
		if third := w.want(t, 3); third.APIBaseURL != "api.us/account-2" || third.Token.ID != first.Token.ID {
			t.Errorf("of another account: %s, token %s", third.APIBaseURL, third.Token.ID)
		}
		update(t, fleet, func(r *tenant.Tenant) { r.Region = tenant.AU })
		if fourth := w.want(t, 4); fourth.APIBaseURL != "api.au/account-2" || fourth.Token.ID == first.Token.ID {
			t.Errorf("in another region: %s, token %s", fourth.APIBaseURL, fourth.Token.ID)
		}
	})
}

func TestAWatchHearsOfAForcedRefreshAndOfANewSecret(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		fleet := brokertest.NewFleet(t, 2)
		fleet.Register(t, "acme", nil)
		w, scoped := watch(t, fleet.Replicas[1]), watch(t, fleet.Replicas[1], "matters/read")
		first := w.want(t, 1)
		scoped.want(t, 1)
		time.Sleep(time.Second)
		forced, err := fleet.Replicas[0].Refresh(t.Context(), "acme", nil, first.Token.ID)
		if err != nil {
			t.Fatal(err)
		}
		if got := w.want(t, 2); got.Token.ID != forced.Token.ID {
			t.Error("not the one that replaces the rejected one")
		}
		scoped.want(t, 1)
		update(t, fleet, func(r *tenant.Tenant) { r.Secret.Value = secret.New("another") })
		w.want(t, 3)
		scoped.want(t, 2)
	})
}

func TestAWatchEndsWhenGetWouldFail(t *testing.T) {
	for name, test := range map[string]struct {
		happens func(*testing.T, *brokertest.Fleet)
		want    error
	}{
		"disabled": {func(t *testing.T, f *brokertest.Fleet) {
			update(t, f, func(r *tenant.Tenant) { r.Disabled = true })
		}, broker.ErrDisabled},
		"deleted": {func(t *testing.T, f *brokertest.Fleet) {
			if err := f.Registry().Delete(t.Context(), "acme", "", false); err != nil {
				t.Fatal(err)
			}
		}, tenant.ErrNotFound},
		"scopes taken away": {func(t *testing.T, f *brokertest.Fleet) {
			update(t, f, func(r *tenant.Tenant) { r.Scopes = []string{"contacts/read"} })
		}, broker.ErrScopeNotRegistered},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				fleet := brokertest.NewFleet(t, 2)
				fleet.Register(t, "acme", nil)
				w := watch(t, fleet.Replicas[1], "matters/read")
				w.want(t, 1)
				test.happens(t, fleet)
				if _, err := w.seen(); !errors.Is(err, test.want) {
					t.Errorf("the watch ended with %v, want %v", err, test.want)
				}
			})
		})
	}
}

// While the token lives the watch goes on, whatever the issuer says; it ends with
// the token.
func TestAWatchOutlastsTheIssuerAsLongAsItsTokenLives(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		fleet := brokertest.NewFleet(t, 1)
		fleet.Issuer.Lifetime = 50*time.Minute + 17*time.Second
		fleet.Register(t, "acme", nil)
		w := watch(t, fleet.Replicas[0])
		safe := time.Until(w.want(t, 1).Token.SafeEnd())
		fleet.Issuer.Set(func(i *brokertest.Issuer) { i.Answer = always(token.Unavailable) })
		time.Sleep(safe - time.Second)
		w.want(t, 1)
		time.Sleep(2 * time.Second)
		var f *token.Failure
		if _, err := w.seen(); !errors.As(err, &f) || f.Class != token.Unavailable {
			t.Errorf("the watch ended with %v", err)
		}
	})
}

// What was missed while nothing was heard is found when something is.
func TestAWatchFindsWhatWasMissed(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		fleet := brokertest.NewFleet(t, 1)
		fleet.Register(t, "acme", nil)
		deaf := fleet.Deaf(t)
		w := watch(t, deaf)
		w.want(t, 1)
		update(t, fleet, func(r *tenant.Tenant) { r.Disabled = true })
		time.Sleep(time.Minute)
		w.want(t, 1) // It cannot know.
		deaf.Resync()
		if _, err := w.seen(); !errors.Is(err, broker.ErrDisabled) {
			t.Errorf("the watch goes on: %v", err)
		}
	})
}

// A store that answers late lets a tenant pass as it was; that is not for ever.
func TestAWatchLooksAgainAfterALateAnswer(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		fleet := brokertest.NewFleet(t, 1)
		fleet.Register(t, "acme", nil)
		s := &blip{Store: fleet.Store}
		deaf := newReplica(t, fleet, s)
		w := watch(t, deaf)
		w.want(t, 1)
		update(t, fleet, func(r *tenant.Tenant) { r.Disabled = true })
		s.fails.Store(1)
		deaf.Resync()
		w.want(t, 1)
		time.Sleep(2 * time.Minute)
		if _, err := w.seen(); !errors.Is(err, broker.ErrDisabled) {
			t.Errorf("the watch goes on: %v", err)
		}
	})
}

// overtaken is a store whose answers are overtaken by what happens.
type overtaken struct {
	*brokertest.Store
	by func(answer int)
	n  atomic.Int32
}

func (s *overtaken) Tenant(ctx context.Context, id string) (*tenant.Tenant, error) {
	r, err := s.Store.Tenant(ctx, id)
	s.by(int(s.n.Add(1)))
	return r, err
}

func TestAWatchHearsOfAChangeWhileItLooks(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		fleet := brokertest.NewFleet(t, 1)
		fleet.Register(t, "acme", nil)
		s := &overtaken{Store: fleet.Store}
		b := newReplica(t, fleet, s)
		s.by = func(answer int) {
			switch answer { // Get looks twice: before it finds a token, and after.
			case 2:
				update(t, fleet, func(r *tenant.Tenant) { r.Disabled = true })
				fallthrough
			case 1:
				b.TenantChanged("acme", false)
			}
		}
		if _, err := watch(t, b).seen(); !errors.Is(err, broker.ErrDisabled) {
			t.Errorf("the watch goes on: %v", err)
		}
	})
}

func TestAWatchThatTimedOutGoesOn(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		fleet := brokertest.NewFleet(t, 1)
		fleet.Register(t, "acme", nil)
		w := fleet.Replicas[0].Watch("acme", nil)
		defer w.Close()
		first, _, err := w.Next(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		short, cancel := context.WithTimeout(t.Context(), 30*time.Second)
		defer cancel()
		news := false
		for err == nil && !news {
			_, news, err = w.Next(short)
		}
		if news || !errors.Is(err, context.DeadlineExceeded) {
			t.Errorf("without a change: %v, %v", news, err)
		}
		for {
			second, news, err := w.Next(t.Context())
			if err != nil {
				t.Fatal(err)
			}
			if another := second.Token.ID != first.Token.ID; another != news {
				t.Errorf("news: %v, another token: %v", news, another)
			} else if another {
				return
			}
		}
	})
}

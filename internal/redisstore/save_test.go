package redisstore_test

import (
	"fmt"
	"sync"
	"testing"
	"time"

	"smokeball.internal/tokenbroker/internal/token"
)

func TestSaveKeepsTheYoungerToken(t *testing.T) {
	onBoth(t, func(t *testing.T, f *fixture) {
		type issue struct{ age, life time.Duration }
		for i, test := range []struct {
			name           string
			stored, saved  issue
			savedIsYounger bool
		}{
			{"older", issue{0, time.Hour}, issue{time.Minute, time.Hour}, false},
			{"older that ends later", issue{0, 5 * time.Minute}, issue{time.Minute, 24 * time.Hour}, false},
			{"older that ends at once", issue{0, time.Hour}, issue{59 * time.Minute, time.Hour}, false},
			{"younger", issue{time.Minute, time.Hour}, issue{0, time.Hour}, true},
			{"younger of shorter life", issue{time.Minute, 24 * time.Hour}, issue{0, 5 * time.Minute}, true},
			{"younger of longer life", issue{time.Minute, 5 * time.Minute}, issue{0, 24 * time.Hour}, true},
			{"younger, stored nearly dead", issue{59 * time.Minute, time.Hour}, issue{0, time.Hour}, true},
		} {
			k := keyOf(test.name)
			stored := newToken(fmt.Sprint("stored ", i), test.stored.age, test.stored.life)
			saved := newToken(fmt.Sprint("saved ", i), test.saved.age, test.saved.life)
			want := stored
			if test.savedIsYounger {
				want = saved
			}
			f.save(t, k, stored)
			kept := f.save(t, k, saved)
			if text(kept) != text(want) || !near(kept.Expires.Sub(want.Expires), 0) {
				t.Errorf("%s: Save returned %s", test.name, text(kept))
			}
			got, _ := f.load(t, k)
			if text(got) != text(want) {
				t.Errorf("%s: then there is %s", test.name, text(got))
			}
			if left := f.pttl(t, tokenKey(k)); !near(left, time.Until(want.Expires)) {
				t.Errorf("%s: which has %v left, want %v", test.name, left, time.Until(want.Expires))
			}
		}
	})
}

// Cognito may give the same token again, with what is left of its life or, as a
// cache in between may have it, with all of it.
func TestSaveOfTheSameTokenNeverMovesItsEndAway(t *testing.T) {
	onBoth(t, func(t *testing.T, f *fixture) {
		for _, test := range []struct {
			name       string
			life, want time.Duration
		}{
			{"later end", 2 * time.Hour, time.Hour},
			{"same end", time.Hour, time.Hour},
			{"earlier end", 10 * time.Minute, 10 * time.Minute},
		} {
			k := keyOf(test.name)
			f.save(t, k, newToken(test.name, 0, time.Hour))
			kept := f.save(t, k, newToken(test.name, 0, test.life))
			if left := time.Until(kept.Expires); !near(left, test.want) {
				t.Errorf("%s: Save returned one with %v left, want %v", test.name, left, test.want)
			}
			if left := f.pttl(t, tokenKey(k)); !near(left, test.want) {
				t.Errorf("%s: kept for %v, want %v", test.name, left, test.want)
			}
			if got, _ := f.load(t, k); got == nil {
				t.Errorf("%s: what is kept is refused", test.name)
			}
		}
	})
}

func TestSaveForgetsTheFailure(t *testing.T) {
	onBoth(t, func(t *testing.T, f *fixture) {
		young, old := newToken("young", 0, time.Hour), newToken("old", time.Minute, time.Hour)
		for _, test := range []struct {
			name   string
			stored *token.Token
			saved  *token.Token
			stays  bool
		}{
			{"first", nil, young, false},
			{"younger", old, young, false},
			{"same", young, young, false},
			// The failure is news about what came after this token.
			{"older", young, old, true},
		} {
			k := keyOf(test.name)
			if test.stored != nil {
				f.save(t, k, test.stored)
			}
			if err := f.SaveFailure(t.Context(), k, newFailure(token.Unavailable, time.Minute)); err != nil {
				t.Fatal(err)
			}
			f.save(t, k, test.saved)
			if _, failure := f.load(t, k); (failure != nil) != test.stays {
				t.Errorf("%s: failure %v", test.name, failure)
			}
		}
	})
}

func TestConcurrentSavesLeaveTheYoungest(t *testing.T) {
	onBoth(t, func(t *testing.T, f *fixture) {
		k := keyOf("acme")
		replicas := []func(*token.Token) (*token.Token, error){}
		for range 3 {
			s := f.open(t, f.keyset)
			replicas = append(replicas, func(saved *token.Token) (*token.Token, error) { return s.Save(t.Context(), k, saved) })
		}
		var savers sync.WaitGroup
		for i := range 48 {
			// The longer ago it was issued, the later it ends.
			age := time.Duration(i) * 30 * time.Second
			saved := newToken(fmt.Sprint("token ", i), age, time.Hour+2*age)
			savers.Go(func() {
				kept, err := replicas[i%len(replicas)](saved)
				if err != nil {
					t.Error(err)
				} else if kept.Issued.Before(saved.Issued.Add(-2 * time.Second)) {
					t.Errorf("Save of %s returned the older %s", text(saved), text(kept))
				}
			})
		}
		savers.Wait()
		if got, _ := f.load(t, k); text(got) != "token 0" {
			t.Errorf("left: %s, want token 0", text(got))
		}
	})
}

// Ages are right to some milliseconds only; a caller may be quicker.
func TestATokenReplacesTheOneItWasBoughtFor(t *testing.T) {
	onBoth(t, func(t *testing.T, f *fixture) {
		k, rejected := keyOf("acme"), newToken("rejected", 0, time.Hour)
		f.save(t, k, rejected)
		better := newToken("better", 20*time.Millisecond, time.Hour)
		if kept := f.save(t, k, better); kept.ID != rejected.ID {
			t.Errorf("an older token that replaces nothing: kept %s", text(kept))
		}
		better.Replaced = rejected.ID
		if kept := f.save(t, k, better); kept.ID != better.ID {
			t.Errorf("the token that replaces it: kept %s", text(kept))
		}
	})
}

package redisstore_test

import (
	"fmt"
	"sync"
	"testing"
	"time"

	"smokeball.internal/tokenbroker/internal/token"
)

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

package brokertest

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"slices"
	"sync"
	"testing"
	"time"

	"smokeball.internal/tokenbroker/internal/broker"
	"smokeball.internal/tokenbroker/internal/secret"
	"smokeball.internal/tokenbroker/internal/tenant"
	"smokeball.internal/tokenbroker/internal/token"
)

// Replica is a store as one replica of a fleet has it.
type Replica interface {
	broker.Store
	broker.Records
}

// Shared is an empty store that two replicas share.
type Shared struct {
	One, Two Replica
	// Listen has a listener told of changes from now on.
	Listen func(Listener)
}

// TestStore tests what brokers rely on of a store. run makes an empty one, and
// calls test with it in virtual or in real time.
func TestStore(t *testing.T, run func(t *testing.T, test func(*testing.T, Shared))) {
	for name, test := range map[string]func(*testing.T, Shared){
		"a token is kept as it is, until it ends":             testKept,
		"a failure is kept until its time, or a token comes":  testFailures,
		"the younger token is kept":                           testYounger,
		"the end of a token does not move away":               testSameToken,
		"a token replaces the one it was bought for":          testReplaced,
		"a lease has one owner":                               testLease,
		"the budget is shared by those who wait and others":   testBudget,
		"a tenant is changed at its version only":             testTenant,
		"a new secret is told from the one before":            testSecrets,
		"tenants are listed in order":                         testLists,
		"tenants are found by a part of their ids":            testSearch,
		"all that is kept is seen at once, exchanges counted": testOverview,
		"changes are told":                                    testChanges,
		"a context that has ended is an error":                testEnded,
	} {
		t.Run(name, func(t *testing.T) { run(t, test) })
	}
}

// must fails the test if there is an error.
func must[T any](t *testing.T) func(T, error) T {
	t.Helper()
	return func(v T, err error) T {
		t.Helper()
		if err != nil {
			t.Fatal(err)
		}
		return v
	}
}

// eventually waits until something is so.
func eventually(t *testing.T, what string, so func() bool) {
	t.Helper()
	for deadline := time.Now().Add(20 * time.Second); !so(); time.Sleep(5 * time.Millisecond) {
		if time.Now().After(deadline) {
			t.Fatalf("not within 20 s: %s", what)
		}
	}
}

// near allows for a busy machine and a clock of another.
func near(got, want time.Duration) bool { return (got - want).Abs() < 2*time.Second }

func keyOf(client string) token.Key {
	return token.Key{Endpoint: "https://issuer.test/oauth2/token", ClientID: client, SecretID: "5ec2e7", Scope: "a b"}
}

// issued returns a token that was issued age ago and lives for life from then.
func issued(text string, age, life time.Duration) *token.Token {
	s := secret.New(text)
	at := time.Now().Add(-age)
	return &token.Token{
		ID: token.ID(s), AccessToken: s, Scopes: []string{"a", "b"},
		Issued: at, Expires: at.Add(life), RefreshAt: at.Add(life * 3 / 4),
	}
}

func load(t *testing.T, s Replica, k token.Key) (*token.Token, *token.Failure) {
	t.Helper()
	held, failure, err := s.Load(t.Context(), k)
	if err != nil {
		t.Fatal(err)
	}
	return held, failure
}

func testKept(t *testing.T, s Shared) {
	k := keyOf("acme")
	if held, failure := load(t, s.One, k); held != nil || failure != nil {
		t.Errorf("in an empty store: %v, %v", held, failure)
	}
	saved := issued("a", time.Minute, time.Hour)
	saved.Replaced = "rejected"
	must[*token.Token](t)(s.One.Save(t.Context(), k, saved))
	got, _ := load(t, s.Two, k)
	if got == nil || got.ID != saved.ID || !got.AccessToken.Equal(saved.AccessToken) || !slices.Equal(got.Scopes, saved.Scopes) || got.Replaced != "rejected" {
		t.Fatalf("another replica loads %+v", got)
	}
	if got.Lifetime() != saved.Lifetime() || !near(got.Expires.Sub(saved.Expires), 0) || !near(got.RefreshAt.Sub(saved.RefreshAt), 0) {
		t.Errorf("saved %+v, loaded %+v", saved, got)
	}
	if other, _ := load(t, s.Two, keyOf("globex")); other != nil {
		t.Error("a token under another key")
	}
	short := keyOf("short")
	must[*token.Token](t)(s.One.Save(t.Context(), short, issued("b", 0, 300*time.Millisecond)))
	eventually(t, "the token has ended", func() bool { held, _ := load(t, s.Two, short); return held == nil })
}

func testFailures(t *testing.T, s Shared) {
	k := keyOf("acme")
	failed := func(until time.Duration) {
		t.Helper()
		f := &token.Failure{Class: token.Throttled, Message: "slow down", Streak: 3, RetryAt: time.Now().Add(until)}
		if err := s.One.SaveFailure(t.Context(), k, f); err != nil {
			t.Fatal(err)
		}
	}
	failed(300 * time.Millisecond)
	eventually(t, "the failure has ended", func() bool { _, f := load(t, s.Two, k); return f == nil })
	failed(time.Minute)
	if _, f := load(t, s.Two, k); f == nil || f.Class != token.Throttled || f.Message != "slow down" || f.Streak != 3 || !near(time.Until(f.RetryAt), time.Minute) {
		t.Errorf("loaded %+v", f)
	}
	must[*token.Token](t)(s.Two.Save(t.Context(), k, issued("a", 0, time.Hour)))
	if _, f := load(t, s.One, k); f != nil {
		t.Errorf("after a token came: %+v", f)
	}
	failed(time.Minute)
	// It is news about what came after this token.
	must[*token.Token](t)(s.Two.Save(t.Context(), k, issued("older", time.Minute, time.Hour)))
	if _, f := load(t, s.One, k); f == nil {
		t.Error("forgotten for an older token")
	}
}

func testYounger(t *testing.T, s Shared) {
	type issue struct{ age, life time.Duration }
	for name, test := range map[string]struct {
		stored, saved issue
		younger       bool
	}{
		"older":                       {issue{0, time.Hour}, issue{time.Minute, time.Hour}, false},
		"older that ends later":       {issue{0, 5 * time.Minute}, issue{time.Minute, 24 * time.Hour}, false},
		"older that ends at once":     {issue{0, time.Hour}, issue{59 * time.Minute, time.Hour}, false},
		"younger":                     {issue{time.Minute, time.Hour}, issue{0, time.Hour}, true},
		"younger of shorter life":     {issue{time.Minute, 24 * time.Hour}, issue{0, 5 * time.Minute}, true},
		"younger of longer life":      {issue{time.Minute, 5 * time.Minute}, issue{0, 24 * time.Hour}, true},
		"younger, stored nearly dead": {issue{59 * time.Minute, time.Hour}, issue{0, time.Hour}, true},
	} {
		k := keyOf(name)
		stored, saved := issued("stored "+name, test.stored.age, test.stored.life), issued("saved "+name, test.saved.age, test.saved.life)
		want := stored
		if test.younger {
			want = saved
		}
		must[*token.Token](t)(s.One.Save(t.Context(), k, stored))
		if kept := must[*token.Token](t)(s.Two.Save(t.Context(), k, saved)); kept.ID != want.ID || !near(kept.Expires.Sub(want.Expires), 0) {
			t.Errorf("%s: Save returned %v", name, kept)
		}
		if got, _ := load(t, s.One, k); got == nil || got.ID != want.ID || !near(got.Expires.Sub(want.Expires), 0) {
			t.Errorf("%s: then there is %v", name, got)
		}
	}
}

// Issuers give the same token again, with what is left of its life or, as a cache
// in between may have it, with all of it.
func testSameToken(t *testing.T, s Shared) {
	for name, test := range map[string]struct{ life, want time.Duration }{
		"later end":   {2 * time.Hour, time.Hour},
		"same end":    {time.Hour, time.Hour},
		"earlier end": {10 * time.Minute, 10 * time.Minute},
	} {
		k := keyOf(name)
		must[*token.Token](t)(s.One.Save(t.Context(), k, issued(name, 0, time.Hour)))
		again := issued(name, 0, test.life)
		kept := must[*token.Token](t)(s.Two.Save(t.Context(), k, again))
		got, _ := load(t, s.One, k)
		for _, each := range []*token.Token{kept, got} {
			if each == nil || !near(time.Until(each.Expires), test.want) {
				t.Fatalf("%s: %v, want one with %v left", name, each, test.want)
			}
			// It is due as long before its end as it was said to be.
			if before := again.Expires.Sub(again.RefreshAt); !near(each.Expires.Sub(each.RefreshAt), before) {
				t.Errorf("%s: due %v before its end, want %v", name, each.Expires.Sub(each.RefreshAt), before)
			}
		}
	}
}

// Ages are right to some milliseconds only; a caller may be quicker.
func testReplaced(t *testing.T, s Shared) {
	k, rejected := keyOf("acme"), issued("rejected", 0, time.Hour)
	must[*token.Token](t)(s.One.Save(t.Context(), k, rejected))
	better := issued("better", 200*time.Millisecond, time.Hour)
	if kept := must[*token.Token](t)(s.Two.Save(t.Context(), k, better)); kept.ID != rejected.ID {
		t.Errorf("an older token that replaces nothing: kept %v", kept)
	}
	better.Replaced = rejected.ID
	if kept := must[*token.Token](t)(s.Two.Save(t.Context(), k, better)); kept.ID != better.ID {
		t.Errorf("the token that replaces it: kept %v", kept)
	}
}

func testLease(t *testing.T, s Shared) {
	k := keyOf("acme")
	lease := func(r Replica, owner string, want bool, when string) {
		t.Helper()
		if acquired := must[bool](t)(r.Lease(t.Context(), k, owner, time.Minute)); acquired != want {
			t.Errorf("%s: acquired %v", when, acquired)
		}
	}
	release := func(r Replica, owner string) {
		t.Helper()
		if err := r.Release(t.Context(), k, owner); err != nil {
			t.Error(err)
		}
	}
	var owners sync.WaitGroup
	var mu sync.Mutex
	holder := map[string]bool{}
	for n := range 16 {
		for _, r := range []Replica{s.One, s.Two} {
			owners.Go(func() {
				owner := fmt.Sprintf("%d of %p", n, r)
				if acquired, err := r.Lease(t.Context(), k, owner, time.Minute); err != nil || acquired {
					mu.Lock()
					defer mu.Unlock()
					holder[owner] = err == nil
				}
			})
		}
	}
	owners.Wait()
	if len(holder) != 1 {
		t.Fatalf("holders: %v", holder)
	}
	for owner := range maps.Keys(holder) {
		lease(s.One, "another", false, "by another")
		lease(s.One, owner, true, "by its owner once more")
		release(s.Two, "another")
		lease(s.Two, "another", false, "after it was released by another")
		release(s.Two, owner)
	}
	lease(s.Two, "another", true, "after it was released")
	release(s.One, "another")
	release(s.One, "another") // Once more does no harm.
	if acquired := must[bool](t)(s.One.Lease(t.Context(), k, "short", 200*time.Millisecond)); !acquired {
		t.Error("not acquired")
	}
	eventually(t, "the lease has ended", func() bool { return must[bool](t)(s.Two.Lease(t.Context(), k, "next", time.Minute)) })
	release(s.One, "short")
	lease(s.One, "short", false, "by who had it before")
}

func testBudget(t *testing.T, s Shared) {
	// A turn every 20 seconds, four at once, of which those who do not wait leave two.
	waits := token.TurnRequest{Cost: 20 * time.Second, Burst: 4, Patience: 30 * time.Second}
	ahead := token.TurnRequest{Cost: 20 * time.Second, Burst: 4, Spare: 2}
	for n, step := range []struct {
		replica  Replica
		endpoint string
		r        token.TurnRequest
		given    bool
		wait     time.Duration
		owed     int
	}{
		{s.One, "us", ahead, true, 0, 1},
		{s.Two, "us", ahead, true, 0, 2},
		{s.One, "us", ahead, false, 20 * time.Second, 2},
		{s.One, "us", waits, true, 0, 3},
		{s.Two, "us", waits, true, 0, 4},
		{s.Two, "us", waits, true, 20 * time.Second, 5}, // A turn to come.
		{s.One, "us", waits, false, 10 * time.Second, 5},
		{s.Two, "us", waits, false, 10 * time.Second, 5}, // What is not given costs nothing.
		{s.Two, "us", ahead, false, 80 * time.Second, 5},
		{s.Two, "au", ahead, true, 0, 1},
	} {
		turn := must[token.Turn](t)(step.replica.Admit(t.Context(), step.endpoint, step.r))
		if turn.Given != step.given || !near(turn.Wait, step.wait) || turn.Owed != step.owed || turn.Buyers < 1 {
			t.Errorf("step %d: %+v", n, turn)
		}
	}
	quick := token.TurnRequest{Cost: 50 * time.Millisecond, Burst: 1}
	must[token.Turn](t)(s.One.Admit(t.Context(), "uk", quick))
	eventually(t, "the turn is paid back", func() bool { return must[token.Turn](t)(s.Two.Admit(t.Context(), "uk", quick)).Given })
}

func testEnded(t *testing.T, s Shared) {
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	k := keyOf("acme")
	_, _, loaded := s.One.Load(ctx, k)
	_, saved := s.One.Save(ctx, k, issued("a", 0, time.Hour))
	_, leased := s.One.Lease(ctx, k, "owner", time.Minute)
	_, admitted := s.One.Admit(ctx, "us", token.TurnRequest{Cost: time.Second, Burst: 1})
	_, found := s.One.Tenant(ctx, "acme")
	for name, err := range map[string]error{"Load": loaded, "Save": saved, "Lease": leased, "Admit": admitted, "Tenant": found} {
		if err == nil || errors.Is(err, tenant.ErrNotFound) {
			t.Errorf("%s: %v", name, err)
		}
	}
}

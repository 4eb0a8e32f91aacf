package brokertest

import (
	"slices"
	"testing"
	"time"

	"smokeball.internal/tokenbroker/internal/tenant"
	"smokeball.internal/tokenbroker/internal/token"
)

// overview returns what is kept of one key, and how many exchanges are counted
// for it, all of which were made in the hour under way, or the one before.
func overview(t *testing.T, r Replica, k token.Key) (token.Kept, token.Exchanges) {
	t.Helper()
	all := must[[]token.Kept](t)(r.LoadAll(t.Context(), []token.Key{keyOf("nobody"), k}))
	if len(all) != 2 || all[0] != (token.Kept{}) {
		t.Fatalf("of nobody's key and another: %+v", all)
	}
	last := all[1].History[token.HistoryHours-2:]
	lately := token.Exchanges{OK: last[0].OK + last[1].OK, Failed: last[0].Failed + last[1].Failed}
	if sum := all[1].History.Sum(); sum != lately {
		t.Errorf("%+v are counted in all, %+v lately", sum, lately)
	}
	return all[1], lately
}

func testOverview(t *testing.T, s Shared) {
	if all := must[[]token.Kept](t)(s.One.LoadAll(t.Context(), nil)); len(all) != 0 {
		t.Errorf("of no key: %+v", all)
	}
	k := keyOf("acme")
	save := func(tok *token.Token) { t.Helper(); must[*token.Token](t)(s.One.Save(t.Context(), k, tok)) }
	for _, step := range []struct {
		what  string
		do    func()
		token string
		fails bool
		want  token.Exchanges
	}{
		{"nothing yet", func() {}, "", false, token.Exchanges{}},
		{"a token", func() { save(issued("a", time.Second, time.Hour)) }, "a", false, token.Exchanges{OK: 1}},
		{"the same once more", func() { save(issued("a", 0, time.Hour)) }, "a", false, token.Exchanges{OK: 1}},
		{"the next", func() { save(issued("b", 0, time.Hour)) }, "b", false, token.Exchanges{OK: 2}},
		{"a failure", func() {
			f := &token.Failure{Class: token.Throttled, Message: "slow down", RetryAt: time.Now().Add(time.Minute)}
			if err := s.One.SaveFailure(t.Context(), k, f); err != nil {
				t.Fatal(err)
			}
		}, "b", true, token.Exchanges{OK: 2, Failed: 1}},
		{"a token again", func() { save(issued("c", 0, time.Hour)) }, "c", false, token.Exchanges{OK: 3, Failed: 1}},
	} {
		step.do()
		kept, counted := overview(t, s.Two, k)
		id := ""
		if step.token != "" {
			id = issued(step.token, 0, time.Hour).ID
		}
		if got := kept.Token; (got == nil) != (id == "") || got != nil && (got.ID != id || !near(got.Lifetime(), time.Hour)) {
			t.Errorf("%s: %+v", step.what, got)
		}
		if got := kept.Failure; (got != nil) != step.fails || got != nil && (got.Message != "slow down" || !near(time.Until(got.RetryAt), time.Minute)) {
			t.Errorf("%s: failure %+v", step.what, got)
		}
		if counted != step.want {
			t.Errorf("%s: %+v exchanges, want %+v", step.what, counted, step.want)
		}
	}
	// A replica gives a token back to a store that has lost it.
	k = keyOf("globex")
	save(issued("d", 10*time.Minute, time.Hour))
	if kept, counted := overview(t, s.Two, k); kept.Token == nil || counted != (token.Exchanges{}) {
		t.Errorf("a token that was given back: %+v, %+v exchanges", kept.Token, counted)
	}
}

func testSearch(t *testing.T, s Shared) {
	for _, id := range []string{"smith-law", "jones", "lawson", "law", "a-law", "outlaws"} {
		must[*tenant.Tenant](t)(s.One.CreateTenant(t.Context(), tenantOf(id, false)))
	}
	for _, test := range []struct {
		part, after string
		limit       int
		want        []string
		next        string
	}{
		{"law", "", 2, []string{"a-law", "law"}, "law"},
		{"law", "law", 2, []string{"lawson", "outlaws"}, "outlaws"},
		{"law", "outlaws", 2, []string{"smith-law"}, ""},
		{"law", "", 5, []string{"a-law", "law", "lawson", "outlaws", "smith-law"}, ""},
		{"on", "", 5, []string{"jones", "lawson"}, ""},
		{"*", "", 5, nil, ""},
		{"jones-", "", 5, nil, ""},
		{"", "smith", 5, []string{"smith-law"}, ""},
	} {
		tenants, next, err := s.Two.FindTenants(t.Context(), test.part, test.after, test.limit)
		var ids []string
		for _, each := range tenants {
			ids = append(ids, each.ID)
		}
		if err != nil || !slices.Equal(ids, test.want) || next != test.next {
			t.Errorf("%q behind %q: %q, next %q, error %v", test.part, test.after, ids, next, err)
		}
	}
}

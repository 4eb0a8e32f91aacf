package access_test

import (
	"fmt"
	"slices"
	"strings"
	"sync"
	"testing"

	"smokeball.internal/tokenbroker/internal/access"
)

// Roles and what they give, as they are promised.
var gives = map[string][]string{
	"token.reader":  {"GetToken", "RefreshToken", "WatchToken"},
	"tenant.viewer": {"GetTenant", "ListTenants"},
	"tenant.admin":  {"CreateTenant", "GetTenant", "ListTenants", "UpdateTenant", "DeleteTenant", "RotateClientSecret", "CheckTenant"},
}

func TestARoleGivesItsMethodsAndNoOthers(t *testing.T) {
	asked := append(access.Methods(), "", "*", "gettoken", "/tokenbroker.v1.TokenService/GetToken", "Check")
	for role, methods := range gives {
		g := parse(t, "rules:\n- {principals: [jwt:a], roles: ["+role+"], tenants: ['*']}").Grants([]string{"jwt:a"})
		for _, method := range asked {
			want := access.Decision{Reason: access.NoRole}
			if slices.Contains(methods, method) {
				want = access.Decision{Verdict: access.Allowed, Rule: "line 2"}
			}
			if d := g.Decide(access.Query{Method: method, Tenant: "acme"}); d != want {
				t.Errorf("%s, %s: %v, want %v", role, method, d, want)
			}
		}
		if g.MayList() != slices.Contains(methods, "ListTenants") {
			t.Errorf("%s: MayList is %v", role, g.MayList())
		}
	}
}

func TestDecisions(t *testing.T) {
	p := parse(t, `rules:
- principals: [jwt:a]
  roles: [token.reader]
  tenants: [acme]
  scopes: [matters/read, "contacts/*"]
- name: labelled
  principals: [jwt:a, jwt:b]
  roles: [token.reader]
  tenants: [acme, "globex-*"]
  labels: {team: x, tier: "1"}
  scopes: [matters/read]
- name: admin
  principals: [jwt:b]
  roles: [tenant.admin]
  labels: {team: x}
- name: own
  principals: [jwt:b]
  roles: [tenant.admin]
  tenants: ["new-*"]
`)
	x1, x2 := map[string]string{"team": "x", "tier": "1", "more": "y"}, map[string]string{"team": "x", "tier": "2"}
	read, write := []string{"matters/read"}, []string{"matters/read", "matters/write"}
	all := []string{"contacts/write", "matters/read", "contacts/read"}
	allowed := func(rule string) access.Decision { return access.Decision{Verdict: access.Allowed, Rule: rule} }
	byLabels := func(rule string) access.Decision {
		return access.Decision{Verdict: access.ByLabels, Rule: rule, Reason: access.NoLabels}
	}
	denied := func(reason access.Reason, rule string) access.Decision {
		return access.Decision{Rule: rule, Reason: reason}
	}
	scopes := func(rule string) access.Decision {
		return access.Decision{Verdict: access.ScopeDenied, Rule: rule, Reason: access.NoScopes}
	}
	for _, c := range []struct {
		name, method, tenant string
		scopes               []string
		decide               access.Decision
		labels               map[string]string
		decideFor            access.Decision
	}{
		{"jwt:a", "GetToken", "acme", read, allowed("line 2"), nil, allowed("line 2")},
		{"jwt:a", "WatchToken", "acme", all, allowed("line 2"), nil, allowed("line 2")},
		{"jwt:a", "RefreshToken", "acme", write, scopes("line 2"), nil, scopes("line 2")},
		{"jwt:a", "GetToken", "acme", nil, scopes("line 2"), x1, scopes("line 2")},
		{"jwt:a", "GetToken", "acme", []string{}, scopes("line 2"), nil, scopes("line 2")},
		{"jwt:a", "GetToken", "globex-us", read, byLabels("labelled"), x1, allowed("labelled")},
		{"jwt:a", "GetToken", "globex-us", read, byLabels("labelled"), x2, denied(access.NoLabels, "labelled")},
		{"jwt:a", "GetToken", "globex-us", read, byLabels("labelled"), nil, denied(access.NoLabels, "labelled")},
		{"jwt:a", "GetToken", "globex-us", write, denied(access.NoScopes, "labelled"), x1, scopes("labelled")},
		{"jwt:a", "GetToken", "globex-us", nil, denied(access.NoScopes, "labelled"), x2, denied(access.NoLabels, "labelled")},
		{"jwt:a", "GetToken", "globex", read, denied(access.NoTenant, ""), x1, denied(access.NoTenant, "")},
		{"jwt:a", "GetToken", "", read, denied(access.NoTenant, ""), x1, denied(access.NoTenant, "")},
		{"jwt:a", "GetTenant", "acme", nil, denied(access.NoRole, ""), x1, denied(access.NoRole, "")},
		{"jwt:b", "GetToken", "acme", read, byLabels("labelled"), x1, allowed("labelled")},
		// Rules do not add up: labels of one, method of the other.
		{"jwt:b", "GetToken", "initech", read, denied(access.NoTenant, ""), x1, denied(access.NoTenant, "")},
		{"jwt:b", "UpdateTenant", "initech", nil, byLabels("admin"), x2, allowed("admin")},
		{"jwt:b", "UpdateTenant", "initech", nil, byLabels("admin"), nil, denied(access.NoLabels, "admin")},
		{"jwt:b", "UpdateTenant", "Initech", nil, denied(access.NoTenant, ""), x2, denied(access.NoTenant, "")},
		{"jwt:b", "CreateTenant", "initech", nil, denied(access.NoTenant, ""), x1, denied(access.NoTenant, "")},
		{"jwt:b", "CreateTenant", "new-1", nil, allowed("own"), x1, allowed("own")},
		// The first in the file is named.
		{"jwt:b", "GetTenant", "new-1", nil, allowed("own"), x1, allowed("admin")},
		{"jwt:b", "ListTenants", "", nil, allowed("admin"), nil, allowed("admin")},
		{"jwt:c", "GetToken", "acme", read, denied(access.NoRule, ""), x1, denied(access.NoRule, "")},
	} {
		g := p.Grants([]string{"dns:other", c.name})
		q := access.Query{Method: c.method, Tenant: c.tenant, Scopes: c.scopes}
		if d := g.Decide(q); d != c.decide {
			t.Errorf("%s %v: %v, want %v", c.name, q, d, c.decide)
		}
		if d := g.DecideFor(q, c.labels); d != c.decideFor {
			t.Errorf("%s %v of a tenant with %v: %v, want %v", c.name, q, c.labels, d, c.decideFor)
		}
	}
}

func TestTheFirstRuleOfTheFileIsNamedHoweverItNamesTheTenant(t *testing.T) {
	lines := []string{
		"- {principals: [jwt:a], roles: [token.reader], tenants: [other, acme, acme]}",
		"- {principals: [jwt:a], roles: [token.reader], tenants: ['a*']}",
		"- {principals: [jwt:a], roles: [token.reader], tenants: ['*', acme]}",
	}
	for _, order := range [][]int{{0, 1, 2}, {0, 2, 1}, {1, 0, 2}, {1, 2, 0}, {2, 0, 1}, {2, 1, 0}} {
		content := "rules:"
		for _, n := range order {
			content += "\n" + lines[n]
		}
		g := parse(t, content).Grants([]string{"jwt:a"})
		if d := g.Decide(access.Query{Method: "GetToken", Tenant: "acme"}); d.Rule != "line 2" {
			t.Errorf("%v: %v", order, d)
		}
	}
}

func TestACallerHasWhatEachOfItsNamesHas(t *testing.T) {
	p := parse(t, `rules:
- {principals: [jwt:a], roles: [token.reader], tenants: [acme]}
- {principals: [dns:b], roles: [tenant.viewer], tenants: [globex]}
`)
	token, tenant := access.Query{Method: "GetToken", Tenant: "acme"}, access.Query{Method: "GetTenant", Tenant: "globex"}
	for _, c := range []struct {
		names         []string
		token, tenant bool
	}{
		{[]string{"jwt:a"}, true, false},
		{[]string{"dns:b"}, false, true},
		{[]string{"dns:b", "jwt:a"}, true, true},
		{[]string{"jwt:b", "dns:a"}, false, false},
		{[]string{"jwt:a "}, false, false},
		{[]string{"jwt:a\x00"}, false, false},
	} {
		g := p.Grants(c.names)
		if got := g.Decide(token).Verdict == access.Allowed; got != c.token {
			t.Errorf("%q: tokens %v", c.names, got)
		}
		if got := g.Decide(tenant).Verdict == access.Allowed; got != c.tenant {
			t.Errorf("%q: tenants %v", c.names, got)
		}
		if g.Any() != (c.token || c.tenant) {
			t.Errorf("%q: any %v", c.names, g.Any())
		}
	}
}

func TestWithoutAFileEverybodyMayDoEverything(t *testing.T) {
	for _, names := range [][]string{nil, {"jwt:a"}, {"nonsense"}} {
		g := access.Everything().Grants(names)
		if !g.Any() || !g.MayList() {
			t.Errorf("%q: not everything", names)
		}
		for _, method := range access.Methods() {
			for _, id := range []string{"acme", "", "Not an id"} { // That is for the API to refuse.
				if d := g.Decide(access.Query{Method: method, Tenant: id}); d != (access.Decision{Verdict: access.Allowed, Rule: "insecure"}) {
					t.Errorf("%q, %s: %v", names, method, d)
				}
			}
		}
	}
}

func TestVerdictsAndReasonsHaveNames(t *testing.T) {
	for v, want := range map[fmt.Stringer]string{
		access.Denied: "denied", access.Allowed: "allowed", access.ByLabels: "by_labels", access.ScopeDenied: "scope_denied", access.Verdict(99): "denied",
		access.NoReason: "", access.NoRule: "no_rule", access.NoRole: "no_role", access.NoTenant: "no_tenant", access.NoLabels: "no_labels",
		access.NoScopes: "no_scopes", access.Reason(99): "",
	} {
		if v.String() != want {
			t.Errorf("%q, want %q", v, want)
		}
	}
	if (access.Decision{}).Verdict != access.Denied {
		t.Error("the zero decision does not deny")
	}
}

func TestManyAskAtOnce(t *testing.T) {
	p := manyTenants(t, 100)
	g := p.Grants([]string{"jwt:a"})
	var all sync.WaitGroup
	for range 8 {
		all.Go(func() {
			for i := range 100 {
				if d := g.Decide(access.Query{Method: "GetToken", Tenant: fmt.Sprint("firm-", i)}); d.Verdict != access.Allowed {
					t.Error(d)
				}
				_ = p.Grants([]string{"jwt:b"}).Any()
			}
		})
	}
	all.Wait()
}

// manyTenants is a policy that names n tenants of jwt:a in rules of their own.
func manyTenants(t testing.TB, n int) *access.Policy {
	content := strings.Builder{}
	content.WriteString("rules:\n")
	for i := range n {
		fmt.Fprintf(&content, "- {principals: [jwt:a], roles: [token.reader], tenants: [firm-%d]}\n", i)
	}
	return parse(t, content.String())
}

// handful is a caller with rules of every kind.
func handful(t testing.TB) *access.Grants {
	return parse(t, `rules:
- {principals: ["jwt:*"], roles: [tenant.viewer], tenants: ["*"]}
- {principals: [jwt:a], roles: [token.reader], tenants: [initech, umbrella], scopes: [matters/read]}
- {principals: [jwt:a], roles: [token.reader], tenants: ["globex-*"], scopes: [matters/read, "contacts/*"]}
- {principals: [jwt:a], roles: [token.reader], labels: {team: billing}}
- {principals: [jwt:a], roles: [token.reader], tenants: [acme, "acme-*"]}
`).Grants([]string{"jwt:a"})
}

var queries = map[string]access.Query{
	"id":      {Method: "GetToken", Tenant: "acme"},
	"pattern": {Method: "GetToken", Tenant: "acme-us"},
	"scopes":  {Method: "GetToken", Tenant: "globex-us", Scopes: []string{"contacts/write", "matters/read"}},
	"labels":  {Method: "GetToken", Tenant: "other"},
	"denied":  {Method: "CreateTenant", Tenant: "acme"},
	"list":    {Method: "ListTenants"},
}

func TestADecisionAllocatesNothing(t *testing.T) {
	few, labels := handful(t), map[string]string{"team": "billing"}
	many := manyTenants(t, 1000).Grants([]string{"jwt:a"})
	for name, q := range queries {
		for _, g := range []*access.Grants{few, many, access.Everything().Grants(nil)} {
			if n := testing.AllocsPerRun(100, func() { g.Decide(q); g.DecideFor(q, labels) }); n != 0 {
				t.Errorf("%s: %v allocations", name, n)
			}
		}
	}
}

func BenchmarkDecide(b *testing.B) {
	few := handful(b)
	for name, q := range queries {
		b.Run(name, func(b *testing.B) {
			b.ReportAllocs()
			for b.Loop() {
				few.Decide(q)
			}
		})
	}
	many := manyTenants(b, 1000).Grants([]string{"jwt:a"})
	b.Run("one of 1000", func(b *testing.B) {
		b.ReportAllocs()
		for b.Loop() {
			many.Decide(access.Query{Method: "GetToken", Tenant: "firm-777"})
		}
	})
	b.Run("none of 1000", func(b *testing.B) {
		b.ReportAllocs()
		for b.Loop() {
			many.Decide(access.Query{Method: "GetToken", Tenant: "other"})
		}
	})
}

func BenchmarkGrants(b *testing.B) {
	p := manyTenants(b, 10_000)
	for b.Loop() {
		p.Grants([]string{"jwt:b", "dns:b"})
	}
}

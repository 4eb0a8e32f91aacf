package access_test

import (
	"fmt"
	"strings"
	"testing"

	"smokeball.internal/tokenbroker/internal/access"
)

const explained = `rules:
- name: billing
  principals: ["dns:billing.*"]
  roles: [token.reader]
  tenants: [acme, "globex-*"]
  labels: {team: billing, tier: "1"}
  scopes: [matters/read, "contacts/*"]
- principals: [dns:billing.a]
  roles: [tenant.viewer, tenant.admin]
  labels: {team: other}
- principals: [dns:billing.a]
  roles: [token.reader]
  tenants: [acme]
  scopes: [matters/write]
`

func TestAnExplanationSaysWhichRuleOrWhatEachLacks(t *testing.T) {
	p := parse(t, explained)
	const first, second, third = `rule "billing" (access.yaml:2): `, "the rule in access.yaml:8: ", "the rule in access.yaml:11: "
	billing := map[string]string{"team": "billing", "tier": "1"}
	for _, c := range []struct {
		name, method, tenant, scopes string
		labels                       map[string]string
		verdict                      access.Verdict
		want                         string
	}{
		{"dns:other", "GetToken", "acme", "", nil, access.Denied, "denied: no rule is for this principal"},
		{"dns:BILLING.b", "GetToken", "acme", "matters/read", billing, access.Allowed, `allowed by rule "billing" (access.yaml:2)`},
		{"dns:billing.a", "GetToken", "acme", "matters/write", nil, access.Allowed, "allowed by the rule in access.yaml:11"},
		{"dns:billing.a", "ListTenants", "", "", nil, access.Allowed, "allowed by the rule in access.yaml:8"},
		{"dns:billing.b", "GetToken", "globex-us", "matters/read", nil, access.ByLabels, "not known: it depends on the tenant's labels\n  " +
			first + "allowed if the tenant has labels team=billing and tier=1"},
		{"dns:billing.a", "GetToken", "acme", "matters/read", map[string]string{}, access.ScopeDenied, "denied\n  " +
			third + "not among the scopes matters/write: matters/read\n  " +
			first + "the tenant would need labels team=billing and tier=1\n  " +
			second + "GetToken is no method of tenant.viewer and tenant.admin"},
		{"dns:billing.b", "GetToken", "acme", "matters/read matters/write openid", billing, access.ScopeDenied, "denied\n  " +
			first + "not among the scopes matters/read and contacts/*: matters/write and openid"},
		{"dns:billing.b", "GetToken", "acme", "", nil, access.Denied, "denied\n  " + first + "the request must name its scopes, all of them among matters/read and contacts/*"},
		{"dns:billing.a", "GetToken", "initech", "matters/write", nil, access.Denied, "denied\n  " +
			first + "it is for acme and globex-*\n  " + third + "it is for acme\n  " + second + "GetToken is no method of tenant.viewer and tenant.admin"},
		{"dns:billing.a", "CreateTenant", "acme", "", billing, access.Denied, "denied\n  " +
			first + "CreateTenant is no method of token.reader\n  " + second + "a rule with labels does not give CreateTenant\n  " +
			third + "CreateTenant is no method of token.reader"},
	} {
		q := access.Query{Method: c.method, Tenant: c.tenant, Scopes: strings.Fields(c.scopes)}
		d, text, err := p.Explain(c.name, q, c.labels)
		if err != nil || d.Verdict != c.verdict || text != c.want {
			t.Errorf("%s %v, labels %v: %v, %v\n%s\nwant %v\n%s", c.name, q, c.labels, err, d, text, c.verdict, c.want)
		}
	}
	if d, text, err := access.Everything().Explain("dns:a", access.Query{Method: "GetToken", Tenant: "acme"}, nil); err != nil || d.Verdict != access.Allowed || text != "allowed: everything is" {
		t.Errorf("insecure: %v, %q, %v", d, text, err)
	}
}

func TestAQuestionThatNoRequestCanAskIsRefused(t *testing.T) {
	p := parse(t, explained)
	for _, c := range []struct{ name, method, tenant, scope, want string }{
		{"billing.a", "GetToken", "acme", "", `principal "billing.a" must begin with dns:, jwt:, subject: or spiffe://`},
		{"dns:billing.*", "GetToken", "acme", "", `principal "dns:billing.*" must be the name of one caller, without *`},
		{"dns:a", "getToken", "acme", "", `method "getToken" is none of ` + strings.Join(access.Methods(), ", ")},
		{"dns:a", "GetToken", "", "", `tenant "": want the id of one tenant`},
		{"dns:a", "GetToken", "globex-*", "", `tenant "globex-*": want the id of one tenant`},
		{"dns:a", "ListTenants", "acme", "", "ListTenants is about no tenant: the caller sees those of which it may GetTenant"},
		{"dns:a", "GetTenant", "acme", "a/read", "GetTenant has no scopes"},
		{"dns:a", "GetToken", "acme", "a b", `scope "a b" is none`},
	} {
		q := access.Query{Method: c.method, Tenant: c.tenant}
		if c.scope != "" {
			q.Scopes = []string{c.scope}
		}
		if _, text, err := p.Explain(c.name, q, nil); err == nil || err.Error() != c.want || text != "" {
			t.Errorf("%s %v: %v, %q; want %s", c.name, q, err, text, c.want)
		}
	}
}

func TestAnExplanationIsNotEndless(t *testing.T) {
	_, text, err := manyTenants(t, 1000).Explain("jwt:a", access.Query{Method: "GetToken", Tenant: "other"}, nil)
	if lines := strings.Split(text, "\n"); err != nil || len(lines) != 22 || lines[21] != "  and by 980 more rules for this principal" {
		t.Errorf("%v\n%s", err, text)
	}
	var ids []string
	for i := range 1000 {
		ids = append(ids, fmt.Sprint("firm-", i))
	}
	p := parse(t, "rules:\n- {principals: [jwt:a], roles: [token.reader], tenants: ["+strings.Join(ids, ", ")+"]}")
	_, text, err = p.Explain("jwt:a", access.Query{Method: "GetToken", Tenant: "other"}, nil)
	if err != nil || !strings.HasSuffix(text, "it is for firm-0, firm-1, firm-2, firm-3, firm-4, firm-5, firm-6, firm-7, firm-8, firm-9 and 990 more") {
		t.Errorf("%v\n%s", err, text)
	}
	if said := p.ReadAloud()[0]; !strings.HasSuffix(said, "firm-998 and firm-999.") {
		t.Errorf("not all of it is read: %s", said)
	}
}

func TestRulesAreReadAloud(t *testing.T) {
	got := strings.Join(parse(t, explained+`- name: all
  principals: [jwt:a, jwt:b, jwt:c]
  roles: [token.reader]
  tenants: ["*"]
limits:
- {principals: [jwt:a], calls_per_second: 0.5}
`).ReadAloud(), "\n")
	want := `access.yaml:2: "billing": dns:billing.* may get, refresh and watch tokens of acme and globex-*, if labelled team=billing and tier=1, and must name scopes, all of them among matters/read and contacts/*.
access.yaml:8: dns:billing.a may view and administer every tenant, if labelled team=other (but create none).
access.yaml:11: dns:billing.a may get, refresh and watch tokens of acme, and must name scopes, all of them among matters/write.
access.yaml:15: "all": jwt:a, jwt:b and jwt:c may get, refresh and watch tokens of every tenant.
access.yaml:20: jwt:a may make 0.5 calls a second and 60 refreshes a minute, and have 5000 calls and 1000 connections open.
Nobody else may do anything.`
	if got != want {
		t.Errorf("says\n%s\nwant\n%s", got, want)
	}
	if got := parse(t, "").ReadAloud(); len(got) != 1 || got[0] != "Nobody may do anything." {
		t.Errorf("of an empty file: %q", got)
	}
	if got := access.Everything().ReadAloud(); len(got) != 1 || got[0] != "Everybody may do everything." {
		t.Errorf("insecure: %q", got)
	}
}

package access_test

import (
	"fmt"
	"math/rand/v2"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"testing"

	"smokeball.internal/tokenbroker/internal/access"
)

// words is a rule as a person reads it.
type words struct {
	principals, roles, tenants, scopes []string
	labels                             map[string]string
}

// yaml returns the rule as a file has it, in one line.
func (w words) yaml() string {
	list := func(values []string) string { return `["` + strings.Join(values, `", "`) + `"]` }
	var labels []string
	for key, value := range w.labels {
		labels = append(labels, key+": "+value)
	}
	fields := []string{"principals: " + list(w.principals), "roles: " + list(w.roles)}
	if w.tenants != nil {
		fields = append(fields, "tenants: "+list(w.tenants))
	}
	if w.labels != nil {
		fields = append(fields, "labels: {"+strings.Join(labels, ", ")+"}")
	}
	if w.scopes != nil {
		fields = append(fields, "scopes: "+list(w.scopes))
	}
	return "- {" + strings.Join(fields, ", ") + "}\n"
}

// allow says whether the rule allows a request, word by word.
func (w words) allow(names []string, q access.Query, labels map[string]string) bool {
	stands := func(place int, patterns []string, name string) bool {
		return slices.ContainsFunc(patterns, func(p string) bool { return reference(place, p, name) })
	}
	if !slices.ContainsFunc(names, func(name string) bool { return stands(forPrincipals, w.principals, name) }) ||
		!slices.ContainsFunc(w.roles, func(role string) bool { return slices.Contains(gives[role], q.Method) }) {
		return false
	}
	if q.Method == "ListTenants" {
		return true
	}
	if w.tenants != nil && !stands(forTenants, w.tenants, q.Tenant) || !reference(forTenants, "*", q.Tenant) {
		return false
	}
	if w.labels != nil && q.Method == "CreateTenant" {
		return false
	}
	for key, value := range w.labels {
		if had, ok := labels[key]; !ok || had != value {
			return false
		}
	}
	return w.scopes == nil || len(q.Scopes) > 0 && !slices.ContainsFunc(q.Scopes, func(s string) bool { return !stands(forScopes, w.scopes, s) })
}

var (
	somePrincipals = []string{"spiffe://a/ns/x/sa/y", "spiffe://a/ns/*/sa/y", "spiffe://a/**", "spiffe://b/ns/x*/**", "dns:a.b", "dns:*.b", "dns:A*.B", "jwt:a", "jwt:*", "jwt:a:*", "subject:CN=a,O=b"}
	someNames      = []string{"spiffe://a/ns/x/sa/y", "spiffe://a/ns/z/sa/y", "spiffe://b/ns/xy/z", "spiffe://b/ns", "dns:a.b", "dns:AB.b", "dns:a.b.c", "jwt:a", "jwt:b", "jwt:a:b", "subject:CN=a,O=b", "a", "*"}
	someTenants    = []string{"*", "acme", "globex", "globex-*", "*-us", "g*-u*", "umbrella"}
	someIDs        = []string{"acme", "globex", "globex-us", "globex-uk", "acme-us", "umbrella", "initech", "", "*", "Acme"}
	someScopes     = []string{"m/read", "m/*", "*/read", "*/*", "m/w*e", "openid"}
	askedScopes    = []string{"m/read", "m/write", "c/read", "openid", "m/x/read", "m/read openid"}
)

// some returns one to n of the values.
func some(random *rand.Rand, n int, values []string) (chosen []string) {
	for range 1 + random.IntN(n) {
		chosen = append(chosen, values[random.IntN(len(values))])
	}
	return chosen
}

func someLabels(random *rand.Rand) map[string]string {
	labels := map[string]string{}
	for range 1 + random.IntN(2) {
		labels[[]string{"team", "tier"}[random.IntN(2)]] = []string{"x", "y"}[random.IntN(2)]
	}
	return labels
}

func someRule(random *rand.Rand) words {
	w := words{principals: some(random, 3, somePrincipals), roles: some(random, 2, []string{"token.reader", "tenant.viewer", "tenant.admin"})}
	kind := random.IntN(3)
	if kind != 0 {
		w.tenants = some(random, 3, someTenants)
	}
	if kind != 1 {
		w.labels = someLabels(random)
	}
	if random.IntN(2) == 0 {
		w.roles, w.scopes = []string{"token.reader"}, some(random, 2, someScopes)
	}
	return w
}

func TestAPolicyAllowsWhatItsWordsSayAndNothingElse(t *testing.T) {
	random := rand.New(rand.NewPCG(1, 2))
	seen := map[access.Verdict]int{}
	for range 500 {
		var rules []words
		content := "rules:\n"
		for range 1 + random.IntN(5) {
			rules = append(rules, someRule(random))
			content += rules[len(rules)-1].yaml()
		}
		p, names := parse(t, content), some(random, 2, someNames)
		g := p.Grants(names)
		for range 20 {
			q := access.Query{Method: access.Methods()[random.IntN(len(access.Methods()))], Tenant: someIDs[random.IntN(len(someIDs))]}
			if random.IntN(3) > 0 && strings.HasSuffix(q.Method, "Token") {
				q.Scopes = some(random, 3, askedScopes)
			}
			labels := someLabels(random)
			first := ""
			for i, w := range rules {
				if w.allow(names, q, labels) {
					first = "line " + strconv.Itoa(i+2)
					break
				}
			}
			decided := g.DecideFor(q, labels)
			if allowed := decided.Verdict == access.Allowed; allowed != (first != "") || allowed && decided.Rule != first {
				t.Fatalf("%q, %v, labels %v: %v, want %q of\n%s", names, q, labels, decided, first, content)
			}
			// Without labels: allowed only if it is whatever they are, and by labels only if some would do.
			blind := g.Decide(q)
			seen[blind.Verdict]++
			want := access.Denied
			if possible(rules, names, q) {
				want = access.ByLabels
			}
			if slices.ContainsFunc(rules, func(w words) bool {
				return (w.labels == nil || q.Method == "ListTenants") && w.allow(names, q, nil)
			}) {
				want = access.Allowed
			}
			if got := blind.Verdict; got != want && !(got == access.ScopeDenied && want == access.Denied) {
				t.Fatalf("%q, %v: %v, want %v of\n%s", names, q, blind, want, content)
			}
			if got := decided.Verdict; got == access.ByLabels || got == access.ScopeDenied && !allowedForSomeScope(rules, names, q, labels) {
				t.Fatalf("%q, %v, labels %v: %v of\n%s", names, q, labels, decided, content)
			}
			wantExplained(t, p, names, q, labels)
		}
	}
	for _, v := range []access.Verdict{access.Denied, access.ScopeDenied, access.ByLabels, access.Allowed} {
		if seen[v] < 100 {
			t.Errorf("only %d were %v", seen[v], v)
		}
	}
}

// possible says whether a rule allows a request for some labels.
func possible(rules []words, names []string, q access.Query) bool {
	return slices.ContainsFunc(rules, func(w words) bool { return w.allow(names, q, w.labels) })
}

// allowedForSomeScope says whether what is wrong with a request are its scopes.
func allowedForSomeScope(rules []words, names []string, q access.Query, labels map[string]string) bool {
	return slices.ContainsFunc(rules, func(w words) bool {
		w.scopes = nil
		return w.allow(names, q, labels)
	})
}

// wantExplained compares an explanation with the decision.
func wantExplained(t *testing.T, p *access.Policy, names []string, q access.Query, labels map[string]string) {
	t.Helper()
	for _, known := range []map[string]string{nil, labels} {
		d, text, err := p.Explain(names[0], q, known)
		if err != nil {
			continue
		}
		g := p.Grants(names[:1])
		want := g.Decide(q)
		if known != nil {
			want = g.DecideFor(q, known)
		}
		begins := map[access.Verdict]string{access.Allowed: "allowed by the rule in access.yaml:" + strings.TrimPrefix(d.Rule, "line "), access.Denied: "denied",
			access.ScopeDenied: "denied", access.ByLabels: "not known: it depends on the tenant's labels\n  the rule in access.yaml:" + strings.TrimPrefix(d.Rule, "line ")}[want.Verdict]
		if d != want || !strings.HasPrefix(text, begins) {
			t.Fatalf("%s, %v, labels %v: explained as %v\n%s\ndecided as %v", names[0], q, known, d, text, want)
		}
	}
}

// FuzzPolicy reads whatever may be in a file.
func FuzzPolicy(f *testing.F) {
	random := rand.New(rand.NewPCG(1, 2))
	for range 5 {
		f.Add([]byte("rules:\n" + someRule(random).yaml() + "limits:\n- {principals: ['jwt:*'], calls_per_second: 1.5}"))
	}
	f.Add([]byte(strings.Join(good, "\n")))
	f.Add([]byte("rules:\n- name: &a b\n  tenants: [*a, *-b]"))
	f.Add([]byte("- a\n b\n? [a]\n: !!x b\n---\n"))
	problem := regexp.MustCompile(`^a:([0-9]+): [^\n]+$`)
	f.Fuzz(func(t *testing.T, content []byte) {
		p, err := access.ParsePolicy("a", content)
		if (p == nil) == (err == nil) {
			t.Fatalf("policy %v, error %v", p, err)
		}
		if err != nil {
			lines := strings.Split(err.Error(), "\n")
			for i, line := range lines {
				said := problem.FindStringSubmatch(line)
				if said == nil && !(i == 20 && strings.HasSuffix(line, " more errors")) {
					t.Errorf("no line in %q", line)
				} else if said != nil {
					if n, _ := strconv.Atoi(said[1]); n < 1 || n > 2+strings.Count(string(content), "\n") {
						t.Errorf("there is no such line: %q", line)
					}
				}
			}
			return
		}
		for _, said := range p.ReadAloud() {
			if strings.ContainsAny(said, "\r\n") {
				t.Errorf("not in one line: %q", said)
			}
		}
		for _, name := range someNames {
			g := p.Grants([]string{name})
			if l := g.Limits(); l.CallsPerSecond <= 0 || l.RefreshesPerMinute <= 0 || l.OpenCalls <= 0 || l.Connections <= 0 {
				t.Errorf("%s: limits %+v", name, l)
			}
			for _, method := range access.Methods() {
				for _, id := range someIDs {
					q := access.Query{Method: method, Tenant: id, Scopes: askedScopes[:len(id)%3]}
					if d := g.DecideFor(q, nil); d.Verdict == access.Allowed && !g.Any() {
						t.Errorf("%s %v: %v, and no rule is for them", name, q, d)
					}
					_, _, _ = p.Explain(name, q, nil)
					_ = fmt.Sprint(g.Decide(q))
				}
			}
		}
	})
}

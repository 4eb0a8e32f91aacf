package access

import (
	"errors"
	"fmt"
	"slices"
	"strings"
)

// maxNear is how many rules an explanation tells of.
const maxNear = 20

// Explain decides about a request of a caller with one name, and says in words
// for an operator why: by which rule it is allowed, or what keeps each rule for
// the caller from allowing it, the nearest first. labels are those of the tenant;
// nil: they are not known. The error says which of the parts of the question no
// request has.
func (p *Policy) Explain(name string, q Query, labels map[string]string) (Decision, string, error) {
	caller, err := parseName(name)
	method := methodNamed(q.Method)
	switch {
	case err != nil:
		return Decision{}, "", fmt.Errorf("principal %s %w", quote(name), err)
	case method == 0:
		return Decision{}, "", fmt.Errorf("method %s is none of %s", quote(q.Method), strings.Join(methodNames[:], ", "))
	case method == listTenants && q.Tenant != "":
		return Decision{}, "", errors.New("ListTenants is about no tenant: the caller sees those of which it may GetTenant")
	case method != listTenants && !ValidID(q.Tenant):
		return Decision{}, "", fmt.Errorf("tenant %s: want the id of one tenant", quote(q.Tenant))
	case method&tokenMethods == 0 && len(q.Scopes) > 0:
		return Decision{}, "", fmt.Errorf("%s has no scopes", q.Method)
	}
	for _, s := range q.Scopes {
		if !ValidScope(s) {
			return Decision{}, "", fmt.Errorf("scope %s is none", quote(s))
		}
	}
	g := p.Grants([]string{caller})
	d := g.Decide(q)
	if labels != nil {
		d = g.DecideFor(q, labels)
	}
	return d, p.reasons(caller, method, &q, labels, d), nil
}

// finding is what one rule says to a request.
type finding struct {
	rule     *rule
	decision Decision
	words    string
}

// reasons puts a decision into words.
func (p *Policy) reasons(caller string, method methods, q *Query, labels map[string]string, d Decision) string {
	if p.everything {
		return "allowed: everything is"
	}
	var findings []finding
	for _, r := range p.rules {
		if matchAny(r.principals, caller) {
			f := r.find(method, q, labels)
			if f.decision.Verdict == Allowed {
				return "allowed by " + p.place(r)
			}
			findings = append(findings, f)
		}
	}
	slices.SortStableFunc(findings, func(a, b finding) int {
		switch {
		case a.decision.nearer(b.decision):
			return -1
		case b.decision.nearer(a.decision):
			return 1
		}
		return 0
	})
	var text strings.Builder
	switch {
	case len(findings) == 0:
		return "denied: no rule is for this principal"
	case d.Verdict == ByLabels:
		text.WriteString("not known: it depends on the tenant's labels")
	default:
		text.WriteString("denied")
	}
	for i, f := range findings {
		if i == maxNear {
			fmt.Fprintf(&text, "\n  and by %d more rules for this principal", len(findings)-i)
			break
		}
		fmt.Fprintf(&text, "\n  %s: %s", p.place(f.rule), f.words)
	}
	return text.String()
}

// place names a rule and where it is.
func (p *Policy) place(r *rule) string {
	at := fmt.Sprintf("%s:%d", p.file, r.line)
	if !r.named {
		return "the rule in " + at
	}
	return fmt.Sprintf("rule %q (%s)", r.title, at)
}

// find says what the rule says to a request of one of its principals.
func (r *rule) find(method methods, q *Query, labels map[string]string) finding {
	if r.methods&method == 0 {
		words := fmt.Sprintf("%s is no method of %s", q.Method, texts(r.roles, roleName))
		if method == createTenant && r.methods&updateTenant != 0 {
			words = "a rule with labels does not give CreateTenant"
		}
		return finding{r, Decision{Reason: NoRole}, words}
	}
	if method == listTenants {
		return finding{rule: r, decision: Decision{Verdict: Allowed}}
	}
	if len(r.tenants) > 0 && !matchAny(r.tenants, q.Tenant) {
		return finding{r, Decision{Reason: NoTenant}, "it is for " + texts(r.tenants, patternText)}
	}
	d := r.decide(q.Scopes, labels, labels != nil)
	words := ""
	switch {
	case d.Verdict == ByLabels:
		words = "allowed if the tenant has labels " + texts(r.labels, labelText)
	case d.Reason == NoLabels:
		words = "the tenant would need labels " + texts(r.labels, labelText)
	case len(q.Scopes) == 0:
		words = "the request must name its scopes, all of them among " + texts(r.scopes, patternText)
	default:
		missing := slices.DeleteFunc(slices.Clone(q.Scopes), func(s string) bool { return matchAny(r.scopes, s) })
		words = fmt.Sprintf("not among the scopes %s: %s", texts(r.scopes, patternText), join(missing))
	}
	return finding{r, d, words}
}

func roleName(r role) string       { return r.name }
func patternText(p pattern) string { return p.text }
func labelText(l label) string     { return l.key + "=" + l.value }

// texts joins the texts of some things for people: of very many, the first.
func texts[T any](things []T, text func(T) string) string {
	const most = 10
	words := all(things[:min(most, len(things))], text)
	if more := len(things) - most; more > 0 {
		words = append(words, fmt.Sprintf("%d more", more))
	}
	return join(words)
}

// all returns the texts of things.
func all[T any](things []T, text func(T) string) (words []string) {
	for _, thing := range things {
		words = append(words, text(thing))
	}
	return words
}

// join returns "a, b and c".
func join(words []string) string {
	if len(words) < 2 {
		return strings.Join(words, "")
	}
	last := len(words) - 1
	return strings.Join(words[:last], ", ") + " and " + words[last]
}

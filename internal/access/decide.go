package access

import "math"

// Verdict is what a policy says to a request.
type Verdict int

// The verdicts, from the worst to the best for the caller. Denied is the zero
// value.
const (
	// Denied: no rule allows it.
	Denied Verdict = iota
	// ScopeDenied: a rule gives the method for the tenant, but not for these scopes.
	// That may be said to the caller.
	ScopeDenied
	// ByLabels: a rule allows it if the tenant has certain labels. Ask DecideFor with
	// the labels; a tenant that does not exist has none, and no caller may find out
	// from the answer which of both it was.
	ByLabels
	// Allowed: a rule allows it.
	Allowed
)

// String returns the verdict as it is written to logs.
func (v Verdict) String() string {
	switch v {
	case Allowed:
		return "allowed"
	case ByLabels:
		return "by_labels"
	case ScopeDenied:
		return "scope_denied"
	default:
		return "denied"
	}
}

// Reason says how near a request that was not allowed came to it.
type Reason int

// The reasons, from the farthest to the nearest.
const (
	// NoReason: it is allowed.
	NoReason Reason = iota
	// NoRule: no rule is for the caller.
	NoRule
	// NoRole: no rule for the caller gives the method.
	NoRole
	// NoTenant: rules for the caller give the method, but not for the tenant.
	NoTenant
	// NoLabels: they would for the tenant if it had other labels.
	NoLabels
	// NoScopes: they would for the tenant, but not for the scopes.
	NoScopes
)

// String returns the reason as it is written to logs.
func (r Reason) String() string {
	switch r {
	case NoRule:
		return "no_rule"
	case NoRole:
		return "no_role"
	case NoTenant:
		return "no_tenant"
	case NoLabels:
		return "no_labels"
	case NoScopes:
		return "no_scopes"
	default:
		return ""
	}
}

// Query is a request, as far as rules are about it.
type Query struct {
	// Method is one of Methods.
	Method string
	// Tenant is the tenant's id, without tenants/. ListTenants has none.
	Tenant string
	// Scopes are those that a token is asked for. Empty: all that the tenant has.
	Scopes []string
}

// Decision is what a policy says to a request, and why.
type Decision struct {
	Verdict Verdict
	// Rule is the name of the first rule in the file that says so, or "line 12" if it
	// has none. Empty if no rule comes near.
	Rule string
	// Reason is why it is not allowed.
	Reason Reason
}

// nearer says whether d is nearer to be allowed than other.
func (d Decision) nearer(other Decision) bool {
	return d.Verdict > other.Verdict || d.Verdict == other.Verdict && d.Reason > other.Reason
}

// Decide decides without knowing the tenant, nor whether it exists.
func (g *Grants) Decide(q Query) Decision { return g.decide(&q, nil, false) }

// DecideFor decides about a tenant with these labels. It is never ByLabels.
func (g *Grants) DecideFor(q Query, labels map[string]string) Decision {
	return g.decide(&q, labels, true)
}

// decide is called for every call of the API: it allocates nothing.
func (g *Grants) decide(q *Query, labels map[string]string, known bool) Decision {
	if g.everything {
		return Decision{Verdict: Allowed, Rule: insecure}
	}
	method := methodNamed(q.Method)
	switch {
	case g.methods == 0:
		return Decision{Reason: NoRule}
	case g.methods&method == 0:
		return Decision{Reason: NoRole}
	case method == listTenants:
		return Decision{Verdict: Allowed, Rule: g.lists.title}
	}
	nearest := Decision{Reason: NoTenant}
	exact, wild := g.exact[q.Tenant], g.wild
	if !ValidID(q.Tenant) {
		wild = nil // What is no tenant is not one of all tenants.
	}
	for len(exact) > 0 || len(wild) > 0 {
		var r *rule
		named := first(exact) <= first(wild)
		if named {
			r, exact = exact[0], exact[1:]
		} else {
			r, wild = wild[0], wild[1:]
		}
		if r.methods&method == 0 || !named && !r.patterned(q.Tenant) {
			continue
		}
		d := r.decide(q.Scopes, labels, known)
		if d.Verdict == Allowed {
			return d
		}
		if d.nearer(nearest) {
			nearest = d
		}
	}
	return nearest
}

// first returns the line of the first rule.
func first(rules []*rule) int {
	if len(rules) == 0 {
		return math.MaxInt
	}
	return rules[0].line
}

// patterned says whether the tenant is one that a pattern of the rule stands for,
// or one of any that have its labels.
func (r *rule) patterned(id string) bool {
	for i := range r.tenants {
		if r.tenants[i].wild() && r.tenants[i].match(id) {
			return true
		}
	}
	return len(r.tenants) == 0
}

// decide decides about a method and a tenant that are the rule's.
func (r *rule) decide(scopes []string, labels map[string]string, known bool) Decision {
	open := len(r.labels) > 0 && !known // Whether it is for this tenant.
	if !open && !r.labelled(labels) {
		return Decision{Denied, r.title, NoLabels}
	}
	covered := r.covers(scopes)
	switch {
	case covered && open:
		return Decision{ByLabels, r.title, NoLabels}
	case covered:
		return Decision{Allowed, r.title, NoReason}
	case open:
		return Decision{Denied, r.title, NoScopes}
	default:
		return Decision{ScopeDenied, r.title, NoScopes}
	}
}

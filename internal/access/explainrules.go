package access

import (
	"fmt"
	"strings"
)

// ReadAloud returns a sentence for each rule and each limit, for people to
// compare with what they meant, and one about everybody else.
func (p *Policy) ReadAloud() []string {
	if p.everything {
		return []string{"Everybody may do everything."}
	}
	var said []string
	for _, r := range p.rules {
		said = append(said, fmt.Sprintf("%s:%d: %s.", p.file, r.line, r.sentence()))
	}
	for i := range p.allowances {
		a := &p.allowances[i]
		said = append(said, fmt.Sprintf("%s:%d: %s.", p.file, a.line, a.sentence()))
	}
	if len(p.rules) == 0 {
		return append(said, "Nobody may do anything.")
	}
	return append(said, "Nobody else may do anything.")
}

func (r *rule) sentence() string {
	var s strings.Builder
	if r.named {
		fmt.Fprintf(&s, "%q: ", r.title)
	}
	fmt.Fprintf(&s, "%s may %s %s", join(all(r.principals, patternText)), join(all(r.roles, func(r role) string { return r.may })), r.whom())
	if len(r.scopes) > 0 {
		fmt.Fprintf(&s, ", and must name scopes, all of them among %s", join(all(r.scopes, patternText)))
	}
	return s.String()
}

// whom says which tenants the rule is for.
func (r *rule) whom() string {
	tenants := "every tenant"
	if len(r.tenants) > 0 && !(len(r.tenants) == 1 && r.tenants[0].text == "*") {
		tenants = join(all(r.tenants, patternText))
	}
	if len(r.labels) == 0 {
		return tenants
	}
	tenants += ", if labelled " + join(all(r.labels, labelText))
	for _, role := range r.roles {
		if role.methods&createTenant != 0 {
			return tenants + " (but create none)"
		}
	}
	return tenants
}

func (a *allowance) sentence() string {
	return fmt.Sprintf("%s may make %g calls a second and %g refreshes a minute, and have %d calls and %d connections open",
		join(all(a.principals, patternText)), a.limits.CallsPerSecond, a.limits.RefreshesPerMinute, a.limits.OpenCalls, a.limits.Connections)
}

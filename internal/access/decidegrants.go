package access

// Grants is what a policy gives to one caller. It is immutable and safe for
// concurrent use; the zero Grants gives nothing.
type Grants struct {
	everything bool
	limits     Limits
	// methods are those of all rules together: for some tenant at least.
	methods methods
	// lists is the first rule that gives ListTenants; nil, if none does.
	lists *rule
	// exact has the rules that name a tenant, wild those that have a pattern for
	// tenants, or labels alone. Both are in the order of the file.
	exact map[string][]*rule
	wild  []*rule
}

// Grants returns what the policy gives to a caller who has these names: all that
// it gives to one of them. A name that is not well-formed counts for nothing.
func (p *Policy) Grants(names []string) *Grants {
	if p.everything {
		return &Grants{everything: true}
	}
	names = wellFormed(names)
	g := &Grants{limits: p.limits(names), exact: map[string][]*rule{}}
	for _, r := range p.rules {
		if concerns(r.principals, names) {
			g.add(r)
		}
	}
	return g
}

// wellFormed returns the names that are, as they are compared.
func wellFormed(names []string) (known []string) {
	for _, name := range names {
		if n, err := parseName(name); err == nil {
			known = append(known, n)
		}
	}
	return known
}

func (p *Policy) limits(names []string) Limits {
	for i := range p.allowances {
		if concerns(p.allowances[i].principals, names) {
			return p.allowances[i].limits
		}
	}
	return defaultLimits()
}

func (g *Grants) add(r *rule) {
	g.methods |= r.methods
	if g.lists == nil && r.methods&listTenants != 0 {
		g.lists = r
	}
	wild := len(r.tenants) == 0
	for i := range r.tenants {
		if r.tenants[i].wild() {
			wild = true
			continue
		}
		id := r.tenants[i].text
		if named := g.exact[id]; len(named) == 0 || named[len(named)-1] != r { // Named twice by one rule.
			g.exact[id] = append(named, r)
		}
	}
	if wild {
		g.wild = append(g.wild, r)
	}
}

// Any says whether any rule is for the caller.
func (g *Grants) Any() bool { return g.everything || g.methods != 0 }

// Limits returns how much the caller may do.
func (g *Grants) Limits() Limits { return g.limits }

// MayList says whether the caller may list tenants: those it may get. To decide
// which these are, ask about GetTenant for each.
func (g *Grants) MayList() bool { return g.everything || g.lists != nil }

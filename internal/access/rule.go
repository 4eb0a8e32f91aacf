package access

// rule allows what its words say, to requests that all of it fits. Rules do not
// add up.
type rule struct {
	// title is the name that the file gives the rule, or "line 12".
	title string
	named bool
	line  int

	principals []pattern
	roles      []role
	// methods is what the roles give. With labels, CreateTenant is not in it: that a
	// name is taken cannot be kept from one who may create, and with labels it must be.
	methods methods
	// tenants may be empty: then there are labels.
	tenants []pattern
	// labels must all be the tenant's. Sorted by key.
	labels []label
	// scopes bound what may be asked for. Empty: nothing does.
	scopes []pattern
}

type label struct{ key, value string }

// concerns says whether one of the names is among the principals. The names are
// as parseName returns them.
func concerns(principals []pattern, names []string) bool {
	for _, name := range names {
		if matchAny(principals, name) {
			return true
		}
	}
	return false
}

// labelled says whether a tenant with these labels has those of the rule.
func (r *rule) labelled(labels map[string]string) bool {
	for i := range r.labels {
		if value, ok := labels[r.labels[i].key]; !ok || value != r.labels[i].value {
			return false
		}
	}
	return true
}

// covers says whether a token for these scopes may be asked for. To name none is
// to ask for all that the tenant has, which is more than a rule with scopes gives.
func (r *rule) covers(scopes []string) bool {
	if len(r.scopes) == 0 {
		return true
	}
	for _, s := range scopes {
		if !ValidScope(s) || !matchAny(r.scopes, s) { // "a b" would be two.
			return false
		}
	}
	return len(scopes) > 0
}

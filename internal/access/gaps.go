package access

import (
	"slices"
	"strings"
)

// Gaps returns what the policy does not give, and probably should, as sentences:
// that nobody has a role, and which rules are of callers who cannot come, because the
// server takes no certificates, or no tokens.
func (p *Policy) Gaps(certificates, tokens bool) (gaps []string) {
	if !p.gives(getToken) {
		gaps = append(gaps, "no rule makes anybody a token.reader: no service can have a token")
	}
	if !p.gives(adminMethods) {
		gaps = append(gaps, "no rule makes anybody a tenant.admin: nobody can register tenants or rotate secrets")
	}
	for _, r := range p.rules {
		if !slices.ContainsFunc(r.principals, func(principal pattern) bool {
			if strings.HasPrefix(principal.text, "jwt:") {
				return tokens
			}
			return certificates
		}) {
			missing := "--client-ca-file, and so no certificates"
			if certificates {
				missing = "--jwt-issuer, and so no bearer tokens"
			}
			gaps = append(gaps, "nobody can come to rule "+quote(r.title)+": the server has no "+missing)
		}
	}
	return gaps
}

// gives says whether a rule gives all of these methods.
func (p *Policy) gives(all methods) bool {
	return p.everything || slices.ContainsFunc(p.rules, func(r *rule) bool { return r.methods&all == all })
}

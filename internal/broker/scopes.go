package broker

import (
	"sync"

	"smokeball.internal/tokenbroker/internal/token"
)

// maxScopeSets is how many different sets of scopes the callers of one tenant may
// have tokens for at a time, beside the registered scopes. Each set is a token of
// its own, and billed, so that a caller who invents sets would spend the tenant's
// money; what services ask for in earnest is written in their code, and is one set
// or two for each kind of service.
const maxScopeSets = 16

// scopeSets are the sets of scopes that callers of one tenant have named.
type scopeSets struct {
	mu      sync.Mutex
	digests map[string]bool // :: key digest → true, some of which no longer count
}

// entryFor returns the entry for scopes; none are the registered ones. The error is
// ErrScopeNotRegistered, or ErrTooManyScopeSets for those that a caller has named. A
// set counts for as long as there is an entry for it: until
// its token has expired unused, or a refusal of it is forgotten. It is this
// replica's count. What is served already is served without a lock, and the
// registered scopes always are.
func (b *Broker) entryFor(s *subject, scopes []string) (*entry, error) {
	if len(scopes) == 0 {
		return b.entry(s, &s.credential, s.digest), nil
	}
	if !s.tenant.Admits(scopes) {
		return nil, ErrScopeNotRegistered
	}
	c := s.credential
	c.Scopes = token.CanonicalScopes(scopes)
	digest := c.Key().Digest()
	if digest == s.digest {
		return b.entry(s, &s.credential, digest), nil
	}
	if e, ok := b.entries.Load(digest); ok && e.askedBy(s) {
		b.asks(s, e)
		return e, nil
	}
	v, _ := b.scopeSets.LoadOrStore(s.tenant.ID, &scopeSets{digests: map[string]bool{}})
	named := v.(*scopeSets)
	named.mu.Lock()
	defer named.mu.Unlock()
	for d := range named.digests {
		if !b.counts(s, d) {
			delete(named.digests, d)
		}
	}
	if !named.digests[digest] && len(named.digests) >= maxScopeSets {
		return nil, ErrTooManyScopeSets
	}
	named.digests[digest] = true
	kept := c // So that those that are served already leave nothing on the heap.
	return b.entry(s, &kept, digest), nil
}

// counts says whether there is an entry with this digest that the tenant has asked
// for, and may still ask for: not one of a former secret, or of scopes that are not
// admitted any more.
func (b *Broker) counts(s *subject, digest string) bool {
	e, ok := b.entries.Load(digest)
	return ok && s.buys(e) && e.askers.of(s.tenant.ID) != nil
}

package broker

import (
	"sync"
	"sync/atomic"
)

// askers are the tenants that have asked for an entry, each as it was registered when
// it last did. As a rule that is one, and it takes no more than a pointer; but a
// credential may be that of many thousands. The zero askers is empty. Readers take no
// lock.
type askers struct {
	mu     sync.Mutex               // held to change one and others together
	one    atomic.Pointer[subject]  // of a tenant that is not among the others
	others atomic.Pointer[sync.Map] // :: tenant id (string) → *subject; nil until there is a second
}

// of returns the tenant as it was when it asked; nil: it has not.
func (a *askers) of(id string) *subject {
	if s := a.one.Load(); s != nil && s.tenant.ID == id {
		return s
	}
	if others := a.others.Load(); others != nil {
		if v, ok := others.Load(id); ok {
			return v.(*subject)
		}
	}
	return nil
}

// add notes that the tenant asks, and says whether that is new of it as it is
// registered in s.
func (a *askers) add(s *subject) (news bool) {
	if a.of(s.tenant.ID) == s {
		return false
	}
	a.mu.Lock()
	defer a.mu.Unlock()
	one, others := a.one.Load(), a.others.Load()
	switch {
	case one != nil && one.tenant.ID == s.tenant.ID:
		a.one.Store(s)
		return one != s
	case others != nil:
		before, _ := others.Swap(s.tenant.ID, s)
		return before != any(s)
	case one == nil:
		a.one.Store(s)
	default:
		others = &sync.Map{}
		others.Store(s.tenant.ID, s)
		a.others.Store(others)
	}
	return true
}

// remove forgets the tenant, unless it has asked since as one that was registered
// otherwise.
func (a *askers) remove(s *subject) {
	a.mu.Lock()
	defer a.mu.Unlock()
	if a.one.CompareAndSwap(s, nil) {
		return
	}
	if others := a.others.Load(); others != nil {
		others.CompareAndDelete(s.tenant.ID, s)
	}
}

// each calls do for each, until it returns false. do may change the askers.
func (a *askers) each(do func(*subject) bool) {
	if s := a.one.Load(); s != nil && !do(s) {
		return
	}
	if others := a.others.Load(); others != nil {
		others.Range(func(_, v any) bool { return do(v.(*subject)) })
	}
}

package broker

import (
	"context"
	"iter"
	"maps"
	"slices"
	"strings"
	"time"

	"smokeball.internal/tokenbroker/internal/tenant"
	"smokeball.internal/tokenbroker/internal/token"
)

// View is how one of a tenant's tokens fares, to be looked at.
type View struct {
	// Tenant as it was read last. One whose record cannot be opened has nothing but
	// its ID and Etag.
	Tenant *tenant.Tenant
	// Scopes that the token is asked for with; empty: all of the client.
	Scopes []string
	// Token is the one that is held, or the last one, which may have ended; nil:
	// none is known.
	Token *token.Token
	// Failure is the last one since then; nil: none is known.
	Failure *token.Failure
	// History counts the fleet's exchanges. Registry.Fill sets it.
	History token.History

	key token.Key
}

// View returns how the token for a tenant's registered scopes fares, as far as this
// replica has it in memory.
func (r *Registry) View(t *tenant.Tenant) View {
	if t.Region == "" { // A record that cannot be opened: nobody knows which credential.
		return View{Tenant: t}
	}
	s := r.broker.newSubject(t)
	v := View{Tenant: t, Scopes: t.Scopes, key: s.credential.Key()}
	if e, ok := r.broker.entries.Load(s.digest); ok {
		v.Token, v.Failure = e.token.Load(), e.failure.Load()
	}
	return v
}

// Fill adds to views what the fleet keeps. Errors: ErrStore; then they are as they
// were.
func (r *Registry) Fill(ctx context.Context, views []View) error {
	var keys []token.Key
	var of []*View
	for i := range views {
		if views[i].key != (token.Key{}) {
			keys, of = append(keys, views[i].key), append(of, &views[i])
		}
	}
	all, err := r.broker.store.LoadAll(ctx, keys)
	if err != nil {
		return outage(err)
	}
	for i, kept := range all {
		of[i].add(kept)
	}
	return nil
}

// add puts together what this replica has and what the fleet keeps.
func (v *View) add(kept token.Kept) {
	v.History = kept.History
	if t := kept.Token; t != nil && (v.Token == nil || t.ID != v.Token.ID && t.Issued.After(v.Token.Issued)) {
		v.Token, v.Failure = t, nil // What failed here, another replica has mended.
	}
	if kept.Failure != nil {
		v.Failure = kept.Failure
	}
}

// Troubled ranges over the tokens that this replica has trouble with, in no order, as
// they are while it is ranged over: those that have ended though they are in use, that
// the last exchange was refused for, or whose refresh is late. Each is of one of the
// tenants that may have it and are seen by who asks; of none, it is left out. It locks
// nothing.
func (r *Registry) Troubled(seen func(*tenant.Tenant) bool) iter.Seq[View] {
	return func(yield func(View) bool) {
		now := time.Now()
		r.broker.entries.RangeRelaxed(func(_ string, e *entry) bool {
			t, f := e.token.Load(), e.failure.Load()
			if !e.troubled(t, f, now) {
				return true
			}
			s := r.broker.subjectOf(e, seen)
			return s == nil || yield(View{Tenant: &s.tenant, Scopes: e.credential.Scopes, Token: t, Failure: f, key: e.key()})
		})
	}
}

// troubled says whether somebody should know of the entry.
func (e *entry) troubled(t *token.Token, f *token.Failure, now time.Time) bool {
	s := e.subject.Load()
	switch {
	case f != nil:
		return now.Before(f.RetryAt.Add(streakMemory))
	case t == nil || s == nil:
		return false
	case !t.Usable(now, 0):
		return e.used.Load()
	default:
		return t.Due(now) && t.Urgent(now) && e.missed(t, s, now)
	}
}

// subjectOf returns a tenant, as this replica knows it, that is seen and may have the
// entry's token; nil: none is known any more.
func (b *Broker) subjectOf(e *entry, seen func(*tenant.Tenant) bool) (found *subject) {
	e.askers.each(func(s *subject) bool {
		known, ok := b.subjects.Load(s.tenant.ID)
		if ok && !known.tenant.Disabled && known.buys(e) && seen(&known.tenant) {
			found = known
		}
		return found == nil
	})
	return found
}

// Remembered ranges over the tenants that this replica has in memory, as List does
// over all: for when the store cannot be asked.
func (r *Registry) Remembered(part, after string) iter.Seq[*tenant.Tenant] {
	return func(yield func(*tenant.Tenant) bool) {
		known := map[string]*tenant.Tenant{}
		for id, s := range r.broker.subjects.All() {
			if id > after && strings.Contains(id, part) {
				known[id] = &s.tenant
			}
		}
		for _, id := range slices.Sorted(maps.Keys(known)) {
			if !yield(known[id]) {
				return
			}
		}
	}
}

package broker

import (
	"sync"
	"sync/atomic"
	"time"

	"github.com/puzpuzpuz/xsync/v4"

	"smokeball.internal/tokenbroker/internal/token"
)

// entry is what this replica knows of one key: its token, or why there is none.
// Readers take no lock.
type entry struct {
	// What an answer from memory looks at comes first, next to each other.
	token     atomic.Pointer[token.Token]
	failure   atomic.Pointer[token.Failure]
	replacing atomic.Pointer[token.Token] // for which a caller has started a flight
	subject   atomic.Pointer[subject]     // who asked for it last
	used      atomic.Bool                 // whether it was asked for since the token came
	dropped   atomic.Bool                 // it is not in Broker.entries any more
	waiters   atomic.Int32                // callers that wait for a flight
	putOffs   atomic.Int32                // how often a flight was put off since the last token

	digest     string
	credential *token.Credential // of the subject that it was made for, or its own
	askers     askers            // those who share the credential

	mu        sync.Mutex    // held to change token and timer together, and what is below
	timer     *time.Timer   // calls Broker.due; nil until there is something to wait for
	woken     chan struct{} // has a value when something about the key changed; nil while no flight listens
	listening int           // how many flights do
}

// key is what the token is kept under.
func (e *entry) key() token.Key { return e.credential.Key() }

// entry returns the entry for a credential, and makes it if there is none.
func (b *Broker) entry(s *subject, c *token.Credential, digest string) *entry {
	if e := s.entry.Load(); e != nil && digest == s.digest {
		b.asks(s, e)
		return e
	}
	e, ok := b.entries.Load(digest)
	if !ok {
		e, _ = b.entries.LoadOrStore(digest, &entry{digest: digest, credential: c})
	}
	b.asks(s, e)
	if digest == s.digest {
		s.entry.Store(e)
		if e.dropped.Load() { // Meanwhile: nobody else would forget it.
			s.entry.Store(nil)
		}
	}
	return e
}

// forget has nobody find the entry any more.
func (b *Broker) forget(e *entry) {
	drop(b.entries, e.digest, e)
	e.dropped.Store(true)
	e.askers.each(func(s *subject) bool {
		s.entry.CompareAndSwap(e, nil)
		return true
	})
}

// asks notes that the tenant asks for the entry.
func (b *Broker) asks(s *subject, e *entry) {
	if e.subject.Load() != s {
		e.subject.Store(s)
		if e.askers.add(s) && e.token.Load() != nil {
			b.compare(e)
		}
	}
}

// askedBy says whether the tenant, as it is registered in s, has asked for the
// entry.
func (e *entry) askedBy(s *subject) bool {
	return e.subject.Load() == s || e.askers.of(s.tenant.ID) == s
}

// fallback returns the credential with the secret before this one, of a tenant
// that has one which may still be tried at now.
func (e *entry) fallback(now time.Time) (owner *subject, former token.Credential, ok bool) {
	e.askers.each(func(s *subject) bool {
		owner = s
		former, ok = owner.fallback(*e.credential, now)
		return !ok
	})
	return owner, former, ok
}

// usable returns the token if it may be handed out, else nil.
func (e *entry) usable(now time.Time, atLeast time.Duration) *token.Token {
	if t := e.token.Load(); t.Usable(now, atLeast) {
		return t
	}
	return nil
}

// adopt holds t from now on and has Broker.due called when it is due. It refuses
// a token if one that was issued later, or has replaced it, is held. Issue times
// that come out of the store are right to some milliseconds.
func (e *entry) adopt(b *Broker, t *token.Token) bool {
	e.mu.Lock()
	defer e.mu.Unlock()
	held := e.token.Load()
	if held != nil && held.ID != t.ID && held.ID != t.Replaced && (held.Replaced == t.ID || held.Issued.After(t.Issued)) {
		return false
	}
	another := held == nil || held.ID != t.ID
	if another {
		e.used.Store(false)
	}
	e.token.Store(t.Packed())
	e.failure.Store(nil)
	e.putOffs.Store(0)
	e.schedule(b, t.RefreshAt)
	if another {
		e.askers.each(func(s *subject) bool { b.bells.ring(s.tenant.ID); return true })
	}
	return true
}

// take adopts a token of the store, unless it is the one that is held, as it is
// held: that would have failures forgotten and timers set anew for nothing.
func (e *entry) take(b *Broker, t *token.Token) bool {
	if held := e.token.Load(); held != nil && held.ID == t.ID && !t.RefreshAt.After(held.RefreshAt) {
		return true
	}
	return e.adopt(b, t)
}

// fail remembers f. A token that is held goes on being handed out.
func (e *entry) fail(b *Broker, f *token.Failure) {
	e.mu.Lock()
	defer e.mu.Unlock()
	e.failure.Store(f)
	if e.usable(time.Now(), 0) == nil {
		// Nobody is served by trying again before somebody asks again.
		e.used.Store(false)
	}
	e.schedule(b, f.RetryAt)
}

// wait has Broker.due called at the given time.
func (e *entry) wait(b *Broker, at time.Time) {
	e.mu.Lock()
	defer e.mu.Unlock()
	e.schedule(b, at)
}

func (e *entry) schedule(b *Broker, at time.Time) {
	if e.timer == nil {
		e.timer = time.AfterFunc(time.Until(at), func() { b.due(e) })
		return
	}
	e.timer.Reset(time.Until(at))
}

func (e *entry) stop() {
	e.mu.Lock()
	defer e.mu.Unlock()
	if e.timer != nil {
		e.timer.Stop()
	}
}

// listen returns what has a value once something about the key has changed from now
// on, for a flight that may have to wait for another replica. done must be called.
func (e *entry) listen() (woken <-chan struct{}, done func()) {
	e.mu.Lock()
	defer e.mu.Unlock()
	if e.woken == nil {
		e.woken = make(chan struct{}, 1)
	}
	e.listening++
	return e.woken, func() {
		e.mu.Lock()
		defer e.mu.Unlock()
		if e.listening--; e.listening == 0 {
			e.woken = nil
		}
	}
}

// wake ends the wait of a flight for another replica.
func (e *entry) wake() {
	e.mu.Lock()
	defer e.mu.Unlock()
	select {
	case e.woken <- struct{}{}:
	default: // There is a value already, or nobody listens.
	}
}

// A failure is forgotten this long after its pause. Until then, the next pause is
// longer.
const streakMemory = 15 * time.Minute

// lull returns how long after its pause a failure is not tried again for a tenant
// that is kept warm, has no token, and that nobody asks for: longer each time, up
// to ten minutes. Who asks does not wait for it.
func lull(f *token.Failure) time.Duration {
	return min(10*time.Minute, time.Second<<min(f.Streak, 10))
}

// due decides what becomes of an entry whose token has come to its refresh
// point, or whose time to wait is over. In use, or to be kept warm: its token is
// replaced behind the callers' backs. Else it is left to expire, which costs
// nothing, and then dropped.
func (b *Broker) due(e *entry) {
	if !b.tasks.begin() {
		return
	}
	defer b.tasks.end()
	now := time.Now()
	held := e.usable(now, 0)
	if held != nil && !held.Due(now) {
		e.wait(b, held.RefreshAt) // It was not for this token, or after a forced refresh that failed.
		return
	}
	wanted, known := b.wanted(e)
	failure := e.failure.Load()
	switch {
	case !known && held != nil:
		e.wait(b, now.Add(max(storeTimeout, held.SafeEnd().Sub(now)/8)))
	case wanted && failure.Holds(now):
		e.wait(b, failure.RetryAt)
	case wanted && held == nil && failure != nil && now.Before(failure.RetryAt.Add(lull(failure))):
		e.wait(b, failure.RetryAt.Add(lull(failure)))
	case wanted && held != nil:
		b.fly(e, order{replaces: held.ID, ahead: true, by: asker{behind: true}})
	case wanted:
		b.fly(e, order{by: asker{behind: true}})
	case held != nil:
		e.wait(b, held.Expires)
	case failure != nil && now.Before(failure.RetryAt.Add(streakMemory)):
		e.wait(b, failure.RetryAt.Add(streakMemory))
	default:
		b.forget(e)
	}
}

// wanted says whether the entry's token should be replaced though nobody waits
// for it, which takes a tenant that may still have it and that is in use or to be
// kept warm. known is false if no such tenant is known, but one that may be one
// cannot be looked up.
func (b *Broker) wanted(e *entry) (wanted, known bool) {
	known = true
	e.askers.each(func(asker *subject) bool {
		s, err := b.subject(b.ctx, asker.tenant.ID)
		switch {
		case isOutage(err):
			known = false
		case err != nil || s.tenant.Disabled || !s.buys(e):
			e.askers.remove(asker)
		default:
			// Of a tenant's tokens, the one for its registered scopes is kept warm.
			wanted = e.used.Load() || s.tenant.KeepWarm && s.digest == e.digest
		}
		return !wanted
	})
	return wanted, known || wanted
}

// buys says whether the entry's token is bought with the tenant's credential, for
// scopes that it admits.
func (s *subject) buys(e *entry) bool {
	c, bought := s.credential, e.credential
	return c.Endpoint == bought.Endpoint && c.ClientID == bought.ClientID && c.SecretID == bought.SecretID &&
		(s.digest == e.digest || len(e.credential.Scopes) > 0 && s.tenant.Admits(e.credential.Scopes))
}

// drop removes what is held under the key, if it is this.
func drop[V comparable](held *xsync.Map[string, V], key string, this V) {
	held.Compute(key, func(v V, ok bool) (V, xsync.ComputeOp) {
		if ok && v == this {
			return v, xsync.DeleteOp
		}
		return v, xsync.CancelOp
	})
}

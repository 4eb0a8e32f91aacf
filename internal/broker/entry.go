package broker

import (
	"sync"
	"sync/atomic"
	"time"

	"smokeball.internal/tokenbroker/internal/token"
)

// entry is what this replica knows of one key: its token, or why there is none.
// Readers take no lock.
type entry struct {
	digest     string
	key        token.Key
	credential token.Credential

	token   atomic.Pointer[token.Token]
	failure atomic.Pointer[token.Failure]
	subject atomic.Pointer[subject] // whose tenant asked for it last
	used    atomic.Bool             // whether it was asked for since the token came

	woken chan struct{} // has a value when something about the key changed

	mu    sync.Mutex  // held to change token and timer together
	timer *time.Timer // calls Broker.due; nil until there is something to wait for
}

// entry returns the entry for a credential, and makes it if there is none.
func (b *Broker) entry(s *subject, c token.Credential, digest string) *entry {
	v, ok := b.entries.Load(digest)
	if !ok {
		v, _ = b.entries.LoadOrStore(digest, &entry{
			digest: digest, key: c.Key(), credential: c, woken: make(chan struct{}, 1),
		})
	}
	e := v.(*entry)
	if e.subject.Load() != s {
		e.subject.Store(s)
	}
	return e
}

// usable returns the token if it may be handed out, else nil.
func (e *entry) usable(now time.Time, atLeast time.Duration) *token.Token {
	if t := e.token.Load(); t.Usable(now, atLeast) {
		return t
	}
	return nil
}

// adopt holds t from now on and has Broker.due called when it is due. It refuses
// a token if one that was issued later is held.
func (e *entry) adopt(b *Broker, t *token.Token) bool {
	e.mu.Lock()
	defer e.mu.Unlock()
	held := e.token.Load()
	if held != nil && held.ID != t.ID && held.Issued.After(t.Issued) {
		return false
	}
	if held == nil || held.ID != t.ID {
		e.used.Store(false)
	}
	e.token.Store(t)
	e.failure.Store(nil)
	e.schedule(b, t.RefreshAt)
	return true
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
	if e.timer != nil {
		e.timer.Stop()
	}
	e.timer = time.AfterFunc(time.Until(at), func() { b.due(e) })
}

func (e *entry) stop() {
	e.mu.Lock()
	defer e.mu.Unlock()
	if e.timer != nil {
		e.timer.Stop()
	}
}

// wake ends the wait of a flight for another replica.
func (e *entry) wake() {
	select {
	case e.woken <- struct{}{}:
	default:
	}
}

// A failure is forgotten this long after its pause. Until then, the next pause is
// longer.
const streakMemory = 2 * time.Minute

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
		return // It was replaced while this call was on its way.
	}
	wanted := b.wanted(e)
	failure := e.failure.Load()
	switch {
	case wanted && failure.Holds(now):
		e.wait(b, failure.RetryAt)
	case wanted && held != nil:
		b.fly(e, held.ID)
	case wanted:
		b.fly(e, "")
	case held != nil:
		e.wait(b, held.Expires)
	case failure != nil && now.Before(failure.RetryAt.Add(streakMemory)):
		e.wait(b, failure.RetryAt.Add(streakMemory))
	default:
		b.entries.CompareAndDelete(e.digest, e)
	}
}

// wanted says whether the entry's token should be replaced though nobody waits
// for it: it is in use or to be kept warm, and its tenant may still have it.
func (b *Broker) wanted(e *entry) bool {
	last := e.subject.Load()
	if last == nil {
		return false
	}
	s, err := b.subject(b.ctx, last.tenant.ID)
	if isOutage(err) {
		s = last
	} else if err != nil {
		return false
	}
	sameCredential := s.credential.SecretID == e.key.SecretID && s.credential.ClientID == e.key.ClientID && s.credential.Endpoint == e.key.Endpoint
	return !s.tenant.Disabled && sameCredential && (e.used.Load() || s.tenant.KeepWarm)
}

package broker

import (
	"context"
	"errors"
	"time"

	"go.opentelemetry.io/otel/trace"

	"smokeball.internal/tokenbroker/internal/secret"
	"smokeball.internal/tokenbroker/internal/token"
)

// Answer is a token and what a Smokeball request needs beside it.
type Answer struct {
	// Token is the token.
	Token *token.Token
	// APIBaseURL is where requests go.
	APIBaseURL string
	// APIKey is the x-api-key; may be empty.
	APIKey secret.Text
}

// wish is what a caller wants of a token.
type wish struct {
	atLeast  time.Duration // that it lives for
	another  bool          // than the one with the id rejected
	rejected string        // empty: whichever is held
}

// Get returns a token of the tenant for these scopes (none: the registered ones)
// that lives for at least atLeast. A token that is held is the answer at once, and
// without an allocation if the scopes are the registered ones;
// if it is due, it is replaced behind the caller's back.
func (b *Broker) Get(ctx context.Context, id string, scopes []string, atLeast time.Duration) (Answer, error) {
	return b.counted(b.answer(ctx, id, scopes, wish{atLeast: atLeast}))
}

// Refresh returns another token than the one with the id rejected (empty:
// whichever is held), unless the issuer gives the same again. If another is held
// already, that is the answer; else one is bought for all who ask. A token that has
// itself replaced a rejected one is not replaced within its RefreshInterval:
// *TooSoonError.
func (b *Broker) Refresh(ctx context.Context, id string, scopes []string, rejected string) (Answer, error) {
	return b.counted(b.answer(ctx, id, scopes, wish{another: true, rejected: rejected}))
}

// counted counts an answer whose token was in memory; the others were counted when
// they were waited for.
func (b *Broker) counted(a Answer, held bool, err error) (Answer, error) {
	if held {
		b.stats.fromMemory.Add(1)
	}
	return a, err
}

// Labels returns a tenant's labels: as they are in memory, where changes are heard
// of, or with fresh as they are in the store.
func (b *Broker) Labels(ctx context.Context, id string, fresh bool) (map[string]string, error) {
	lookUp := b.subject
	if fresh {
		lookUp = b.reload
	}
	s, err := lookUp(ctx, id)
	if err != nil {
		return nil, err
	}
	return s.tenant.Labels, nil
}

// answer finds the entry that the tenant and scopes mean, and a token for it; held
// says that it was in memory. What it comes to counts only for the tenant as it is
// registered by then: it may have been disabled while the call waited. And before a
// refusal of credentials is passed on, the registry itself is read.
func (b *Broker) answer(ctx context.Context, id string, scopes []string, w wish) (a Answer, held bool, err error) {
	s, err := b.subject(ctx, id)
	if err != nil {
		return Answer{}, false, err
	}
	for {
		t, held, err := b.find(ctx, s, scopes, w)
		lookUp := b.subject
		if err != nil {
			if f, failed := errors.AsType[*token.Failure](err); !failed || !f.Class.Permanent() {
				return Answer{}, false, err
			}
			lookUp = b.reload
		}
		now, lookUpErr := lookUp(ctx, id)
		switch {
		case lookUpErr != nil && !isOutage(lookUpErr):
			return Answer{}, false, lookUpErr
		case lookUpErr == nil && now != s && now.tenant.Etag != s.tenant.Etag:
			s = now
		case err != nil:
			return Answer{}, false, err
		default:
			return Answer{t, s.apiBaseURL, s.tenant.APIKey}, held, nil
		}
	}
}

func (b *Broker) find(ctx context.Context, s *subject, scopes []string, w wish) (t *token.Token, held bool, err error) {
	if s.tenant.Disabled {
		return nil, false, ErrDisabled
	}
	e, err := b.entryFor(s, scopes)
	if err != nil {
		return nil, false, err
	}
	if w.another {
		return b.refresh(ctx, e, w.rejected)
	}
	return b.get(ctx, e, w.atLeast)
}

// get is the rule of Get for one key. held says that the token was in memory;
// else it was waited for, and is counted.
func (b *Broker) get(ctx context.Context, e *entry, atLeast time.Duration) (t *token.Token, held bool, err error) {
	// A token from another replica may be about to end, or too short for this
	// caller. Three looks are one more than it takes.
	for range 3 {
		now := time.Now()
		if t := e.usable(now, 0); t != nil && tooMuch(t, atLeast) {
			return nil, false, ErrMinRemaining
		}
		if t := e.usable(now, atLeast); t != nil {
			if !e.used.Load() {
				e.used.Store(true)
			}
			// Once for each token. If it fails, the entry's timer sees to the rest.
			if t.Due(now) && e.replacing.Load() != t && e.replacing.Swap(t) != t && !e.failure.Load().Holds(now) {
				b.fly(e, order{replaces: t.ID, ahead: true, by: asker{span: trace.SpanContextFromContext(ctx), behind: true}}) // Behind the caller's back.
			}
			return t, true, nil
		}
		var o order
		if t := e.usable(now, 0); t != nil {
			o.replaces = t.ID
		}
		if f := e.failure.Load(); f.Holds(now) {
			return nil, false, f
		}
		e.used.Store(true) // So that the entry is not dropped meanwhile.
		t, err = b.join(ctx, e, o)
		if err != nil {
			return nil, false, err
		}
		// One that cannot be kept is handed out to those who have waited for it.
		if now = time.Now(); !tooMuch(t, atLeast) && (t.Usable(now, atLeast) || !t.Usable(now, 0)) {
			return t, false, nil
		}
	}
	return nil, false, ErrMinRemaining
}

// tooMuch says that no token like t lives for atLeast, or only one that was
// bought within the refresh interval: one would be bought for every such call.
func tooMuch(t *token.Token, atLeast time.Duration) bool {
	return atLeast > 0 && atLeast > t.Lifetime()-t.RefreshInterval()
}

// refresh is the rule of Refresh for one key; held is as that of get.
func (b *Broker) refresh(ctx context.Context, e *entry, rejected string) (t *token.Token, held bool, err error) {
	now := time.Now()
	t = e.usable(now, 0)
	if t != nil && t.ID != rejected && rejected != "" {
		return t, true, nil
	}
	if t == nil {
		if t, held, err = b.get(ctx, e, 0); err != nil || t.ID != rejected {
			return t, held, err // Held since a moment ago.
		}
	}
	if f := e.failure.Load(); f.Holds(now) {
		return nil, false, f
	}
	// A new token that is rejected too is not cured by another.
	if age, interval := now.Sub(t.Issued), t.RefreshInterval(); t.Replaced != "" && age < interval {
		return nil, false, &TooSoonError{interval - age}
	}
	t, err = b.join(ctx, e, order{replaces: t.ID, forced: true})
	return t, false, err
}

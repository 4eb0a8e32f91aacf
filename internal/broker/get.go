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

// Get returns a token of the tenant for these scopes (none: the registered ones)
// that lives for at least atLeast. A token that is held is the answer at once;
// if it is due, it is replaced behind the caller's back.
func (b *Broker) Get(ctx context.Context, id string, scopes []string, atLeast time.Duration) (*Answer, error) {
	return b.answer(ctx, id, scopes, func(ctx context.Context, e *entry) (*token.Token, error) {
		t, held, err := b.get(ctx, e, atLeast)
		if held {
			b.stats.fromMemory.Add(1)
		}
		return t, err
	})
}

// Refresh returns another token than the one with the id rejected (empty:
// whichever is held), unless the issuer gives the same again. If another is held
// already, that is the answer; else one is bought for all who ask. A token that has
// itself replaced a rejected one is not replaced within its RefreshInterval:
// *TooSoonError.
func (b *Broker) Refresh(ctx context.Context, id string, scopes []string, rejected string) (*Answer, error) {
	return b.answer(ctx, id, scopes, func(ctx context.Context, e *entry) (*token.Token, error) {
		return b.refresh(ctx, e, rejected)
	})
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

// answer finds the entry that the tenant and scopes mean, and has find find a
// token for it. What it comes to counts only for the tenant as it is registered
// by then: it may have been disabled while the call waited. And before a refusal
// of credentials is passed on, the registry itself is read.
func (b *Broker) answer(ctx context.Context, id string, scopes []string, find func(context.Context, *entry) (*token.Token, error)) (*Answer, error) {
	s, err := b.subject(ctx, id)
	if err != nil {
		return nil, err
	}
	for {
		t, err := b.find(ctx, s, scopes, find)
		lookUp := b.subject
		var f *token.Failure
		switch {
		case errors.As(err, &f) && f.Class.Permanent():
			lookUp = b.reload
		case err != nil:
			return nil, err
		}
		now, lookUpErr := lookUp(ctx, id)
		switch {
		case lookUpErr != nil && !isOutage(lookUpErr):
			return nil, lookUpErr
		case lookUpErr == nil && now.tenant.Etag != s.tenant.Etag:
			s = now
		case err != nil:
			return nil, err
		default:
			return &Answer{t, s.apiBaseURL, s.tenant.APIKey}, nil
		}
	}
}

func (b *Broker) find(ctx context.Context, s *subject, scopes []string, find func(context.Context, *entry) (*token.Token, error)) (*token.Token, error) {
	if s.tenant.Disabled {
		return nil, ErrDisabled
	}
	c, digest, err := s.credentialFor(scopes)
	if err != nil {
		return nil, err
	}
	e, err := b.admit(s, c, digest)
	if err != nil {
		return nil, err
	}
	return find(ctx, e)
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
		t, err := b.join(ctx, e, o)
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

// refresh is the rule of Refresh for one key.
func (b *Broker) refresh(ctx context.Context, e *entry, rejected string) (*token.Token, error) {
	now := time.Now()
	held := e.usable(now, 0)
	if held != nil && held.ID != rejected && rejected != "" {
		b.stats.fromMemory.Add(1)
		return held, nil
	}
	if held == nil {
		t, inMemory, err := b.get(ctx, e, 0)
		if err != nil || t.ID != rejected {
			if inMemory { // Since a moment ago.
				b.stats.fromMemory.Add(1)
			}
			return t, err
		}
		held = t
	}
	if f := e.failure.Load(); f.Holds(now) {
		return nil, f
	}
	// A new token that is rejected too is not cured by another.
	if age, interval := now.Sub(held.Issued), held.RefreshInterval(); held.Replaced != "" && age < interval {
		return nil, &TooSoonError{interval - age}
	}
	return b.join(ctx, e, order{replaces: held.ID, forced: true})
}

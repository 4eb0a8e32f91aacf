package broker

import (
	"context"
	"errors"
	"time"

	"smokeball.internal/tokenbroker/internal/secret"
	"smokeball.internal/tokenbroker/internal/tenant"
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
		return b.get(ctx, e, atLeast)
	})
}

// Refresh returns another token than the one with the id rejected (empty:
// whichever is held). If another is held already, that is the answer; else one is
// bought for all who ask. A token that is younger than its RefreshInterval is not
// replaced: *TooSoonError.
func (b *Broker) Refresh(ctx context.Context, id string, scopes []string, rejected string) (*Answer, error) {
	return b.answer(ctx, id, scopes, func(ctx context.Context, e *entry) (*token.Token, error) {
		return b.refresh(ctx, e, rejected)
	})
}

// answer finds the entry that the tenant and scopes mean, and has from find a
// token for it. A refusal of credentials counts only for those that are
// registered now: before it is passed on, the registry is read again.
func (b *Broker) answer(ctx context.Context, id string, scopes []string, find func(context.Context, *entry) (*token.Token, error)) (*Answer, error) {
	s, err := b.subject(ctx, id)
	if err != nil {
		return nil, err
	}
	for {
		t, err := b.find(ctx, s, scopes, find)
		if err == nil {
			return &Answer{t, s.apiBaseURL, s.tenant.APIKey}, nil
		}
		var f *token.Failure
		if !errors.As(err, &f) || !f.Class.Permanent() {
			return nil, err
		}
		now, readErr := b.reload(ctx, id)
		if errors.Is(readErr, tenant.ErrNotFound) {
			return nil, readErr
		}
		if readErr != nil || now.tenant.Etag == s.tenant.Etag {
			return nil, err
		}
		s = now
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
	return find(ctx, b.entry(s, c, digest))
}

// get is the rule of Get for one key.
func (b *Broker) get(ctx context.Context, e *entry, atLeast time.Duration) (*token.Token, error) {
	// A token from another replica may be about to end, or too short for this
	// caller. Three looks are one more than it takes.
	for range 3 {
		now := time.Now()
		if t := e.usable(now, atLeast); t != nil {
			if !e.used.Load() {
				e.used.Store(true)
			}
			if t.Due(now) && !e.failure.Load().Holds(now) {
				b.fly(e, t.ID)
			}
			b.stats.fromMemory.Add(1)
			return t, nil
		}
		replaces := ""
		if t := e.usable(now, 0); t != nil {
			if now.Sub(t.Issued) < t.RefreshInterval() {
				return nil, ErrMinRemaining
			}
			replaces = t.ID
		}
		if f := e.failure.Load(); f.Holds(now) {
			return nil, f
		}
		b.stats.waited.Add(1)
		t, err := b.join(ctx, e, replaces)
		if err != nil {
			return nil, err
		}
		if t.Usable(time.Now(), atLeast) || t.Lifetime() <= 0 {
			return t, nil
		}
	}
	if atLeast > 0 {
		return nil, ErrMinRemaining
	}
	return nil, &token.Failure{Class: token.Malformed, Message: "the issuer's tokens end before they can be handed out", RetryAt: time.Now().Add(time.Second)}
}

// refresh is the rule of Refresh for one key.
func (b *Broker) refresh(ctx context.Context, e *entry, rejected string) (*token.Token, error) {
	now := time.Now()
	held := e.usable(now, 0)
	if held != nil && held.ID != rejected && rejected != "" {
		return held, nil
	}
	if held == nil {
		t, err := b.get(ctx, e, 0)
		if err != nil || t.ID != rejected {
			return t, err
		}
		held = t
	}
	if f := e.failure.Load(); f.Holds(now) {
		return nil, f
	}
	if age, interval := now.Sub(held.Issued), held.RefreshInterval(); age < interval {
		return nil, &TooSoonError{interval - age}
	}
	return b.join(ctx, e, held.ID)
}

// isOutage says whether err means that a tenant could not be looked up, as
// against that there is none to be had.
func isOutage(err error) bool {
	return errors.Is(err, ErrStore) || errors.Is(err, context.Canceled) || errors.Is(err, context.DeadlineExceeded)
}

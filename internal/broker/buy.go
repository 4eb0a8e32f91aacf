package broker

import (
	"context"
	"errors"
	"math/rand/v2"
	"time"

	"smokeball.internal/tokenbroker/internal/token"
)

// The shortest pause after a failure, however little time is left.
const minHold = time.Second

// buy makes the exchange, when it is its turn, and keeps what it brings, for this
// replica and all.
func (b *Broker) buy(ctx context.Context, e *entry, o order) (*token.Token, error) {
	o.came(ofIssuer)
	if err := b.resting(e); err != nil {
		return nil, err
	}
	crowd, err := b.turn(ctx, e, o)
	if err != nil {
		return nil, err
	}
	// That may have taken a while, in which an administrator's check brought one.
	if t := e.usable(time.Now(), 0); t != nil && t.ID != o.replaces {
		o.came(ofStore)
		return t, nil
	}
	report, err := b.permit(e)
	if err != nil {
		return nil, err
	}
	ctx, cancel := context.WithTimeout(ctx, exchangeTimeout)
	defer cancel()
	begun := time.Now()
	var t *token.Token
	func() {
		defer func() { report(err) }() // Also after a panic.
		err = errPanic
		t, err = b.exchange(ctx, e)
	}()
	var f *token.Failure
	if o.ahead && err != nil && b.ctx.Err() == nil {
		b.stats.aheadFailed.Add(1)
	}
	switch {
	case errors.As(err, &f):
		return nil, b.refused(ctx, e, f)
	case err != nil && b.ctx.Err() != nil:
		return nil, ErrClosed
	case err != nil:
		return nil, b.refused(ctx, e, &token.Failure{Class: token.Unavailable, Message: "the issuer did not answer in time", Cause: err})
	}
	b.log.InfoContext(ctx, "token bought", "tenant", e.subject.Load().tenant.ID, "key", e.digest, "token_id", t.ID,
		"lifetime", t.Lifetime().Round(time.Second).String(), "took", time.Since(begun).Round(time.Millisecond).String())
	if !t.Usable(time.Now(), 0) {
		// It is good for those who wait for it, if for anybody. Not to buy one for
		// every call, the next have to wait.
		_ = b.refused(ctx, e, &token.Failure{Class: token.Malformed, Message: "the issuer's tokens end before they can be handed out"})
		return t, nil
	}
	if held := e.token.Load(); o.ahead && held != nil && held.ID == o.replaces && held.ID != t.ID {
		b.observer.Replaced(time.Until(held.Expires))
	}
	bought := *t
	if o.forced {
		bought.Replaced = o.replaces
	}
	if o.replaces == "" && crowd {
		return b.keep(ctx, e, &bought, token.CrowdRefreshPoint), nil
	}
	return b.keep(ctx, e, &bought, token.RefreshPoint), nil
}

// exchange asks the issuer with the tenant's secret, and, if it is refused, once
// with the one before it.
func (b *Broker) exchange(ctx context.Context, e *entry) (*token.Token, error) {
	t, err := b.try(ctx, *e.credential)
	var f *token.Failure
	if !errors.As(err, &f) || f.Class != token.CredentialsRejected {
		return t, err
	}
	s, former, ok := e.fallback(time.Now())
	if !ok {
		return nil, err
	}
	t, formerErr := b.try(ctx, former)
	if formerErr != nil {
		if errors.As(formerErr, &f) && f.Class.Permanent() {
			return nil, err
		}
		return nil, formerErr // It is not known yet that both are refused.
	}
	b.log.WarnContext(ctx, "the client secret is refused, its predecessor is accepted",
		"tenant", s.tenant.ID, "fallback_until", s.tenant.FallbackUntil)
	return t, nil
}

// try makes one exchange and counts it.
func (b *Broker) try(ctx context.Context, c token.Credential) (*token.Token, error) {
	begun := time.Now()
	t, err := b.issuer.Exchange(ctx, c)
	var f *token.Failure
	switch {
	case err == nil:
		b.stats.bought.Add(1)
		b.observer.Exchanged(c.Endpoint, "", time.Since(begun))
	case errors.As(err, &f):
		b.stats.fail(f.Class)
		b.observer.Exchanged(c.Endpoint, f.Class, time.Since(begun))
	}
	return t, err
}

// keep draws the token's refresh point, saves it, and returns the token that is
// held then: another one if that was issued later. The token is paid for, so it
// is saved even if nobody waits for it any more.
func (b *Broker) keep(ctx context.Context, e *entry, t *token.Token, refreshPoint func(issued, expires time.Time, draw float64) time.Time) *token.Token {
	kept := *t
	if held := e.token.Load(); held != nil && held.ID == t.ID && held.Expires.Before(t.Expires) {
		// Issuers and caches in front of them give the same token again with a
		// full expires_in. It does not live longer for that; what is left is its
		// life from now on.
		kept.Expires = held.Expires
	}
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), storeTimeout)
	defer cancel()
	stored := &kept
	for range 2 {
		kept.RefreshAt = refreshPoint(kept.Issued, kept.Expires, rand.Float64())
		var err error
		if stored, err = b.store.Save(ctx, e.key(), &kept); err != nil {
			b.outage(ctx, "token not saved, other replicas will buy their own", err)
			stored = &kept
		}
		if stored.ID != kept.ID || !stored.Due(time.Now()) {
			break
		}
		// The store knew the token, and that it ends sooner: again, with its true
		// end and a refresh point before that.
		kept.Expires = stored.Expires
	}
	e.adopt(b, stored)
	return stored
}

// refused remembers the failure, for this replica and all, and returns it.
func (b *Broker) refused(ctx context.Context, e *entry, f *token.Failure) *token.Failure {
	remembered := *f
	remembered.Streak = 1
	if before := e.failure.Load(); before != nil && time.Now().Before(before.RetryAt.Add(streakMemory)) {
		remembered.Streak = before.Streak + 1
	}
	now := time.Now()
	hold := remembered.Hold(rand.Float64())
	if held := e.usable(now, 0); held != nil && !f.Class.Permanent() {
		// There is as much time to try in as the token that is held has left. What is
		// tried for that reason does not make later pauses longer.
		most := max(held.SafeEnd().Sub(now)/2, minHold, min(f.RetryAfter, token.MaxRetryAfter))
		if hold > most {
			hold, remembered.Streak = most, max(1, remembered.Streak-1)
		}
	}
	remembered.RetryAt = now.Add(hold)
	b.log.WarnContext(ctx, "no token bought", "tenant", e.subject.Load().tenant.ID, "key", e.digest,
		"class", f.Class, "message", f.Message, "retry_at", remembered.RetryAt)
	e.fail(b, &remembered)
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), storeTimeout)
	defer cancel()
	if err := b.store.SaveFailure(ctx, e.key(), &remembered); err != nil {
		b.outage(ctx, "failure not saved, other replicas will meet it too", err)
	}
	return &remembered
}

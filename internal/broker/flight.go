package broker

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"hash/maphash"
	mathrand "math/rand/v2"
	"runtime/debug"
	"time"

	"golang.org/x/sync/singleflight"

	"smokeball.internal/tokenbroker/internal/token"
)

const (
	// exchangeTimeout bounds an exchange. The issuer bounds its own, with all its
	// attempts, by ten seconds, and has more to say when it fails.
	exchangeTimeout = 11 * time.Second
	// leaseTTL is how long a replica that dies keeps the others from buying: the
	// look, the exchange and the saving that are done under the lease.
	leaseTTL = storeTimeout + exchangeTimeout + storeTimeout
	// flightTimeout leaves room to wait for a lease that was left behind, and then
	// for a turn, and to buy.
	flightTimeout = leaseTTL + urgentPatience + exchangeTimeout + 3*storeTimeout
	// Who waits for another replica looks this often, and less and less often, in
	// case that the announcement is lost.
	pollInterval    = 100 * time.Millisecond
	maxPollInterval = 500 * time.Millisecond
	// The shortest pause after a failure, however little time is left.
	minHold = time.Second
)

// order says what a flight is to bring.
type order struct {
	replaces string // the id of a token that is not wanted any more; empty: any will do
	forced   bool   // because Smokeball rejected it
	owner    string // of the lease; the flight sets it
}

// fly starts a flight for the entry, or joins the one that is under way. It
// brings a token that is not the one to be replaced. A flight belongs to the
// broker, not to whoever started it, and what it brings is kept; so the
// channel, which gets one value, need not be read.
func (b *Broker) fly(e *entry, o order) <-chan singleflight.Result {
	// What is to be replaced is part of the name: who needs another token must
	// not be given the old one because somebody asked for just any.
	return b.flights.DoChan(e.digest+"/"+o.replaces, func() (any, error) {
		t, err := b.task(flightTimeout, func(ctx context.Context) (any, error) { return b.renew(ctx, e, o) })
		if errors.Is(err, errPanic) {
			e.fail(b, &token.Failure{Class: token.Unavailable, Message: err.Error(), RetryAt: time.Now().Add(time.Second)})
		}
		return t, err
	})
}

var errPanic = errors.New("internal error")

// task does work that is the broker's own, within a time, and not after Close.
func (b *Broker) task(within time.Duration, work func(context.Context) (any, error)) (_ any, err error) {
	if !b.tasks.begin() {
		return nil, ErrClosed
	}
	defer b.tasks.end()
	// singleflight lets a panic end the process. Its value may be anything, and is
	// not logged.
	defer func() {
		if p := recover(); p != nil {
			b.log.Error("panic in the broker", "type", fmt.Sprintf("%T", p), "stack", string(debug.Stack()))
			err = errPanic
		}
	}()
	ctx, cancel := context.WithTimeout(b.ctx, within)
	defer cancel()
	return work(ctx)
}

// join waits for a flight until ctx ends.
func (b *Broker) join(ctx context.Context, e *entry, o order) (*token.Token, error) {
	e.waiters.Add(1)
	defer e.waiters.Add(-1)
	for {
		select {
		case r := <-b.fly(e, o):
			switch {
			case errors.Is(r.Err, errPutOff):
				continue // That was decided when nobody waited.
			case r.Err != nil:
				return nil, r.Err
			}
			b.stats.waited.Add(1)
			return r.Val.(*token.Token), nil
		case <-ctx.Done():
			return nil, ctx.Err()
		}
	}
}

// renew is the way of a flight: what the store has; else, under the lease, what
// the store has by then; else what the issuer sells. Without the store it goes
// straight to the issuer.
func (b *Broker) renew(ctx context.Context, e *entry, o order) (*token.Token, error) {
	o.owner = rand.Text()
	for pause := pollInterval; ; pause = min(2*pause, maxPollInterval) {
		t, err := b.look(ctx, e, o.replaces)
		switch {
		case errors.Is(err, ErrStore):
			return b.buy(ctx, e, o)
		case t != nil || err != nil:
			return t, err
		}
		if err := b.resting(e); err != nil {
			return nil, err
		}
		acquired, err := b.store.Lease(ctx, e.key, o.owner, leaseTTL)
		switch {
		case err != nil:
			b.log.WarnContext(ctx, "store is out of reach: a token is bought without asking the other replicas", "error", err)
			return b.buy(ctx, e, o)
		case acquired:
			defer b.release(e, o)
			// Whoever had the lease before may have brought a token.
			if t, err := b.look(ctx, e, o.replaces); t != nil || err != nil && !errors.Is(err, ErrStore) {
				return t, err
			}
			return b.buy(ctx, e, o)
		}
		select {
		case <-e.woken:
		case <-time.After(pause/2 + mathrand.N(pause)):
		case <-ctx.Done():
			if b.ctx.Err() != nil {
				return nil, ErrClosed
			}
			f := &token.Failure{Class: token.Unavailable, Message: "another replica holds the lease and brings no token", RetryAt: time.Now().Add(time.Second)}
			e.fail(b, f)
			return nil, f
		}
	}
}

func (b *Broker) release(e *entry, o order) {
	ctx, cancel := context.WithTimeout(context.WithoutCancel(b.ctx), storeTimeout)
	defer cancel()
	if err := b.store.Release(ctx, e.key, o.owner); err != nil {
		b.log.WarnContext(ctx, "lease not released, it ends by itself", "key", e.digest, "error", err)
	}
}

// look returns what the store has for the entry: a token that is not the one to
// be replaced, nor older than the one that is held, or the failure that another
// replica has met; nil if there is neither; ErrStore if it is out of reach.
func (b *Broker) look(ctx context.Context, e *entry, replaces string) (*token.Token, error) {
	ctx, cancel := context.WithTimeout(ctx, storeTimeout)
	defer cancel()
	t, f, err := b.store.Load(ctx, e.key)
	now := time.Now()
	switch {
	case err != nil:
		b.log.WarnContext(ctx, "store is out of reach: what other replicas have is not seen", "error", err)
		return nil, fmt.Errorf("%w: %w", ErrStore, err)
	case t.Usable(now, 0) && t.ID != replaces && e.adopt(b, t.Standby(b.draw(t.ID))):
		return t, nil
	case f.Holds(now):
		e.fail(b, f)
		return nil, f
	}
	return nil, nil
}

// follow takes over the token with this id that another replica has brought.
func (b *Broker) follow(e *entry, tokenID string) {
	// A look for the token before this one may have been too early for it.
	b.flights.DoChan(e.digest+"/follow/"+tokenID, func() (any, error) {
		return b.task(storeTimeout, func(ctx context.Context) (any, error) { return b.look(ctx, e, "") })
	})
}

// draw returns a number in [0, 1) that is this replica's own for the token, and
// the same at each look.
func (b *Broker) draw(tokenID string) float64 {
	return float64(maphash.String(b.seed, tokenID)>>11) / (1 << 53)
}

// compare has the token that is held compared with the store's, now that its
// tenant was read again: another replica may have replaced it unheard, and a store
// that has lost it gets it back.
func (b *Broker) compare(e *entry) {
	b.flights.DoChan(e.digest+"/compare", func() (any, error) {
		return b.task(2*storeTimeout, func(ctx context.Context) (any, error) {
			stored, err := b.look(ctx, e, "")
			held := e.usable(time.Now(), 0)
			if stored != nil || err != nil || held == nil {
				return nil, err
			}
			_, err = b.store.Save(ctx, e.key, held)
			return nil, err
		})
	})
}

// buy makes the exchange, when it is its turn, and keeps what it brings, for this
// replica and all.
func (b *Broker) buy(ctx context.Context, e *entry, o order) (*token.Token, error) {
	crowd, err := b.turn(ctx, e, o)
	if err != nil {
		return nil, err
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
	t, err := b.try(ctx, e.credential)
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
	t, err := b.issuer.Exchange(ctx, c)
	var f *token.Failure
	switch {
	case err == nil:
		b.stats.bought.Add(1)
	case errors.As(err, &f):
		b.stats.fail(f.Class)
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
		kept.RefreshAt = refreshPoint(kept.Issued, kept.Expires, mathrand.Float64())
		var err error
		if stored, err = b.store.Save(ctx, e.key, &kept); err != nil {
			b.log.WarnContext(ctx, "token not saved, other replicas will buy their own", "error", err)
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
	hold := remembered.Hold(mathrand.Float64())
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
	if err := b.store.SaveFailure(ctx, e.key, &remembered); err != nil {
		b.log.WarnContext(ctx, "failure not saved, other replicas will meet it too", "error", err)
	}
	return &remembered
}

package broker

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"hash/maphash"
	"log/slog"
	mathrand "math/rand/v2"
	"runtime/debug"
	"time"

	"go.opentelemetry.io/otel/attribute"
	"go.opentelemetry.io/otel/trace"
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
	// flightTimeout leaves room to wait for a lease that was left behind by somebody
	// who waited for a turn, and then for a turn, and to buy.
	flightTimeout = urgentPatience + leaseTTL + urgentPatience + exchangeTimeout + 3*storeTimeout
	// Who waits for another replica looks this often, and less and less often, in
	// case that the announcement is lost.
	pollInterval    = 100 * time.Millisecond
	maxPollInterval = 500 * time.Millisecond
)

// order says what a flight is to bring.
type order struct {
	replaces string  // the id of a token that is not wanted any more; empty: any will do
	forced   bool    // because Smokeball rejected it
	ahead    bool    // behind its callers' backs, before anybody waits for it
	owner    string  // of the lease; the flight sets it
	from     *origin // where what it brings came from, set by the flight that this order begins; nil: nobody asks
	by       asker   // who has it begun, for traces
}

// origin is where a flight had its token from. The zero origin is of an order that
// has begun none, but joined another's.
type origin int

const (
	ofStore origin = iota + 1 // or from memory, where it had come to meanwhile
	ofIssuer
)

// came notes where a token comes from, if there is one.
func (o order) came(from origin) {
	if o.from != nil {
		*o.from = from
	}
}

// fly starts a flight for the entry, or joins the one that is under way. It
// brings a token that is not the one to be replaced. A flight belongs to the
// broker, not to whoever started it, and what it brings is kept; so the
// channel, which gets one landing, need not be read.
func (b *Broker) fly(e *entry, o order) <-chan singleflight.Result {
	// What is to be replaced is part of the name: who needs another token must
	// not be given the old one because somebody asked for just any.
	return b.flights.DoChan(e.flight(o), func() (any, error) {
		l, err := b.land(flightTimeout, "flight", e.flight(o), o.by, func(ctx context.Context) (any, error) {
			span := trace.SpanFromContext(ctx)
			about(span, e)
			t, err := b.renew(ctx, e, o)
			if t != nil {
				span.SetAttributes(attribute.String("tokenbroker.token_id", t.ID))
			}
			return t, err
		})
		if errors.Is(err, errPanic) {
			e.fail(b, &token.Failure{Class: token.Unavailable, Message: err.Error(), RetryAt: time.Now().Add(time.Second)})
		}
		return l, err
	})
}

// flight returns the name of the flight that an order begins, or joins.
func (e *entry) flight(o order) string { return e.digest + "/" + o.replaces }

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
	w, by := b.wait(ctx, "wait for token")
	about(w, e)
	o.by = by
	for {
		var from origin // Another one for each flight, which may outlive this call.
		o.from = &from
		select {
		case r := <-b.fly(e, o):
			if errors.Is(r.Err, errPutOff) {
				continue // That was decided when nobody waited.
			}
			l := r.Val.(landing)
			w.end(l.work, r.Err)
			if r.Err != nil {
				return nil, r.Err
			}
			b.stats.answered(from)
			return l.value.(*token.Token), nil
		case <-ctx.Done():
			w.end(b.underWay(e.flight(o)), ctx.Err())
			return nil, ctx.Err()
		}
	}
}

// renew is the way of a flight: what the store has; else, under the lease, what
// the store has by then; else what the issuer sells. Without the store it goes
// straight to the issuer.
func (b *Broker) renew(ctx context.Context, e *entry, o order) (*token.Token, error) {
	o.owner = rand.Text()
	o.came(ofStore) // Unless it is bought.
	woken, done := e.listen()
	defer done()
	waited := false
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
		acquired, err := b.store.Lease(ctx, e.key(), o.owner, leaseTTL)
		switch {
		case err != nil:
			b.outage(ctx, "store is out of reach: a token is bought without asking the other replicas", err)
			return b.buy(ctx, e, o)
		case acquired:
			defer b.release(e, o)
			// Whoever had the lease before may have brought a token.
			if t, err := b.look(ctx, e, o.replaces); t != nil || err != nil && !errors.Is(err, ErrStore) {
				return t, err
			}
			if waited {
				b.stats.takeovers.Add(1)
			}
			return b.buy(ctx, e, o)
		}
		if !waited {
			waited = true
			b.stats.leaseWaits.Add(1)
			trace.SpanFromContext(ctx).AddEvent("another replica has the lease")
		}
		select {
		case <-woken:
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
	if err := b.store.Release(ctx, e.key(), o.owner); err != nil {
		b.outage(ctx, "lease not released, it ends by itself", err)
	}
}

// outage logs what could not be done without the store: for ten thousand tenants it
// is the same.
func (b *Broker) outage(ctx context.Context, what string, err error) {
	level := slog.LevelDebug
	b.outages.Do(func() { level = slog.LevelWarn })
	b.log.Log(ctx, level, what, "error", err) //nolint:sloglint // The callers' messages are constant.
}

// look returns what the store has for the entry: a token that is not the one to
// be replaced, nor older than the one that is held, or the failure that another
// replica has met; nil if there is neither; ErrStore if it is out of reach.
func (b *Broker) look(ctx context.Context, e *entry, replaces string) (*token.Token, error) {
	ctx, cancel := context.WithTimeout(ctx, storeTimeout)
	defer cancel()
	t, f, err := b.store.Load(ctx, e.key())
	now := time.Now()
	switch {
	case err != nil:
		b.outage(ctx, "store is out of reach: what other replicas have is not seen", err)
		return nil, fmt.Errorf("%w: %w", ErrStore, err)
	case t.Usable(now, 0) && t.ID != replaces && e.take(b, t.Standby(b.draw(t.ID))):
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
			_, err = b.store.Save(ctx, e.key(), held)
			return nil, err
		})
	})
}

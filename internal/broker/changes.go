package broker

import (
	"context"
	"fmt"
	"math/rand/v2"
	"sync"
	"sync/atomic"
	"time"
)

// TokenChanged tells the broker that a token with this id, or, if it is empty, a
// failure, was saved under the key with this digest.
func (b *Broker) TokenChanged(digest, tokenID string) {
	e, ok := b.entries.Load(digest)
	if !ok {
		return
	}
	if held := e.token.Load(); tokenID != "" && (held == nil || held.ID != tokenID) {
		b.follow(e, tokenID)
	}
	e.wake()
}

// TenantChanged tells the broker that the tenant is not what it was, and whether
// it is to be kept warm. It may have been disabled: unlike after a Resync, what is
// in memory is not used again.
func (b *Broker) TenantChanged(id string, warm bool) {
	b.loads.Forget(id) // Who asks from now on does not join a read from before.
	b.subjectsMu.Lock()
	defer b.subjectsMu.Unlock()
	for r := range b.reads {
		r.outdated = r.outdated || r.id == id
	}
	b.subjects.Delete(id)
	b.bells.ring(id)
	if warm {
		b.behind("warm/"+id, func(ctx context.Context) error { return b.warm(ctx, id, 0) })
	}
}

// Resync tells the broker that it may have missed changes, as it has before it was
// told of the first. Tenants and tokens in memory are compared with the store's
// when they are next asked for, and the tenants that are kept warm are found.
func (b *Broker) Resync() {
	b.subjectsMu.Lock()
	epoch := b.epoch.Add(1) // What is being read has the epoch from before.
	b.subjectsMu.Unlock()
	b.bells.ringAll()
	now, after := time.Now(), ""
	b.hearing.resync.Store(&now)
	b.behind(fmt.Sprintf("warm/%d", epoch), func(ctx context.Context) error { return b.warmAll(ctx, epoch, &after) })
}

// Heard tells the broker that it has been told of all changes up to now.
func (b *Broker) Heard() { b.hearing.heard(b) }

// hearing bounds how long the broker goes by what it was told.
type hearing struct {
	patience time.Duration
	deaf     atomic.Bool               // nothing was heard for that long
	resync   atomic.Pointer[time.Time] // the last one; a registry that is lost was lost by then

	mu     sync.Mutex
	timer  *time.Timer // ends the patience; nil until there is something to bound
	closed bool
}

// resynced returns when the last Resync was.
func (h *hearing) resynced() time.Time {
	if at := h.resync.Load(); at != nil {
		return *at
	}
	return time.Time{}
}

// start has the patience begin, unless it has.
func (h *hearing) start(b *Broker) {
	h.mu.Lock()
	defer h.mu.Unlock()
	if h.timer == nil && !h.closed {
		h.timer = time.AfterFunc(h.patience, func() { h.lose(b) })
	}
}

func (h *hearing) heard(b *Broker) {
	h.start(b)
	h.mu.Lock()
	defer h.mu.Unlock()
	if h.closed {
		return
	}
	h.timer.Reset(h.patience)
	if h.deaf.Swap(false) {
		b.log.Info("changes are heard again")
		b.Resync()
	}
}

// lose has every tenant read from the store, for each call, until something is
// heard again.
func (h *hearing) lose(b *Broker) {
	if !b.tasks.begin() {
		return
	}
	defer b.tasks.end()
	h.deaf.Store(true)
	b.subjectsMu.Lock()
	defer b.subjectsMu.Unlock()
	b.epoch.Add(1)
	b.bells.ringAll()
	b.log.Error("changes have not been heard for too long: tenants in memory are not served any more", "max_staleness", h.patience.String())
}

func (h *hearing) close() {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.closed = true
	if h.timer != nil {
		h.timer.Stop()
	}
}

const (
	// How many tenants are asked for at once of those that are kept warm.
	warmPage = 500
	// The tenants that are found to be kept warm are bought for within this time,
	// or as the budget allows.
	warmSpread = 10 * time.Second
	// The wait before what nobody waits for is tried again.
	warmRetry = 2 * time.Second
	// Longer than any broker lives.
	forEver = 100 * 365 * 24 * time.Hour
)

// behind does work that nobody waits for, again and again until it succeeds.
func (b *Broker) behind(name string, work func(context.Context) error) {
	b.flights.Forget(name) // What was begun before may have seen what was there before.
	b.flights.DoChan(name, func() (any, error) {
		return b.task(forEver, func(ctx context.Context) (any, error) {
			for work(ctx) != nil {
				select {
				case <-time.After(warmRetry):
				case <-ctx.Done():
					return nil, ctx.Err()
				}
			}
			return nil, nil
		})
	})
}

// warmAll sees to it that every tenant that is kept warm has a token, also one
// that nobody has asked for here, from the first behind *after on. It goes as far
// as the store answers, and no further once another Resync has taken over.
func (b *Broker) warmAll(ctx context.Context, epoch uint64, after *string) error {
	for b.epoch.Load() == epoch {
		ids, next, err := b.tenants.WarmTenants(ctx, *after, warmPage)
		if err != nil {
			return err
		}
		for _, id := range ids {
			if err := b.warm(ctx, id, rand.N(warmSpread)); err != nil {
				return err
			}
			*after = id
		}
		if next == "" {
			return nil
		}
	}
	return nil
}

// warm has the tenant looked after from a moment in this time on, if it is to be
// kept warm. An error means that it could not be looked up.
func (b *Broker) warm(ctx context.Context, id string, within time.Duration) error {
	s, err := b.subject(ctx, id)
	if isOutage(err) {
		return err
	}
	if s == nil || !s.tenant.KeepWarm || s.tenant.Disabled {
		return nil // Whoever asks for it is told why there is none.
	}
	e := b.entry(s, &s.credential, s.digest)
	if e.token.Load() == nil {
		e.wait(b, time.Now().Add(within))
	}
	return nil
}

package broker

import (
	"context"
	"errors"
	"fmt"
	"sync/atomic"
	"time"

	"smokeball.internal/tokenbroker/internal/tenant"
	"smokeball.internal/tokenbroker/internal/token"
)

const (
	// Redis answers in well under a millisecond or is in trouble.
	storeTimeout = 2 * time.Second
	// How long a caller waits for a tenant to be read again while one is in memory
	// that is perhaps out of date.
	staleWait = 100 * time.Millisecond
)

// subject is a tenant with what is worked out from it once: all in one piece of memory,
// and what an answer looks at first.
type subject struct {
	entry      atomic.Pointer[entry]     // for the registered scopes; nil: it was not asked for since there is one
	readAgain  atomic.Pointer[time.Time] // not before this time; nil: whenever it is out of date
	epoch      uint64                    // Broker.epoch when it was read
	digest     string                    // of the credential's key
	apiBaseURL string
	tenant     tenant.Tenant
	credential token.Credential // with the registered scopes
}

func (b *Broker) newSubject(t *tenant.Tenant) *subject {
	c := token.Credential{
		Endpoint: b.issuer.TokenEndpoint(t),
		ClientID: t.ClientID,
		SecretID: t.Secret.ID,
		Secret:   t.Secret.Value,
		Scopes:   t.Scopes,
	}
	return &subject{tenant: *t, apiBaseURL: b.issuer.APIBaseURL(t), credential: c, digest: c.Key().Digest()}
}

// read is a look-up of a tenant that is under way.
type read struct {
	id       string
	outdated bool // the tenant was heard to change since the read began
}

// subject returns the tenant from memory, else from the store. After a Resync it
// is read again; if that does not succeed soon, what is in memory does for now,
// within the bound of Config.MaxStaleness.
func (b *Broker) subject(ctx context.Context, id string) (*subject, error) {
	held, ok := b.subjects.Load(id)
	if !ok {
		return b.reload(ctx, id)
	}
	if held.epoch == b.epoch.Load() {
		return held, nil
	}
	if b.hearing.deaf.Load() {
		return b.reload(ctx, id)
	}
	if again := held.readAgain.Load(); again != nil && time.Now().Before(*again) {
		return held, nil
	}
	soon, cancel := context.WithTimeout(ctx, staleWait)
	defer cancel()
	s, err := b.reload(soon, id)
	now := time.Now()
	switch {
	case errors.Is(err, tenant.ErrLost) && now.Sub(b.hearing.resynced()) >= b.hearing.patience:
		drop(b.subjects, id, held)
	case isOutage(err) && ctx.Err() == nil:
		again := now.Add(time.Second)
		held.readAgain.Store(&again)
		return held, nil
	}
	return s, err
}

// isOutage says whether err means that a tenant could not be looked up, as
// against that there is none to be had.
func isOutage(err error) bool {
	return errors.Is(err, ErrStore) || errors.Is(err, tenant.ErrLost) || errors.Is(err, context.Canceled) || errors.Is(err, context.DeadlineExceeded)
}

// reload returns the tenant from the store and keeps it in memory until it is
// heard to have changed.
func (b *Broker) reload(ctx context.Context, id string) (*subject, error) {
	w, by := b.wait(ctx, "wait for tenant")
	ch := b.loads.DoChan(id, func() (any, error) {
		return b.land(storeTimeout, "look up tenant", "tenant/"+id, by, func(ctx context.Context) (any, error) { return b.read(ctx, id) })
	})
	select {
	case r := <-ch:
		l := r.Val.(landing)
		w.end(l.work, r.Err)
		if r.Err != nil {
			return nil, r.Err
		}
		return l.value.(*subject), nil
	case <-ctx.Done():
		w.end(b.underWay("tenant/"+id), ctx.Err())
		return nil, ctx.Err()
	}
}

func (b *Broker) read(ctx context.Context, id string) (*subject, error) {
	r := &read{id: id}
	b.subjectsMu.Lock()
	b.reads[r] = true
	epoch := b.epoch.Load()
	b.subjectsMu.Unlock()
	defer func() { // Also after a panic.
		b.subjectsMu.Lock()
		defer b.subjectsMu.Unlock()
		delete(b.reads, r)
	}()

	t, err := b.tenants.Tenant(ctx, id)

	b.subjectsMu.Lock()
	defer b.subjectsMu.Unlock()
	switch {
	case errors.Is(err, tenant.ErrNotFound), errors.Is(err, tenant.ErrUnreadable):
		b.subjects.Delete(id)
		return nil, err
	case errors.Is(err, tenant.ErrLost):
		return nil, err
	case err != nil:
		return nil, fmt.Errorf("%w: %w", ErrStore, err)
	}
	s := b.newSubject(t)
	s.epoch = epoch
	// What was read before a change may be out of date, and so may soon be what is
	// read while changes are not heard. It is good for this call, which began before
	// the change too.
	if !r.outdated && !b.hearing.deaf.Load() {
		b.subjects.Store(t.ID, s)
		b.hearing.start(b)
	}
	return s, nil
}

// fallback returns the credential with the secret before this one, if it may
// still be tried at now.
func (s *subject) fallback(c token.Credential, now time.Time) (token.Credential, bool) {
	if s.tenant.Fallback.Value.IsZero() || !now.Before(s.tenant.FallbackUntil) {
		return token.Credential{}, false
	}
	c.Secret, c.SecretID = s.tenant.Fallback.Value, s.tenant.Fallback.ID
	return c, true
}

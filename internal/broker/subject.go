package broker

import (
	"context"
	"errors"
	"fmt"
	"time"

	"smokeball.internal/tokenbroker/internal/tenant"
	"smokeball.internal/tokenbroker/internal/token"
)

// Redis answers in well under a millisecond or is in trouble.
const storeTimeout = 2 * time.Second

// subject is a tenant with what is worked out from it once.
type subject struct {
	tenant     *tenant.Tenant
	apiBaseURL string
	credential token.Credential // with the registered scopes
	digest     string           // of the credential's key
	epoch      uint64           // Broker.epoch when it was read
}

func (b *Broker) newSubject(t *tenant.Tenant) *subject {
	c := token.Credential{
		Endpoint: b.issuer.TokenEndpoint(t),
		ClientID: t.ClientID,
		SecretID: t.Secret.ID,
		Secret:   t.Secret.Value,
		Scopes:   t.Scopes,
	}
	return &subject{tenant: t, apiBaseURL: b.issuer.APIBaseURL(t), credential: c, digest: c.Key().Digest()}
}

// subject returns the tenant from memory, else from the store. After a Resync it
// is read again, but what is in memory does if the store is away once more.
func (b *Broker) subject(ctx context.Context, id string) (*subject, error) {
	v, ok := b.subjects.Load(id)
	if ok && v.(*subject).epoch == b.epoch.Load() {
		return v.(*subject), nil
	}
	s, err := b.reload(ctx, id)
	if ok && errors.Is(err, ErrStore) {
		return v.(*subject), nil
	}
	return s, err
}

// reload returns the tenant from the store and keeps it in memory until it is
// heard to have changed.
func (b *Broker) reload(ctx context.Context, id string) (*subject, error) {
	ch := b.loads.DoChan(id, func() (any, error) {
		return b.task(storeTimeout, func(ctx context.Context) (any, error) { return b.read(ctx, id) })
	})
	select {
	case r := <-ch:
		if r.Err != nil {
			return nil, r.Err
		}
		return r.Val.(*subject), nil
	case <-ctx.Done():
		return nil, ctx.Err()
	}
}

func (b *Broker) read(ctx context.Context, id string) (*subject, error) {
	b.subjectsMu.Lock()
	before, epoch := b.generation, b.epoch.Load()
	b.subjectsMu.Unlock()
	t, err := b.tenants.Tenant(ctx, id)
	switch {
	case errors.Is(err, tenant.ErrNotFound), errors.Is(err, tenant.ErrUnreadable):
		b.forget(id)
		return nil, err
	case err != nil:
		return nil, fmt.Errorf("%w: %w", ErrStore, err)
	}
	s := b.newSubject(t)
	s.epoch = epoch
	// What was read before a change that is heard of by now may be out of date. It
	// is good for this call, which began before the change too.
	b.subjectsMu.Lock()
	defer b.subjectsMu.Unlock()
	if b.generation == before {
		b.subjects.Store(id, s)
	}
	return s, nil
}

func (b *Broker) forget(id string) {
	b.subjectsMu.Lock()
	b.generation++
	b.subjects.Delete(id)
	b.subjectsMu.Unlock()
	b.loads.Forget(id)
}

// TenantChanged tells the broker that the tenant is not what it was. It may have
// been disabled: unlike after a Resync, what is in memory is not used again.
func (b *Broker) TenantChanged(id string) { b.forget(id) }

// Resync tells the broker that it may have missed changes.
func (b *Broker) Resync() {
	b.subjectsMu.Lock()
	defer b.subjectsMu.Unlock()
	b.generation++
	b.epoch.Add(1)
}

// credentialFor returns the credential and the digest of its key for scopes; nil
// scopes are the registered ones.
func (s *subject) credentialFor(scopes []string) (token.Credential, string, error) {
	if len(scopes) == 0 {
		return s.credential, s.digest, nil
	}
	if !s.tenant.Admits(scopes) {
		return token.Credential{}, "", ErrScopeNotRegistered
	}
	c := s.credential
	c.Scopes = token.CanonicalScopes(scopes)
	return c, c.Key().Digest(), nil
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

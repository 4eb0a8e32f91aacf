package broker

import (
	"context"
	"errors"
	"fmt"
	"iter"
	"maps"
	"time"

	"smokeball.internal/tokenbroker/internal/secret"
	"smokeball.internal/tokenbroker/internal/tenant"
	"smokeball.internal/tokenbroker/internal/token"
)

// Records is where tenants are kept. Errors are those of package tenant; any
// other means that the store could not be asked, and that a change may have been
// made or not.
type Records interface {
	Tenants
	// ListTenants returns up to limit tenants in the order of their ids, behind
	// the id after, and the id that the next page is behind; empty if there is none.
	ListTenants(ctx context.Context, after string, limit int) (tenants []*tenant.Tenant, next string, err error)
	// FindTenants is ListTenants for those whose ids have part in them.
	FindTenants(ctx context.Context, part, after string, limit int) (tenants []*tenant.Tenant, next string, err error)
	// CreateTenant registers t, or returns tenant.ErrExists.
	CreateTenant(ctx context.Context, t tenant.Tenant) (*tenant.Tenant, error)
	// UpdateTenant replaces the tenant if it is at version t.Etag, or returns
	// tenant.ErrNotFound or tenant.ErrConflict. A secret with another ID than its
	// own, or none, is noted as new.
	UpdateTenant(ctx context.Context, t tenant.Tenant) (*tenant.Tenant, error)
	// DeleteTenant removes the tenant if it is at this version, or returns
	// tenant.ErrConflict. That there is none is no error.
	DeleteTenant(ctx context.Context, id, etag string) error
	// SecretID returns the name that a secret gets when it is registered.
	SecretID(s secret.Text) (string, error)
}

// Registry is the administrators' side of a broker. It is safe for concurrent
// use.
type Registry struct {
	broker  *Broker
	records Records
}

// NewRegistry returns the registry of what b hands out tokens for.
func NewRegistry(b *Broker, records Records) *Registry { return &Registry{b, records} }

// Tenant returns a tenant as it is stored now.
func (r *Registry) Tenant(ctx context.Context, id string) (*tenant.Tenant, error) {
	t, err := r.records.Tenant(ctx, id)
	return t, outage(err)
}

// minScan is how many tenants are read together where the first are not those that
// are looked for.
const minScan = 200

// List ranges over the tenants whose ids have part in them, in the order of their
// ids, from the first behind after. first is how many are read at first. An error
// is the last that it yields: ErrStore, or that of ctx.
func (r *Registry) List(ctx context.Context, part, after string, first int) iter.Seq2[*tenant.Tenant, error] {
	return func(yield func(*tenant.Tenant, error) bool) {
		for more, scan := true, first; more; scan = max(scan, minScan) {
			var tenants []*tenant.Tenant
			var err error
			if part == "" {
				tenants, after, err = r.records.ListTenants(ctx, after, scan)
			} else {
				tenants, after, err = r.records.FindTenants(ctx, part, after, scan)
			}
			if err != nil {
				yield(nil, outage(err))
				return
			}
			for _, t := range tenants {
				if !yield(t, nil) {
					return
				}
			}
			more = after != ""
		}
	}
}

// Create registers t. With validateOnly it does not, but says whether it would.
// Errors: *tenant.FieldError, tenant.ErrExists, ErrStore.
func (r *Registry) Create(ctx context.Context, t tenant.Tenant, validateOnly bool) (*tenant.Tenant, error) {
	t.Scopes = token.CanonicalScopes(t.Scopes)
	if err := t.Validate(); err != nil {
		return nil, err
	}
	if validateOnly {
		switch _, err := r.records.Tenant(ctx, t.ID); {
		case err == nil, errors.Is(err, tenant.ErrUnreadable):
			return nil, tenant.ErrExists
		case !errors.Is(err, tenant.ErrNotFound) && !errors.Is(err, tenant.ErrLost):
			return nil, outage(err)
		}
		return &t, nil
	}
	created, err := r.records.CreateTenant(ctx, t)
	return created, outage(err)
}

// Update changes a tenant by change, which may be called more than once. If etag
// is not empty, the tenant must be at that version. Errors: what change returns,
// *tenant.FieldError, tenant.ErrNotFound, tenant.ErrConflict, ErrStore.
func (r *Registry) Update(ctx context.Context, id, etag string, validateOnly bool, change func(*tenant.Tenant) error) (*tenant.Tenant, error) {
	for tries := 1; ; tries++ {
		current, err := r.at(ctx, id, etag)
		if err != nil {
			return nil, err
		}
		next := *current
		next.Labels = maps.Clone(current.Labels)
		if err := change(&next); err != nil {
			return nil, err
		}
		next.Scopes = token.CanonicalScopes(next.Scopes)
		if err := next.Validate(); err != nil {
			return nil, err
		}
		if validateOnly {
			return &next, nil
		}
		updated, err := r.records.UpdateTenant(ctx, next)
		if err == nil {
			r.broker.TenantChanged(id, updated.KeepWarm) // Whoever is told that it is done finds it done.
		}
		if errors.Is(err, tenant.ErrConflict) && etag == "" && tries < 5 {
			continue // Somebody else was quicker; the caller named no version.
		}
		return updated, outage(err)
	}
}

// Delete removes a tenant; if etag is not empty, at that version only. Errors:
// tenant.ErrNotFound, tenant.ErrConflict, ErrStore.
func (r *Registry) Delete(ctx context.Context, id, etag string, validateOnly bool) error {
	for tries := 1; ; tries++ {
		// A record that cannot be opened can be removed.
		current, err := r.records.Tenant(ctx, id)
		if err != nil && !errors.Is(err, tenant.ErrUnreadable) {
			return outage(err)
		}
		if etag != "" && etag != current.Etag {
			return tenant.ErrConflict
		}
		if validateOnly {
			return nil
		}
		err = r.records.DeleteTenant(ctx, id, current.Etag)
		if err == nil {
			r.broker.TenantChanged(id, false)
		}
		if errors.Is(err, tenant.ErrConflict) && etag == "" && tries < 5 {
			continue
		}
		return outage(err)
	}
}

// Rotation is a change of a client secret.
type Rotation struct {
	// Secret is the new one.
	Secret secret.Text
	// Etag, if not empty, is the version the tenant must be at.
	Etag string
	// SkipVerification leaves out to try the new secret first.
	SkipVerification bool
	// FallbackTTL is how long the old secret stays as a fallback; 0: it does not.
	FallbackTTL time.Duration
	// ValidateOnly leaves out to store it.
	ValidateOnly bool
}

// Rotate replaces the tenant's client secret, after trying it at the issuer. The
// token that the trial brought is put to use. Errors: *token.Failure from the
// trial, then nothing has changed; those of Update.
func (r *Registry) Rotate(ctx context.Context, id string, rotation Rotation) (*tenant.Tenant, error) {
	current, err := r.at(ctx, id, rotation.Etag)
	if err != nil {
		return nil, err
	}
	if !rotation.SkipVerification {
		tried := *current
		tried.Secret.Value = rotation.Secret
		if tried.Secret.ID, err = r.records.SecretID(rotation.Secret); err != nil {
			return nil, err
		}
		s := r.broker.newSubject(&tried)
		bought, err := r.broker.try(ctx, s.credential)
		if err != nil {
			return nil, err
		}
		if !rotation.ValidateOnly {
			// Before replicas hear of the change, or one that is asked buys another.
			r.use(ctx, s, bought)
		}
	}
	// What was tried is the secret for this version of the tenant.
	return r.Update(ctx, id, current.Etag, rotation.ValidateOnly, func(t *tenant.Tenant) error {
		another := !t.Secret.Value.Equal(rotation.Secret)
		switch {
		case rotation.FallbackTTL == 0:
			t.Fallback, t.FallbackUntil = tenant.Secret{}, time.Time{}
		case another:
			t.Fallback, t.FallbackUntil = t.Secret, time.Now().Add(rotation.FallbackTTL)
		}
		if another {
			t.Secret = tenant.Secret{Value: rotation.Secret}
		}
		return nil
	})
}

// at returns the tenant as it is stored now, which must be at the version etag
// unless that is empty.
func (r *Registry) at(ctx context.Context, id, etag string) (*tenant.Tenant, error) {
	current, err := r.Tenant(ctx, id)
	if err == nil && etag != "" && etag != current.Etag {
		err = tenant.ErrConflict
	}
	return current, err
}

// use hands out t as the tenant's token from now on.
func (r *Registry) use(ctx context.Context, s *subject, t *token.Token) {
	if t.Lifetime() > 0 && !s.tenant.Disabled {
		r.broker.keep(ctx, r.broker.entry(s, &s.credential, s.digest), t, token.RefreshPoint)
	}
}

// Status returns the token and the failure that the fleet keeps for the tenant's
// registered scopes; nil for what there is not. Errors: ErrStore.
func (r *Registry) Status(ctx context.Context, t *tenant.Tenant) (*token.Token, *token.Failure, error) {
	held, failure, err := r.broker.store.Load(ctx, r.broker.newSubject(t).credential.Key())
	return held, failure, outage(err)
}

// outage marks errors that are not an answer of the store as ErrStore.
func outage(err error) error {
	for _, answer := range []error{nil, tenant.ErrNotFound, tenant.ErrLost, tenant.ErrExists, tenant.ErrConflict, tenant.ErrUnreadable} {
		if errors.Is(err, answer) {
			return err
		}
	}
	return fmt.Errorf("%w: %w", ErrStore, err)
}

package broker

import (
	"context"
	"errors"
	"fmt"
	"time"

	"smokeball.internal/tokenbroker/internal/tenant"
	"smokeball.internal/tokenbroker/internal/token"
)

// Finding is what a check of a tenant's credentials came to.
type Finding struct {
	// Failure is what the issuer's answer means; nil if it gave a token.
	Failure *token.Failure
	// Token was bought by the check; nil if it failed.
	Token *token.Token
	// Endpoint is the token endpoint that was asked.
	Endpoint string
	// AcceptedRegion is the region that accepts the credentials where the
	// tenant's own does not; empty if there is none.
	AcceptedRegion tenant.Region
	// FallbackUntil is set if the current secret is refused, and the one before
	// it, which is accepted, stands in until then.
	FallbackUntil time.Time
}

// Check tries the credentials of a tenant at the issuer. If they are refused, it
// tries to find out why: the secret before this one, and, unless ownRegionOnly,
// the other regions of the same environment, which are Smokeball's too. A token
// it buys is put to use. Errors: tenant.ErrNotFound, tenant.ErrUnreadable,
// ErrStore, ctx's own.
func (r *Registry) Check(ctx context.Context, id string, ownRegionOnly bool) (*Finding, error) {
	t, err := r.Tenant(ctx, id)
	if err != nil {
		return nil, err
	}
	s := r.broker.newSubject(t)
	finding := &Finding{Endpoint: s.credential.Endpoint}
	finding.Token, err = r.broker.try(ctx, s.credential)
	if err == nil {
		r.use(ctx, s, finding.Token)
		return finding, nil
	}
	if !errors.As(err, &finding.Failure) {
		return nil, fmt.Errorf("check of the credentials: %w", err)
	}
	if finding.Failure.Class != token.CredentialsRejected {
		return finding, nil
	}
	if former, ok := s.fallback(s.credential, time.Now()); ok {
		if bought, err := r.broker.try(ctx, former); err == nil {
			r.use(ctx, s, bought)
			finding.FallbackUntil = t.FallbackUntil
			return finding, nil
		}
	}
	if ownRegionOnly {
		return finding, nil
	}
	for _, region := range tenant.Regions() {
		elsewhere := *t
		elsewhere.Region = region
		c := r.broker.newSubject(&elsewhere).credential
		if c.Endpoint == s.credential.Endpoint {
			continue
		}
		var f *token.Failure
		if _, err := r.broker.try(ctx, c); err == nil || errors.As(err, &f) && f.Class == token.ScopeRejected {
			finding.AcceptedRegion = region
			break
		}
	}
	return finding, nil
}

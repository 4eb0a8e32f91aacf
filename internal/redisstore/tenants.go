package redisstore

import (
	"context"
	"crypto/rand"
	"encoding/hex"
	"errors"
	"fmt"
	"strings"
	"time"

	"github.com/redis/go-redis/v9"

	"smokeball.internal/tokenbroker/internal/secret"
	"smokeball.internal/tokenbroker/internal/tenant"
)

// tenantRecord is a sealed tenant.
type tenantRecord struct {
	ID             string             `json:"id"`
	Etag           string             `json:"etag"`
	DisplayName    string             `json:"display_name,omitempty"`
	Region         tenant.Region      `json:"region"`
	Environment    tenant.Environment `json:"environment"`
	ClientID       string             `json:"client_id"`
	Secret         string             `json:"client_secret"`
	FallbackSecret string             `json:"fallback_secret,omitempty"`
	FallbackUntil  time.Time          `json:"fallback_until,omitzero"`
	APIKey         string             `json:"api_key,omitempty"`
	AccountID      string             `json:"account_id,omitempty"`
	Scopes         []string           `json:"scopes,omitempty"`
	Disabled       bool               `json:"disabled,omitempty"`
	KeepWarm       bool               `json:"keep_warm,omitempty"`
	Labels         map[string]string  `json:"labels,omitempty"`
	Created        time.Time          `json:"created"`
	Updated        time.Time          `json:"updated"`
	SecretUpdated  time.Time          `json:"client_secret_updated,omitzero"`
}

// Tenant returns the tenant with this id. The error is tenant.ErrNotFound,
// tenant.ErrLost (there is no such record, but the registry is not the one that
// was there before), tenant.ErrUnreadable (the record is there, but not for this
// keyset; the tenant has nothing but its ID and Etag then), or says that Redis
// could not be asked.
func (s *Store) Tenant(ctx context.Context, id string) (*tenant.Tenant, error) {
	record, err := s.client.HGet(ctx, s.recordsKey(), id).Result()
	if errors.Is(err, redis.Nil) {
		return nil, s.missing(ctx)
	}
	if err != nil {
		return nil, fmt.Errorf("read tenant: %w", err)
	}
	return s.openTenant(id, record)
}

// ListTenants returns up to limit tenants in the order of their ids, from the
// first behind after, and the id that the next page is behind; empty if this is
// the last. A tenant whose record cannot be opened is returned with nothing but
// its ID and Etag, and reported to the log.
func (s *Store) ListTenants(ctx context.Context, after string, limit int) (tenants []*tenant.Tenant, next string, err error) {
	ids, next, err := s.page(ctx, s.indexKey(), after, limit)
	if err != nil {
		return nil, "", err
	}
	tenants, err = s.named(ctx, ids)
	return tenants, next, err
}

// named returns the tenants with these ids that there are still.
func (s *Store) named(ctx context.Context, ids []string) (tenants []*tenant.Tenant, err error) {
	if len(ids) == 0 {
		return nil, nil
	}
	records, err := s.client.HMGet(ctx, s.recordsKey(), ids...).Result()
	if err != nil {
		return nil, fmt.Errorf("list tenants: %w", err)
	}
	for i, id := range ids {
		record, ok := records[i].(string)
		if !ok {
			continue // Deleted between the two reads.
		}
		t, err := s.openTenant(id, record)
		if err != nil {
			s.log.ErrorContext(ctx, "tenant record refused", "tenant", id, "error", err)
		}
		tenants = append(tenants, t)
	}
	return tenants, nil
}

// WarmTenants returns the ids of up to limit tenants that are kept warm, in their
// order, from the first behind after, and the id that the next page is behind;
// empty if this is the last.
func (s *Store) WarmTenants(ctx context.Context, after string, limit int) (ids []string, next string, err error) {
	return s.page(ctx, s.warmKey(), after, limit)
}

// page returns up to limit ids of an index, behind after, and the id that the next
// page is behind.
func (s *Store) page(ctx context.Context, index, after string, limit int) (ids []string, next string, err error) {
	from := "-"
	if after != "" {
		from = "(" + after
	}
	ids, err = s.client.ZRangeByLex(ctx, index, &redis.ZRangeBy{Min: from, Max: "+", Count: int64(limit) + 1}).Result()
	if err != nil {
		return nil, "", fmt.Errorf("list tenants: %w", err)
	}
	if len(ids) > limit {
		ids = ids[:limit]
		next = ids[limit-1]
	}
	return ids, next, nil
}

// CreateTenant registers t and returns it as it is stored. The error is
// tenant.ErrExists, tenant.ErrLost (as it may be of all that change a tenant: while
// a lost registry may be restored, none is begun in its place), or says that Redis could not be asked: then t may be
// registered or not.
func (s *Store) CreateTenant(ctx context.Context, t tenant.Tenant) (*tenant.Tenant, error) {
	t.Created = time.Now().UTC()
	return s.swap(ctx, t, "")
}

// UpdateTenant replaces the tenant with t.ID by t, if it is at version t.Etag,
// and returns it as it is stored. The error is tenant.ErrNotFound,
// tenant.ErrConflict, or says that Redis could not be asked: then it may be
// replaced or not.
func (s *Store) UpdateTenant(ctx context.Context, t tenant.Tenant) (*tenant.Tenant, error) {
	return s.swap(ctx, t, t.Etag)
}

// DeleteTenant removes the tenant if it is at the version named. That there is
// none is no error: it may be what this very command did, when its answer was
// lost. Other errors are those of UpdateTenant.
func (s *Store) DeleteTenant(ctx context.Context, id, etag string) error {
	return s.swapRecord(ctx, id, etag, "", "", places{})
}

// SecretID returns the name that a secret is stored with.
func (s *Store) SecretID(text secret.Text) (string, error) { return s.keyset.Name(text) }

// swap gives t a new version and the names of its secrets, and stores it.
func (s *Store) swap(ctx context.Context, t tenant.Tenant, expected string) (*tenant.Tenant, error) {
	secretID, err := s.SecretID(t.Secret.Value)
	if err != nil {
		return nil, err
	}
	if t.Fallback.ID, err = s.SecretID(t.Fallback.Value); err != nil {
		return nil, err
	}
	t.Etag, t.Updated = newEtag(), time.Now().UTC()
	if secretID != t.Secret.ID {
		t.Secret.ID, t.SecretUpdated = secretID, t.Updated
	}
	sealed, err := s.sealRecord(tenantRecord{
		t.ID, t.Etag, t.DisplayName, t.Region, t.Environment, t.ClientID, t.Secret.Value.Reveal(),
		t.Fallback.Value.Reveal(), t.FallbackUntil, t.APIKey.Reveal(), t.AccountID, t.Scopes, t.Disabled, t.KeepWarm,
		t.Labels, t.Created, t.Updated, t.SecretUpdated,
	}, s.tenantName(t.ID))
	if err != nil {
		return nil, fmt.Errorf("write tenant: %w", err)
	}
	if err := s.swapRecord(ctx, t.ID, expected, t.Etag, t.Etag+"."+sealed, placesOf(&t)); err != nil {
		return nil, err
	}
	return &t, nil
}

func (s *Store) swapRecord(ctx context.Context, id, expected, etag, record string, p places) error {
	stored, err := s.runSwap(ctx, etag, id, expected, etag, record, changesKept, flag(p.warm), newEtag(), s.knownRegistry(), p.secret)
	switch {
	case stored == lostRegistry:
		return tenant.ErrLost
	case err != nil:
		return fmt.Errorf("write tenant: %w", err)
	case stored == etag:
		return nil
	case stored == "":
		return tenant.ErrNotFound
	case expected == "":
		return tenant.ErrExists
	default:
		return tenant.ErrConflict
	}
}

// lostRegistry is what swap.lua answers in place of a version when the registry is
// not the one it was.
const lostRegistry = "!"

// noEtag stands for the version of a record that does not begin with one, here
// and in swap.lua.
const noEtag = "?"

// newEtag returns a version that no record had before, also not a record of the
// same id that was deleted since.
func newEtag() string {
	b := make([]byte, 12)
	_, _ = rand.Read(b) // Never fails, see crypto/rand.
	return hex.EncodeToString(b)
}

// tenantName is what the record of a tenant is sealed for: the key and the field.
func (s *Store) tenantName(id string) string { return s.recordsKey() + "/" + id }

// openTenant opens a record. With an error, which is tenant.ErrUnreadable, the
// tenant has nothing but its ID and Etag, so that it can be deleted.
func (s *Store) openTenant(id, record string) (*tenant.Tenant, error) {
	etag, sealed := splitEtag(record)
	t, err := s.unsealTenant(id, etag, sealed)
	if err != nil {
		s.refusals.tenants.Add(1)
		return &tenant.Tenant{ID: id, Etag: etag}, fmt.Errorf("%w: %w", tenant.ErrUnreadable, err)
	}
	return t, nil
}

// splitEtag returns the version that a record begins with and what is sealed.
func splitEtag(record string) (etag, sealed string) {
	etag, sealed, ok := strings.Cut(record, ".")
	if !ok || etag == "" || strings.Trim(etag, "0123456789abcdefABCDEF") != "" {
		etag = noEtag
	}
	return etag, sealed
}

func (s *Store) unsealTenant(id, etag, sealed string) (*tenant.Tenant, error) {
	var r tenantRecord
	_, err := s.openRecord(sealed, s.tenantName(id), &r)
	if err != nil {
		return nil, err
	}
	if r.ID != id || r.Etag != etag {
		return nil, errMismatch
	}
	t := r.tenant()
	if t.Secret.ID, err = s.SecretID(t.Secret.Value); err != nil {
		return nil, err
	}
	if t.Fallback.ID, err = s.SecretID(t.Fallback.Value); err != nil {
		return nil, err
	}
	t.Pack()
	return t, nil
}

// tenant returns the tenant, without the names of its secrets.
func (r *tenantRecord) tenant() *tenant.Tenant {
	return &tenant.Tenant{
		ID: r.ID, Etag: r.Etag, DisplayName: r.DisplayName, Region: r.Region, Environment: r.Environment,
		ClientID: r.ClientID, Secret: tenant.Secret{Value: secret.New(r.Secret)},
		Fallback: tenant.Secret{Value: secret.New(r.FallbackSecret)}, FallbackUntil: r.FallbackUntil,
		APIKey: secret.New(r.APIKey), AccountID: r.AccountID, Scopes: r.Scopes, Disabled: r.Disabled,
		KeepWarm: r.KeepWarm, Labels: r.Labels, Created: r.Created, Updated: r.Updated,
		SecretUpdated: r.SecretUpdated,
	}
}

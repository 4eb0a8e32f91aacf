// Package brokertest has what tests of a broker stand on: a store and an issuer
// in memory, without sockets, so that they run in virtual time.
package brokertest

import (
	"context"
	"errors"
	"maps"
	"slices"
	"strconv"
	"strings"
	"sync"
	"time"

	"smokeball.internal/tokenbroker/internal/broker"
	"smokeball.internal/tokenbroker/internal/secret"
	"smokeball.internal/tokenbroker/internal/tenant"
	"smokeball.internal/tokenbroker/internal/token"
)

// ErrAway is what a store that is away answers.
var ErrAway = errors.New("store is away")

// Listener is told of changes.
type Listener interface {
	TenantChanged(id string, warm bool)
	TokenChanged(digest, tokenID string)
	Resync()
	Heard()
}

// Store keeps in memory what the replicas of one fleet share. It behaves as
// redisstore does. The zero Store is empty.
type Store struct {
	mu        sync.Mutex
	away      bool
	tenants   map[string]tenant.Tenant
	tokens    map[token.Key]token.Token
	failures  map[token.Key]token.Failure
	exchanges map[token.Key][]exchange
	leases    map[token.Key]lease
	paid      map[string]time.Time // :: endpoint → when the turns that were given are paid back
	version   int
	calls     int
	lost      bool // the tenants were lost, and none was registered since
	listeners []Listener
}

type exchange struct {
	at time.Time
	ok bool
}

type lease struct {
	owner string
	ends  time.Time
}

var (
	_ broker.Store   = (*Store)(nil)
	_ broker.Records = (*Store)(nil)
)

// Listen has l told of changes from now on, each in a goroutine of its own, and
// that there may have been some before.
func (s *Store) Listen(l Listener) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.listeners = append(s.listeners, l)
	l.Resync()
	l.Heard()
}

// SetAway has every call fail, or work again.
func (s *Store) SetAway(away bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.away = away
}

// Calls returns how often the store was asked for something.
func (s *Store) Calls() int {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.calls
}

// Clear loses everything but the tenants.
func (s *Store) Clear() {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.tokens, s.failures, s.exchanges, s.leases = nil, nil, nil, nil
}

// Lose loses everything, as a Redis does that is emptied, and returns what brings
// the tenants back.
func (s *Store) Lose() (restore func()) {
	s.mu.Lock()
	defer s.mu.Unlock()
	tenants := s.tenants
	s.tenants, s.tokens, s.failures, s.exchanges, s.leases, s.paid = nil, nil, nil, nil, nil, nil
	s.lost = true
	s.tell(Listener.Resync)
	return func() {
		s.mu.Lock()
		defer s.mu.Unlock()
		s.tenants, s.lost = tenants, false
		s.tell(Listener.Resync)
	}
}

// Put stores t as it is, whatever is stored.
func (s *Store) Put(k token.Key, t token.Token) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.init()
	s.tokens[k] = t
}

// enter locks the store, or says that it is away or not asked any more.
func (s *Store) enter(ctx context.Context) error {
	s.mu.Lock()
	s.calls++
	if s.away || ctx.Err() != nil {
		s.mu.Unlock()
		return errors.Join(ErrAway, ctx.Err())
	}
	s.init()
	return nil
}

func (s *Store) init() {
	if s.tokens == nil {
		s.tokens, s.failures, s.leases = map[token.Key]token.Token{}, map[token.Key]token.Failure{}, map[token.Key]lease{}
		s.exchanges = map[token.Key][]exchange{}
	}
	if s.tenants == nil {
		s.tenants = map[string]tenant.Tenant{}
	}
	if s.paid == nil {
		s.paid = map[string]time.Time{}
	}
}

func (s *Store) tell(f func(Listener)) {
	for _, l := range s.listeners {
		go f(l)
	}
}

// Load implements broker.Store.
func (s *Store) Load(ctx context.Context, k token.Key) (*token.Token, *token.Failure, error) {
	if err := s.enter(ctx); err != nil {
		return nil, nil, err
	}
	defer s.mu.Unlock()
	t, f := s.kept(k)
	return t, f, nil
}

// kept returns what is stored under k and has not ended.
func (s *Store) kept(k token.Key) (t *token.Token, f *token.Failure) {
	if kept, ok := s.tokens[k]; ok && time.Now().Before(kept.Expires) {
		t = &kept
	}
	if kept, ok := s.failures[k]; ok && time.Now().Before(kept.RetryAt) {
		f = &kept
	}
	return t, f
}

// LoadAll implements broker.Store.
func (s *Store) LoadAll(ctx context.Context, keys []token.Key) ([]token.Kept, error) {
	if err := s.enter(ctx); err != nil {
		return nil, err
	}
	defer s.mu.Unlock()
	all := make([]token.Kept, len(keys))
	for i, k := range keys {
		all[i].Token, all[i].Failure = s.kept(k)
		for _, e := range s.exchanges[k] {
			if age := int(time.Now().Truncate(time.Hour).Sub(e.at.Truncate(time.Hour)) / time.Hour); age < token.HistoryHours {
				hour := &all[i].History[token.HistoryHours-1-age]
				if e.ok {
					hour.OK++
				} else {
					hour.Failed++
				}
			}
		}
	}
	return all, nil
}

// Save implements broker.Store.
func (s *Store) Save(ctx context.Context, k token.Key, t *token.Token) (*token.Token, error) {
	if err := s.enter(ctx); err != nil {
		return nil, err
	}
	defer s.mu.Unlock()
	kept, ok := s.tokens[k]
	known := ok && kept.ID == t.ID
	switch {
	case !ok || !time.Now().Before(kept.Expires):
		kept = *t
	case kept.ID == t.ID && kept.Expires.Before(t.Expires):
		// The same token's end does not move away, and its refresh point is as long
		// before it as it was said to be.
		sooner := t.Expires.Sub(kept.Expires)
		kept = *t
		kept.Issued, kept.RefreshAt, kept.Expires = t.Issued.Add(-sooner), t.RefreshAt.Add(-sooner), t.Expires.Add(-sooner)
	case kept.ID == t.Replaced || !kept.Issued.After(t.Issued):
		kept = *t
	}
	s.tokens[k] = kept
	if kept.ID == t.ID {
		delete(s.failures, k)
	}
	if kept.ID == t.ID && !known && time.Since(t.Issued) < time.Minute {
		s.exchanges[k] = append(s.exchanges[k], exchange{time.Now(), true})
	}
	s.tell(func(l Listener) { l.TokenChanged(k.Digest(), kept.ID) })
	return &kept, nil
}

// SaveFailure implements broker.Store.
func (s *Store) SaveFailure(ctx context.Context, k token.Key, f *token.Failure) error {
	if err := s.enter(ctx); err != nil {
		return err
	}
	defer s.mu.Unlock()
	s.failures[k] = *f
	s.exchanges[k] = append(s.exchanges[k], exchange{time.Now(), false})
	s.tell(func(l Listener) { l.TokenChanged(k.Digest(), "") })
	return nil
}

// Lease implements broker.Store.
func (s *Store) Lease(ctx context.Context, k token.Key, owner string, ttl time.Duration) (bool, error) {
	if err := s.enter(ctx); err != nil {
		return false, err
	}
	defer s.mu.Unlock()
	if held, ok := s.leases[k]; ok && held.owner != owner && time.Now().Before(held.ends) {
		return false, nil
	}
	s.leases[k] = lease{owner, time.Now().Add(ttl)}
	return true, nil
}

// Release implements broker.Store.
func (s *Store) Release(ctx context.Context, k token.Key, owner string) error {
	if err := s.enter(ctx); err != nil {
		return err
	}
	defer s.mu.Unlock()
	if s.leases[k].owner == owner {
		delete(s.leases, k)
	}
	return nil
}

// Admit implements broker.Store.
func (s *Store) Admit(ctx context.Context, endpoint string, r token.TurnRequest) (token.Turn, error) {
	if err := s.enter(ctx); err != nil {
		return token.Turn{}, err
	}
	defer s.mu.Unlock()
	turn, paid := r.Turn(s.paid[endpoint], time.Now())
	s.paid[endpoint] = paid
	turn.Buyers = max(1, len(s.listeners))
	return turn, nil
}

// Tenant implements broker.Tenants.
func (s *Store) Tenant(ctx context.Context, id string) (*tenant.Tenant, error) {
	if err := s.enter(ctx); err != nil {
		return nil, err
	}
	defer s.mu.Unlock()
	t, ok := s.tenants[id]
	switch {
	case ok:
		return &t, nil
	case s.lost:
		return nil, tenant.ErrLost
	default:
		return nil, tenant.ErrNotFound
	}
}

// WarmTenants implements broker.Tenants.
func (s *Store) WarmTenants(ctx context.Context, after string, limit int) ([]string, string, error) {
	if err := s.enter(ctx); err != nil {
		return nil, "", err
	}
	defer s.mu.Unlock()
	var ids []string
	for _, id := range slices.Sorted(maps.Keys(s.tenants)) {
		switch {
		case id <= after || !s.tenants[id].KeepWarm:
		case len(ids) == limit:
			return ids, ids[limit-1], nil
		default:
			ids = append(ids, id)
		}
	}
	return ids, "", nil
}

// ListTenants implements broker.Records.
func (s *Store) ListTenants(ctx context.Context, after string, limit int) ([]*tenant.Tenant, string, error) {
	return s.FindTenants(ctx, "", after, limit)
}

// FindTenants implements broker.Records.
func (s *Store) FindTenants(ctx context.Context, part, after string, limit int) ([]*tenant.Tenant, string, error) {
	if err := s.enter(ctx); err != nil {
		return nil, "", err
	}
	defer s.mu.Unlock()
	var page []*tenant.Tenant
	for _, id := range slices.Sorted(maps.Keys(s.tenants)) {
		if id <= after || !strings.Contains(id, part) {
			continue
		}
		if len(page) == limit {
			return page, page[limit-1].ID, nil
		}
		t := s.tenants[id]
		page = append(page, &t)
	}
	return page, "", nil
}

// CreateTenant implements broker.Records.
func (s *Store) CreateTenant(ctx context.Context, t tenant.Tenant) (*tenant.Tenant, error) {
	return s.put(ctx, t, func(_ tenant.Tenant, exists bool) error {
		if exists {
			return tenant.ErrExists
		}
		return nil
	})
}

// SecretID implements broker.Records.
func (s *Store) SecretID(text secret.Text) (string, error) { return "id of " + text.Reveal(), nil }

// UpdateTenant implements broker.Records.
func (s *Store) UpdateTenant(ctx context.Context, t tenant.Tenant) (*tenant.Tenant, error) {
	return s.put(ctx, t, func(current tenant.Tenant, exists bool) error {
		switch {
		case !exists:
			return tenant.ErrNotFound
		case current.Etag != t.Etag:
			return tenant.ErrConflict
		}
		return nil
	})
}

func (s *Store) put(ctx context.Context, t tenant.Tenant, allowed func(current tenant.Tenant, exists bool) error) (*tenant.Tenant, error) {
	if err := s.enter(ctx); err != nil {
		return nil, err
	}
	defer s.mu.Unlock()
	current, exists := s.tenants[t.ID]
	if err := allowed(current, exists); err != nil {
		return nil, err
	}
	s.version++
	t.Etag = strconv.Itoa(s.version)
	if id, _ := s.SecretID(t.Secret.Value); id != t.Secret.ID {
		t.Secret.ID, t.SecretUpdated = id, time.Now()
	}
	t.Fallback.ID, _ = s.SecretID(t.Fallback.Value)
	s.tenants[t.ID] = t
	s.tell(func(l Listener) { l.TenantChanged(t.ID, t.KeepWarm) })
	return &t, nil
}

// DeleteTenant implements broker.Records.
func (s *Store) DeleteTenant(ctx context.Context, id, etag string) error {
	if err := s.enter(ctx); err != nil {
		return err
	}
	defer s.mu.Unlock()
	current, exists := s.tenants[id]
	switch {
	case !exists:
		return nil
	case current.Etag != etag:
		return tenant.ErrConflict
	}
	delete(s.tenants, id)
	s.tell(func(l Listener) { l.TenantChanged(id, false) })
	return nil
}

// Package broker is the heart: it answers with a token from memory, else from
// the store that the fleet shares, else it buys one from the issuer, once for
// all who ask.
package broker

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"sync"
	"sync/atomic"
	"time"

	"golang.org/x/sync/singleflight"

	"smokeball.internal/tokenbroker/internal/tenant"
	"smokeball.internal/tokenbroker/internal/token"
)

// Issuer sells tokens.
type Issuer interface {
	// TokenEndpoint returns where tokens of the tenant are asked for.
	TokenEndpoint(t *tenant.Tenant) string
	// APIBaseURL returns where requests with tokens of the tenant go.
	APIBaseURL(t *tenant.Tenant) string
	// Exchange buys a token. The error is a *token.Failure, or ctx's own.
	Exchange(ctx context.Context, c token.Credential) (*token.Token, error)
}

// Store is what the replicas share. An error of its methods means that it could
// not be asked, not that something is missing.
type Store interface {
	// Load returns what is kept under k; nil for what there is not.
	Load(ctx context.Context, k token.Key) (*token.Token, *token.Failure, error)
	// Save keeps t until it expires and forgets the failure, unless a token that was
	// issued later, and is not the one that t replaced, is kept already. The same token is not kept for longer than it
	// was. It returns the token that is kept then.
	Save(ctx context.Context, k token.Key, t *token.Token) (*token.Token, error)
	// SaveFailure keeps f until f.RetryAt.
	SaveFailure(ctx context.Context, k token.Key, f *token.Failure) error
	// Lease takes the fleet's lease for buying a token. If it is acquired,
	// release gives it back; if not, another replica has it.
	Lease(ctx context.Context, k token.Key, ttl time.Duration) (release func(context.Context), acquired bool, err error)
}

// Tenants is where tenants are looked up.
type Tenants interface {
	// Tenant returns a tenant. The error may be tenant.ErrNotFound, or
	// tenant.ErrUnreadable for a tenant that has nothing but its ID and Etag; any
	// other means that it could not be looked up.
	Tenant(ctx context.Context, id string) (*tenant.Tenant, error)
}

// Errors of Get and Refresh, beside tenant.ErrNotFound, tenant.ErrUnreadable,
// *token.Failure, *TooSoonError and the caller's context's own.
var (
	// ErrDisabled: the tenant is disabled.
	ErrDisabled = errors.New("tenant is disabled")
	// ErrScopeNotRegistered: the tenant is registered with scopes, and these are
	// not among them.
	ErrScopeNotRegistered = errors.New("scope is not among those the tenant is registered with")
	// ErrMinRemaining: only a token that was bought a moment ago, or not even that,
	// lives as long as is asked for.
	ErrMinRemaining = errors.New("tokens of this tenant do not live that long")
	// ErrStore: the store could not be asked.
	ErrStore = errors.New("store is out of reach")
	// ErrClosed: the broker is being closed.
	ErrClosed = errors.New("broker is closed")
)

// TooSoonError says that the token has just replaced a rejected one and is not
// replaced yet.
type TooSoonError struct {
	// After is how long to wait.
	After time.Duration
}

// Error says when to try again.
func (e *TooSoonError) Error() string {
	return fmt.Sprintf("the token has just replaced a rejected one and is replaced itself in %v at the earliest", e.After.Round(time.Second))
}

// Config is what a broker is made of. All fields are required.
type Config struct {
	Issuer  Issuer
	Store   Store
	Tenants Tenants
	Logger  *slog.Logger
}

// Broker hands out tokens. It is safe for concurrent use.
type Broker struct {
	issuer  Issuer
	store   Store
	tenants Tenants
	log     *slog.Logger

	entries sync.Map // :: key digest (string) → *entry
	flights singleflight.Group

	subjects   sync.Map // :: tenant id (string) → *subject
	loads      singleflight.Group
	subjectsMu sync.Mutex     // held to change subjects and reads together
	reads      map[*read]bool // look-ups under way
	epoch      atomic.Uint64  // grows when changes may have been missed: subjects read before are to be read again

	stats stats

	ctx    context.Context // ends with Close; all flights run on it
	cancel context.CancelFunc
	tasks  tasks
}

// New returns a broker. It starts nothing; Close ends what calls have started.
func New(c Config) *Broker {
	ctx, cancel := context.WithCancel(context.Background())
	return &Broker{issuer: c.Issuer, store: c.Store, tenants: c.Tenants, log: c.Logger, reads: map[*read]bool{}, ctx: ctx, cancel: cancel}
}

// Close ends all flights and waits for them. An answer of the issuer that is here
// by then is saved.
func (b *Broker) Close() {
	b.cancel()
	b.tasks.close()
	b.entries.Range(func(_, v any) bool {
		v.(*entry).stop()
		return true
	})
}

// TokenChanged tells the broker that a token with this id, or, if it is empty, a
// failure, was saved under the key with this digest.
func (b *Broker) TokenChanged(digest, tokenID string) {
	v, ok := b.entries.Load(digest)
	if !ok {
		return
	}
	e := v.(*entry)
	if held := e.token.Load(); tokenID != "" && (held == nil || held.ID != tokenID) {
		b.follow(e, tokenID)
	}
	e.wake()
}

// tasks counts what is running, so that closing can wait for it. The zero tasks
// is open.
type tasks struct {
	mu      sync.Mutex
	running sync.WaitGroup
	closed  bool
}

// begin says whether a task may start; if so, end must be called.
func (t *tasks) begin() bool {
	t.mu.Lock()
	defer t.mu.Unlock()
	if t.closed {
		return false
	}
	t.running.Add(1)
	return true
}

func (t *tasks) end() { t.running.Done() }

// close lets no task begin any more and waits for those that have.
func (t *tasks) close() {
	t.mu.Lock()
	t.closed = true
	t.mu.Unlock()
	t.running.Wait()
}

// Stats counts what the broker has done since it was made.
type Stats struct {
	// FromMemory counts answers with a token that was held; Waited those that the
	// caller had to wait for.
	FromMemory, Waited uint64
	// Bought counts exchanges that brought a token, by the tenant's or a
	// fallback secret.
	Bought uint64
	// Failed counts exchanges that brought none, by class.
	Failed map[token.Class]uint64
}

type stats struct {
	fromMemory, waited, bought atomic.Uint64
	mu                         sync.Mutex
	failed                     map[token.Class]uint64
}

func (s *stats) fail(c token.Class) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.failed == nil {
		s.failed = map[token.Class]uint64{}
	}
	s.failed[c]++
}

// Stats returns the counts.
func (b *Broker) Stats() Stats {
	b.stats.mu.Lock()
	defer b.stats.mu.Unlock()
	failed := make(map[token.Class]uint64, len(b.stats.failed))
	for c, n := range b.stats.failed {
		failed[c] = n
	}
	return Stats{b.stats.fromMemory.Load(), b.stats.waited.Load(), b.stats.bought.Load(), failed}
}

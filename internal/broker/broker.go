// Package broker is the heart: it answers with a token from memory, else from
// the store that the fleet shares, else it buys one from the issuer, once for
// all who ask.
package broker

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"hash/maphash"
	"log/slog"
	"sync"
	"sync/atomic"
	"time"

	"github.com/puzpuzpuz/xsync/v4"
	"go.opentelemetry.io/otel/trace"
	"go.opentelemetry.io/otel/trace/noop"
	"golang.org/x/sync/singleflight"
	"golang.org/x/time/rate"

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
	// LoadAll returns what is kept under each of keys. A token counts in the History
	// of its key when it is saved for the first time, within a minute after it was bought; a
	// failure when it is saved.
	LoadAll(ctx context.Context, keys []token.Key) ([]token.Kept, error)
	// SaveFailure keeps f until f.RetryAt.
	SaveFailure(ctx context.Context, k token.Key, f *token.Failure) error
	// Lease takes the fleet's lease for buying a token, or prolongs it if owner has
	// it, to ttl from now. If it is not acquired, another owner has it.
	Lease(ctx context.Context, k token.Key, owner string, ttl time.Duration) (acquired bool, err error)
	// Release ends the lease if owner has it still.
	Release(ctx context.Context, k token.Key, owner string) error
	// Admit gives an exchange at endpoint its turn within the fleet's budget.
	Admit(ctx context.Context, endpoint string, r token.TurnRequest) (token.Turn, error)
}

// Tenants is where tenants are looked up.
type Tenants interface {
	// Tenant returns a tenant. The error may be tenant.ErrNotFound, tenant.ErrLost,
	// or tenant.ErrUnreadable for a tenant that has nothing but its ID and Etag; any
	// other means that it could not be looked up.
	Tenant(ctx context.Context, id string) (*tenant.Tenant, error)
	// WarmTenants returns the ids of up to limit tenants that are kept warm, behind
	// the id after, and the id that the next page is behind; empty if there is none.
	WarmTenants(ctx context.Context, after string, limit int) (ids []string, next string, err error)
}

// Errors of Get and Refresh, beside tenant.ErrNotFound, tenant.ErrLost,
// tenant.ErrUnreadable, *token.Failure, *TooSoonError and the caller's context's own.
var (
	// ErrDisabled: the tenant is disabled.
	ErrDisabled = errors.New("tenant is disabled")
	// ErrScopeNotRegistered: the tenant is registered with scopes, and these are
	// not among them.
	ErrScopeNotRegistered = errors.New("scope is not among those the tenant is registered with")
	// ErrTooManyScopeSets: the tenant's callers have tokens for as many different
	// sets of scopes as they may, and this is another.
	ErrTooManyScopeSets = errors.New("tokens are held for too many different sets of scopes of this tenant")
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

// Config is what a broker is made of.
type Config struct {
	// Issuer, Store, Tenants and Logger are required.
	Issuer  Issuer
	Store   Store
	Tenants Tenants
	Logger  *slog.Logger
	// ExchangeRate is how many exchanges per second the fleet allows itself with
	// one issuer, and twice as many at once after a quiet time; 0: 25.
	ExchangeRate float64
	// MaxStaleness is how long tenants in memory are good for while changes of them
	// are not heard of, or are lost with the registry; 0: a day.
	MaxStaleness time.Duration
	// Observer is told how long things take; nil: nobody is.
	Observer Observer
	// Tracer begins the spans of callers who wait, as far as their calls have spans, and
	// of what is done for them or behind their backs; nil: there are none.
	Tracer trace.Tracer
}

// Broker hands out tokens. It is safe for concurrent use.
type Broker struct {
	issuer  Issuer
	store   Store
	tenants Tenants
	log     *slog.Logger

	entries *xsync.Map[string, *entry] // :: key digest → what is known of it
	flights singleflight.Group
	gates   sync.Map // :: token endpoint (string) → *gate
	budget  budget
	seed    maphash.Seed // for what differs between replicas

	subjects   *xsync.Map[string, *subject] // :: tenant id → the tenant
	scopeSets  sync.Map                     // :: tenant id (string) → *scopeSets
	loads      singleflight.Group
	subjectsMu sync.Mutex     // held to change subjects and reads together
	reads      map[*read]bool // look-ups under way
	epoch      atomic.Uint64  // grows when changes may have been missed: what was read before is to be read again
	hearing    hearing
	bells      bells // of those who watch

	stats    stats
	observer Observer       // never nil
	tracer   trace.Tracer   // never nil
	flying   sync.Map       // :: name of work that is under way (string) → *work, as far as it is traced
	outages  rate.Sometimes // which of the records of a store that is away are to be seen

	ctx    context.Context // ends with Close; all flights run on it
	cancel context.CancelFunc
	tasks  tasks
}

// New returns a broker. It starts nothing; Close ends what calls have started.
func New(c Config) *Broker {
	ctx, cancel := context.WithCancel(context.Background())
	return &Broker{
		issuer: c.Issuer, store: c.Store, tenants: c.Tenants, log: c.Logger,
		entries: xsync.NewMap[string, *entry](), subjects: xsync.NewMap[string, *subject](),
		budget: newBudget(cmp.Or(c.ExchangeRate, 25)), seed: maphash.MakeSeed(), reads: map[*read]bool{},
		hearing: hearing{patience: cmp.Or(c.MaxStaleness, 24*time.Hour)}, outages: rate.Sometimes{First: 1, Interval: 10 * time.Second},
		observer: cmp.Or[Observer](c.Observer, nobody{}), tracer: cmp.Or[trace.Tracer](c.Tracer, noop.Tracer{}),
		ctx: ctx, cancel: cancel,
	}
}

// Close ends all flights and waits for them. An answer of the issuer that is here
// by then is saved.
func (b *Broker) Close() {
	b.cancel()
	b.hearing.close()
	b.tasks.close()
	for _, e := range b.entries.All() {
		e.stop()
	}
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

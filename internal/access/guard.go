package access

import (
	"context"
	"errors"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/jellydator/ttlcache/v3"

	"smokeball.internal/tokenbroker/internal/tenant"
)

// Errors of Guard, beside *TooFastError. What a caller may be told is in the text.
var (
	// ErrNobody: there is no proof of who the caller is.
	ErrNobody = errors.New("the caller is not known: a client certificate or a bearer token is needed")
	// ErrNotAllowed: no rule allows it, or there is no such tenant; who may not know which is not told.
	ErrNotAllowed = errors.New("no rule of the access file allows this caller to do this")
	// ErrScopes: the tenant's tokens are allowed, with other scopes.
	ErrScopes = errors.New("the access file allows this caller other scopes of this tenant than these; none stands for all that are registered")
)

// Refused says that a proof of who the caller is was not accepted, and why.
type Refused struct{ why error }

// Error says what is wrong with the proof.
func (e *Refused) Error() string { return e.why.Error() }

// Temporary says that the same proof may be accepted in a moment.
func (e *Refused) Temporary() bool { return errors.Is(e.why, errNoKeys) }

// Tenants is where labels are looked up.
type Tenants interface {
	// Labels returns a tenant's labels; with fresh, as they are in the store and not
	// only in memory. The error may be tenant.ErrNotFound or tenant.ErrUnreadable; any
	// other means that they could not be looked up. It returns in bounded time, also if
	// ctx does not end.
	Labels(ctx context.Context, id string, fresh bool) (map[string]string, error)
}

// Guard stands at the door: it says who is calling, whether not too often, and what
// they may do. It is safe for concurrent use.
type Guard struct {
	tokens   *Tokens
	tenants  Tenants
	policy   atomic.Pointer[Policy]
	accounts *ttlcache.Cache[string, *account]
	anyone   *Caller // who calls without proof; nil: nobody may

	mu   sync.Mutex
	held map[*hold]struct{} // open streams
}

// Principals that are remembered, and how they used their limits. It is more than
// there are, unless an authority gives a name to everybody who asks.
const maxAccounts = 100_000

// NewGuard returns a guard that lets nobody do anything, until it is given a
// policy. tokens verifies bearer tokens; nil: they are refused.
func NewGuard(tokens *Tokens, tenants Tenants) *Guard {
	accounts := ttlcache.New(ttlcache.WithCapacity[string, *account](maxAccounts))
	g := &Guard{tokens: tokens, tenants: tenants, accounts: accounts, held: map[*hold]struct{}{}}
	g.policy.Store(&Policy{})
	return g
}

// Unguarded returns a guard that takes everyone for somebody who may do
// everything.
func Unguarded(tenants Tenants) *Guard {
	g := NewGuard(nil, tenants)
	g.policy.Store(Everything())
	g.anyone = g.know(&Caller{names: []string{"anyone"}})
	return g
}

// SetPolicy sets what callers may do. It holds from their next call on, and ends
// streams that are not allowed any more.
func (g *Guard) SetPolicy(p *Policy) {
	g.policy.Store(p)
	g.Recheck()
}

// know gives a caller the account of its principal, if it has none yet.
func (g *Guard) know(c *Caller) *Caller {
	if c.account.Load() != nil {
		return c
	}
	name := c.Principal()
	item := g.accounts.Get(name)
	if item == nil {
		item, _ = g.accounts.GetOrSet(name, newAccount())
	}
	c.account.CompareAndSwap(nil, item.Value())
	return c
}

const bearer = "bearer "

// Identify returns who makes a call on a connection with this caller (nil: one
// without a certificate) and these Authorization headers. A bearer token goes before the
// certificate, which then is that of a proxy, and must be good. The error is
// ErrNobody or *Refused.
func (g *Guard) Identify(connected *Caller, authorization []string) (*Caller, error) {
	c := connected
	switch {
	case g.anyone != nil:
		return g.anyone, nil
	case len(authorization) > 0:
		header := authorization[0]
		if g.tokens == nil || len(authorization) > 1 || len(header) < len(bearer) || !strings.EqualFold(header[:len(bearer)], bearer) {
			return nil, &Refused{errors.New("the Authorization header is not one bearer token, or bearer tokens are not accepted here")}
		}
		var err error
		if c, err = g.tokens.Caller(strings.TrimSpace(header[len(bearer):])); err != nil {
			return nil, &Refused{err}
		}
		g.know(c)
	case c == nil:
		return nil, ErrNobody
	}
	if err := c.check(time.Now()); err != nil {
		return nil, &Refused{err}
	}
	return c, nil
}

// grants returns what the policy gives to a caller.
func (g *Guard) grants(c *Caller) *Grants {
	if held := c.granted.Load(); held != nil && held.policy == g.policy.Load() {
		return held.grants
	}
	held := c.account.Load().grant(&g.policy, c.names)
	c.granted.Store(held)
	return held.grants
}

// Known says whether any rule is for the caller.
func (g *Guard) Known(c *Caller) bool { return g.grants(c).Any() }

// Decide says whether a caller may do something, and by which rule. The error is
// ErrNotAllowed, ErrScopes, or that of Tenants.
//
// A tenant that the caller may not know of and one that there is not are refused
// alike: if rules go by names, before anything is looked up; if they go by labels, after the same look
// into the store, and after a time that does not tell what was found.
func (g *Guard) Decide(ctx context.Context, c *Caller, q Query) (rule string, err error) {
	grants := g.grants(c)
	d := grants.Decide(q)
	if d.Verdict != ByLabels {
		return outcome(d)
	}
	// The caller's deadline does not count from here on: what has been done by then
	// would tell what was found.
	ctx = context.WithoutCancel(ctx)
	began := time.Now()
	for _, fresh := range []bool{false, true} {
		var labels map[string]string
		labels, err = g.tenants.Labels(ctx, q.Tenant, fresh)
		if err == nil {
			if d := grants.DecideFor(q, labels); d.Verdict != Denied {
				return outcome(d)
			}
		} else if !errors.Is(err, tenant.ErrNotFound) && !errors.Is(err, tenant.ErrUnreadable) {
			break // A second look would take as long again.
		}
		err = ErrNotAllowed
	}
	blur(began)
	return "", err
}

// Standing says whether a caller may still do what Decide has let it do: the same
// errors, at once. It goes by the labels that are in memory, and does not hide what
// it finds, since the caller has seen it.
func (g *Guard) Standing(ctx context.Context, c *Caller, q Query) error {
	grants := g.grants(c)
	d := grants.Decide(q)
	if d.Verdict == ByLabels {
		labels, err := g.tenants.Labels(ctx, q.Tenant, false)
		switch {
		case errors.Is(err, tenant.ErrNotFound), errors.Is(err, tenant.ErrUnreadable):
			return ErrNotAllowed
		case err != nil:
			return err
		}
		d = grants.DecideFor(q, labels)
	}
	_, err := outcome(d)
	return err
}

// DecideFor is Decide for a tenant whose labels are known.
func (g *Guard) DecideFor(c *Caller, q Query, labels map[string]string) (rule string, err error) {
	return outcome(g.grants(c).DecideFor(q, labels))
}

// Sees says whether a tenant with this id and these labels is among those that are
// shown to a caller who may list tenants: those that it may get.
func (g *Guard) Sees(c *Caller, id string, labels map[string]string) bool {
	_, err := g.DecideFor(c, Query{Method: "GetTenant", Tenant: id}, labels)
	return err == nil
}

func outcome(d Decision) (rule string, err error) {
	switch d.Verdict {
	case Allowed:
		return d.Rule, nil
	case ScopeDenied:
		return "", ErrScopes
	default:
		return "", ErrNotAllowed
	}
}

// grid is how finely a caller can tell how long a refusal took. Looking a tenant
// up and opening its record takes a fraction of it.
const grid = 50 * time.Millisecond

// blur waits until the time since began is a multiple of grid.
func blur(began time.Time) { time.Sleep(grid - time.Since(began)%grid) }

// check says whether the proof is good still.
func (c *Caller) check(now time.Time) error {
	if !c.expires.IsZero() && !now.Before(c.expires) {
		return errProofExpired
	}
	if c.stands != nil {
		return c.stands(c)
	}
	return nil
}

var errProofExpired = errors.New("the certificate or token of the caller has expired")

package access

import (
	"fmt"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"golang.org/x/time/rate"
)

// TooFastError says that a caller has used up a limit.
type TooFastError struct {
	// What is what there was too much of.
	What string
	// After is how long to wait.
	After time.Duration
}

// Error says which limit it is.
func (e *TooFastError) Error() string { return fmt.Sprintf("this caller has too many %s", e.What) }

// account is how a principal uses its limits.
type account struct {
	calls, refreshes        *rate.Limiter
	open, connections       atomic.Int64
	maxOpen, maxConnections atomic.Int64 // 0: no limit

	mu sync.Mutex
	// granted is what a caller of the principal was given last. It may be much, and
	// callers are many: each connection and token is one.
	granted *granted
}

func newAccount() *account {
	return &account{calls: rate.NewLimiter(rate.Inf, 1), refreshes: rate.NewLimiter(rate.Inf, 1)}
}

// grant returns what the policy gives to these names, and sets the limits.
func (a *account) grant(current *atomic.Pointer[Policy], names []string) *granted {
	a.mu.Lock()
	defer a.mu.Unlock()
	policy := current.Load() // Not one from before somebody else had the lock.
	if a.granted == nil || a.granted.policy != policy || !slices.Equal(a.granted.names, names) {
		a.granted = &granted{policy, names, policy.Grants(names)}
		a.set(a.granted.grants.Limits())
	}
	return a.granted
}

// set sets the limits. What has been used of them stays used.
func (a *account) set(l Limits) {
	limit(a.calls, l.CallsPerSecond, l.CallsPerSecond)
	limit(a.refreshes, l.RefreshesPerMinute/60, l.RefreshesPerMinute/6)
	a.maxOpen.Store(int64(l.OpenCalls))
	a.maxConnections.Store(int64(l.Connections))
}

// limit sets a limiter to so many per second, and so many at once after a quiet
// time, one at least; 0: no limit.
func limit(l *rate.Limiter, perSecond, atOnce float64) {
	r, burst := rate.Limit(perSecond), max(1, int(atOnce))
	if perSecond == 0 {
		r = rate.Inf
	}
	if l.Limit() != r || l.Burst() != burst {
		l.SetBurst(burst)
		l.SetLimit(r)
	}
}

// refreshMethod has a limit of its own, beside that of all calls: it has tokens bought.
const refreshMethod = "RefreshToken"

// Admit counts a call of the method against the caller's rates. The error is
// *TooFastError.
func (g *Guard) Admit(c *Caller, method string) error {
	g.grants(c) // Sets the limits, if they have changed.
	a := c.account.Load()
	if wait := take(a.calls); wait > 0 {
		return &TooFastError{"calls", wait}
	}
	if method == refreshMethod {
		if wait := take(a.refreshes); wait > 0 {
			return &TooFastError{"refreshes", wait}
		}
	}
	return nil
}

// take takes one, or says how long to wait for it. It reserves nothing to learn
// that: reservations that are given back at the same time give back too much.
func take(l *rate.Limiter) time.Duration {
	if l.Allow() {
		return 0
	}
	wait := (1 - l.Tokens()) / float64(l.Limit()) // seconds
	return max(time.Duration(wait*float64(time.Second)), time.Millisecond)
}

// Open counts a call that begins against the number of those that are open. The
// error is *TooFastError; without one, Close must be called at the call's end.
func (c *Caller) Open() error {
	a := c.account.Load()
	return count(&a.open, &a.maxOpen, "open calls")
}

// Close says that a call has ended.
func (c *Caller) Close() { c.account.Load().open.Add(-1) }

// Connect counts a connection of the caller's; see Caller.Open. Who comes with a
// certificate is not identified before it was called.
func (g *Guard) Connect(c *Caller) error {
	g.grants(g.know(c))
	a := c.account.Load()
	return count(&a.connections, &a.maxConnections, "connections")
}

// Disconnect says that a connection of the caller's has ended.
func (c *Caller) Disconnect() { c.account.Load().connections.Add(-1) }

func count(n, most *atomic.Int64, what string) error {
	if now, most := n.Add(1), most.Load(); most > 0 && now > most {
		n.Add(-1)
		return &TooFastError{what, time.Second}
	}
	return nil
}

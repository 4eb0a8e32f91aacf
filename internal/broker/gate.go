package broker

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"math/rand/v2"
	"sync"
	"time"

	"github.com/failsafe-go/failsafe-go/circuitbreaker"
	"go.opentelemetry.io/otel/trace"

	"smokeball.internal/tokenbroker/internal/token"
)

const (
	// An exchange for which somebody waits may be put off for this long.
	turnPatience = 10 * time.Second
	// One for which many will wait soon, for longer: so there is a turn for it when
	// those who wait have taken all that they can.
	urgentPatience = 2 * turnPatience
	// After a quiet time the budget of this long may be used at once. Refreshes
	// ahead leave half of it to those who wait.
	burstTime = 2 * time.Second

	// An issuer is given a rest when half of the exchanges of restWindow, of
	// restExchanges at least, have failed for a reason that is not the credentials'.
	// Then one is tried after each restTime.
	restRate      = 0.5
	restExchanges = 10
	restWindow    = 30 * time.Second
	restTime      = 5 * time.Second
	// An exchange that nobody waits for, of a tenant that has no token, is put off
	// for longer each time, up to this.
	maxPutOff = 5 * time.Minute
)

// errPutOff says that an exchange nobody waits for is made later.
var errPutOff = errors.New("put off")

// budget is what the fleet allows itself with each issuer.
type budget struct {
	perSecond float64       // exchanges
	cost      time.Duration // of an exchange
	burst     int
}

// newBudget returns the budget for this many exchanges per second.
func newBudget(perSecond float64) budget {
	cost := max(time.Microsecond, time.Duration(float64(time.Second)/perSecond))
	return budget{perSecond, cost, int(max(1, burstTime/cost))}
}

// gate is what stands before one issuer: each token endpoint is on a host of its
// own.
type gate struct {
	breaker circuitbreaker.CircuitBreaker[any]
	failing sync.Map // :: client id (string) → true, while its last exchange failed
	share   share
}

func (b *Broker) gate(endpoint string) *gate {
	v, ok := b.gates.Load(endpoint)
	if !ok {
		breaker := circuitbreaker.NewBuilder[any]().
			WithFailureRateThreshold(restRate, restExchanges, restWindow).
			WithDelay(restTime).WithSuccessThreshold(1).
			OnStateChanged(func(e circuitbreaker.StateChangedEvent) {
				level := slog.LevelInfo
				if e.OldState == circuitbreaker.ClosedState {
					level = slog.LevelWarn
				}
				b.log.Log(context.Background(), level, "issuer", "endpoint", endpoint, "exchanges", describe(e.NewState))
			}).Build()
		v, _ = b.gates.LoadOrStore(endpoint, &gate{breaker: breaker})
	}
	return v.(*gate)
}

func describe(s circuitbreaker.State) string {
	switch s {
	case circuitbreaker.OpenState:
		return "fail: it is given a rest"
	case circuitbreaker.HalfOpenState:
		return "one is tried"
	default:
		return "are made again"
	}
}

// resting returns an error while the issuer is given a rest, or one exchange is
// tried.
func (b *Broker) resting(e *entry) error {
	breaker := b.gate(e.credential.Endpoint).breaker
	if wait := breaker.RemainingDelay(); wait > 0 || breaker.IsHalfOpen() {
		return b.rest(e, wait)
	}
	return nil
}

// permit lets an exchange pass unless the issuer is given a rest. report must be
// called with what it came to.
func (b *Broker) permit(e *entry) (report func(error), err error) {
	g := b.gate(e.credential.Endpoint)
	if !g.breaker.TryAcquirePermit() {
		return nil, b.rest(e, g.breaker.RemainingDelay())
	}
	trial := g.breaker.IsHalfOpen()
	return func(err error) {
		var f *token.Failure
		switch {
		case err == nil, errors.As(err, &f) && f.Class.Permanent():
			g.failing.Delete(e.credential.ClientID)
			g.breaker.RecordSuccess() // A refusal is an answer.
		default:
			// A client that fails again and again does not speak for the others.
			if _, again := g.failing.LoadOrStore(e.credential.ClientID, true); !again || trial {
				g.breaker.RecordFailure()
			}
		}
	}, nil
}

func (b *Broker) rest(e *entry, wait time.Duration) error {
	b.stats.rested.Add(1)
	return b.putOff(e, e.waiters.Load() > 0, max(wait, restTime/2), restTime, token.Unavailable, "the issuer has failed for several tenants and is given a rest")
}

// turn waits until the exchange for e has its turn within the budget, and says
// whether it is one of a crowd. While it waits it keeps the lease.
func (b *Broker) turn(ctx context.Context, e *entry, o order) (crowd bool, err error) {
	g := b.gate(e.credential.Endpoint)
	r := token.TurnRequest{Cost: b.budget.cost, Burst: b.budget.burst}
	now := time.Now()
	switch held := e.usable(now, 0); {
	case held != nil && held.Urgent(now):
		r.Patience = urgentPatience
	case e.waiters.Load() > 0:
		r.Patience = turnPatience
	default:
		r.Spare = r.Burst / 2
	}
	asking, cancel := context.WithTimeout(ctx, storeTimeout)
	defer cancel()
	t, err := b.store.Admit(asking, e.credential.Endpoint, r)
	if err != nil {
		t = g.share.unheard(r, time.Now())
	} else {
		t = g.share.heard(r, t, time.Now())
	}
	switch {
	case !t.Given:
		return false, b.overBudget(e, r.Patience > 0, t.Wait)
	case t.Wait == 0:
		return t.Owed > max(1, r.Burst/4), nil
	}
	trace.SpanFromContext(ctx).AddEvent("waits for its turn within the fleet's budget")
	if _, err := b.store.Lease(asking, e.key(), o.owner, t.Wait+leaseTTL); err != nil {
		b.log.DebugContext(ctx, "lease not prolonged", "key", e.digest, "error", err)
	}
	select {
	case <-time.After(t.Wait):
		return true, nil
	case <-ctx.Done():
		if b.ctx.Err() != nil {
			return false, ErrClosed
		}
		return false, b.overBudget(e, true, 0)
	}
}

func (b *Broker) overBudget(e *entry, awaited bool, wait time.Duration) error {
	b.stats.overBudget.Add(1)
	return b.putOff(e, awaited, wait, turnPatience, token.Throttled,
		fmt.Sprintf("more tokens are wanted than the fleet allows itself with the issuer (one per %v)", b.budget.cost))
}

// putOff ends a flight that may not buy now, but in wait or somewhat later: within
// spread, so that not all come back at once. If it was awaited when this was
// decided, those who wait get a failure, which is nobody's but this replica's; else
// errPutOff has who has come since begin another.
func (b *Broker) putOff(e *entry, awaited bool, wait, spread time.Duration, class token.Class, message string) error {
	now := time.Now()
	at := now.Add(wait + spread/4 + rand.N(spread))
	if awaited && e.waiters.Load() > 0 {
		f := &token.Failure{Class: class, Message: message, RetryAt: at}
		if before := e.failure.Load(); before != nil {
			f.Streak = before.Streak
		}
		e.fail(b, f)
		return f
	}
	switch held := e.usable(now, 0); {
	case held == nil:
		times := min(e.putOffs.Add(1), 10)
		at = now.Add(wait + rand.N(min(spread<<times, maxPutOff)))
	case !held.Urgent(now):
		at = now.Add(wait + rand.N(max(spread, held.SafeEnd().Sub(now)/8)))
	}
	e.wait(b, at)
	return errPutOff
}

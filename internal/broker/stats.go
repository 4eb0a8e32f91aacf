package broker

import (
	"sync"
	"sync/atomic"
	"time"

	"github.com/failsafe-go/failsafe-go/circuitbreaker"

	"smokeball.internal/tokenbroker/internal/token"
)

// Observer is told how long things took, when they have come to pass. Its methods
// are called by many at once and must not block. None is called for an answer from
// memory.
type Observer interface {
	// Exchanged: an exchange at this token endpoint took this long, with all its
	// attempts. The class is that of its failure; empty: it brought a token.
	Exchanged(endpoint string, class token.Class, took time.Duration)
	// Replaced: a token was replaced behind its callers' backs when it had this much
	// of its life left; less than 0: it had ended.
	Replaced(left time.Duration)
}

type nobody struct{}

func (nobody) Exchanged(string, token.Class, time.Duration) {}
func (nobody) Replaced(time.Duration)                       {}

// Stats counts what the broker has done since it was made, and says how it is.
type Stats struct {
	// FromMemory counts answers with a token that was held; those of a watch, if they
	// were news. The callers of the others
	// waited: FromStore counts those for which the store had a token by then,
	// FromExchange those for which one was bought, and Joined those who waited for what
	// another caller, or a refresh ahead, had begun.
	FromMemory, FromStore, FromExchange, Joined uint64
	// Bought counts exchanges that brought a token, by the tenant's or a
	// fallback secret.
	Bought uint64
	// Failed counts exchanges that brought none, by class.
	Failed map[token.Class]uint64
	// OverBudget and Rested count exchanges that were put off: the fleet's budget
	// for the issuer was used up, or the issuer was given a rest.
	OverBudget, Rested uint64
	// AheadFailed counts exchanges behind callers' backs, to replace a token, that
	// brought none.
	AheadFailed uint64
	// LeaseWaits counts how often another replica was waited for, which had the lease
	// for buying a token; Takeovers how often it brought none, and this one bought.
	LeaseWaits, Takeovers uint64
	// Watches is how many are open.
	Watches int
	// Issuers says of each token endpoint that was asked whether exchanges are made.
	Issuers map[string]IssuerState
	// ExchangeRate is how many exchanges per second the fleet allows itself with one
	// issuer.
	ExchangeRate float64
	// Deaf says that changes were not heard for longer than Config.MaxStaleness.
	Deaf bool
}

// IssuerState says whether exchanges are made with an issuer.
type IssuerState string

// The states of an issuer.
const (
	Serving IssuerState = "serving" // exchanges are made
	Resting IssuerState = "resting" // it has failed for several tenants, and is not asked
	Tried   IssuerState = "tried"   // one exchange is made, to find out whether it serves again
)

// IssuerStates returns all states.
func IssuerStates() []IssuerState { return []IssuerState{Serving, Resting, Tried} }

type stats struct {
	fromMemory, fromStore, fromExchange, joined atomic.Uint64
	bought, overBudget, rested                  atomic.Uint64
	aheadFailed, leaseWaits, takeovers          atomic.Uint64
	mu                                          sync.Mutex
	failed                                      map[token.Class]uint64
}

func (s *stats) fail(c token.Class) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.failed == nil {
		s.failed = map[token.Class]uint64{}
	}
	s.failed[c]++
}

// answered counts an answer that was waited for.
func (s *stats) answered(from origin) {
	switch from {
	case ofStore:
		s.fromStore.Add(1)
	case ofIssuer:
		s.fromExchange.Add(1)
	default:
		s.joined.Add(1)
	}
}

// Stats returns the counts.
func (b *Broker) Stats() Stats {
	s := Stats{
		FromMemory: b.stats.fromMemory.Load(), FromStore: b.stats.fromStore.Load(),
		FromExchange: b.stats.fromExchange.Load(), Joined: b.stats.joined.Load(),
		Bought: b.stats.bought.Load(), Failed: map[token.Class]uint64{},
		OverBudget: b.stats.overBudget.Load(), Rested: b.stats.rested.Load(),
		AheadFailed: b.stats.aheadFailed.Load(), LeaseWaits: b.stats.leaseWaits.Load(), Takeovers: b.stats.takeovers.Load(),
		Watches: b.bells.listeners(), Issuers: map[string]IssuerState{}, ExchangeRate: b.budget.perSecond, Deaf: b.hearing.deaf.Load(),
	}
	b.stats.mu.Lock()
	for c, n := range b.stats.failed {
		s.Failed[c] = n
	}
	b.stats.mu.Unlock()
	b.gates.Range(func(endpoint, v any) bool {
		s.Issuers[endpoint.(string)] = v.(*gate).state()
		return true
	})
	return s
}

// state tells of a gate what Stats does.
func (g *gate) state() IssuerState {
	switch g.breaker.State() {
	case circuitbreaker.OpenState:
		return Resting
	case circuitbreaker.HalfOpenState:
		return Tried
	default:
		return Serving
	}
}

package broker

import (
	"iter"
	"time"

	"smokeball.internal/tokenbroker/internal/token"
)

// Held is a token that this replica holds and that will be missed when it ends.
type Held struct {
	// Tenant is one that the token is for.
	Tenant string
	// Left is how long the token lives; 0: it has ended, and none has replaced it.
	Left time.Duration
}

// Held returns the tokens that are in use or kept warm, in no order, as they are
// while it is ranged over. One that nobody has asked for since it was bought is left to
// expire, and is not among them until it has. Nor is one of a tenant that is known to be
// disabled by now, or to have another secret. It locks nothing.
func (b *Broker) Held() iter.Seq[Held] {
	return func(yield func(Held) bool) {
		now := time.Now()
		b.entries.RangeRelaxed(func(_ string, e *entry) bool {
			t, s := e.token.Load(), e.subject.Load()
			if t == nil || s == nil {
				return true
			}
			if known, ok := b.subjects.Load(s.tenant.ID); ok {
				s = known
			}
			if s.tenant.Disabled || !s.buys(e) || !e.missed(t, s, now) {
				return true
			}
			return yield(Held{Tenant: s.tenant.ID, Left: max(0, t.Expires.Sub(now))})
		})
	}
}

// missed says whether somebody misses the entry's token t when it ends, or does already.
func (e *entry) missed(t *token.Token, s *subject, now time.Time) bool {
	return e.used.Load() || s.tenant.KeepWarm && s.digest == e.digest || !now.Before(t.Expires)
}

package broker

import (
	"sync"
	"time"

	"smokeball.internal/tokenbroker/internal/token"
)

// share is a replica's part of the budget with one issuer, for when the store cannot
// be asked for a turn. It knows of what the store has given, so that nothing is given
// twice, and what the store gives afterwards comes behind what was taken here, or pays
// it back. So the fleet keeps to its budget, however often the store is lost and found
// again.
type share struct {
	mu     sync.Mutex
	buyers int // How many replicas share the budget, as far as is known; 0: one.
	// When the turns are paid back that the store has given, as far as is known.
	given time.Time
	// When those are too that were taken here, by this replica's part of the budget.
	paid time.Time
}

// heard takes note of the store's answer, and returns it as it is for this replica. A turn
// that would have to wait too long for those that were taken here is not given: it pays
// one of them back.
func (s *share) heard(r token.TurnRequest, t token.Turn, now time.Time) token.Turn {
	s.mu.Lock()
	defer s.mu.Unlock()
	taken := max(0, s.paid.Sub(latest(s.given, now)))
	owed, atOnce := r.Cost*time.Duration(t.Owed), r.Cost*time.Duration(r.Burst-r.Spare)
	if t.Given && taken > 0 {
		if t.Wait = max(t.Wait, owed+taken-atOnce); t.Wait > r.Patience {
			taken = max(0, taken-r.Cost*time.Duration(s.sharers()))
			t.Given, t.Wait = false, max(0, owed+taken-atOnce-r.Patience)
		}
	}
	s.buyers = t.Buyers
	s.given = latest(s.given, now.Add(owed))
	s.paid = s.given.Add(taken)
	return t
}

// unheard gives a turn, or not, as the store does, within this replica's part of the
// budget.
func (s *share) unheard(r token.TurnRequest, now time.Time) token.Turn {
	s.mu.Lock()
	defer s.mu.Unlock()
	buyers := s.sharers()
	r.Cost, r.Burst, r.Spare = r.Cost*time.Duration(buyers), max(1, r.Burst/buyers), r.Spare/buyers
	var t token.Turn
	t, s.paid = r.Turn(latest(s.paid, s.given), now)
	t.Owed *= buyers
	return t
}

func (s *share) sharers() int { return max(1, s.buyers) }

func latest(a, b time.Time) time.Time {
	if a.After(b) {
		return a
	}
	return b
}

package token

import "time"

// TurnRequest asks for a turn within the budget that a fleet allows itself for
// exchanges with one issuer.
type TurnRequest struct {
	// Cost is how much of the budget's time an exchange takes: at ten exchanges
	// per second, 100 ms.
	Cost time.Duration
	// Burst is how many exchanges may be made at once after a quiet time; at
	// least 1.
	Burst int
	// Spare is how many of those must be left for others; less than Burst.
	Spare int
	// Patience is how long the turn may be put off, less than a minute; 0: it is now
	// or not at all.
	Patience time.Duration
}

// Turn is the answer to a TurnRequest.
type Turn struct {
	// Given says whether the exchange has a turn.
	Given bool
	// Wait is how long to wait: for the turn, or before another may be asked for.
	Wait time.Duration
	// Owed is how many turns that were given are not paid back yet.
	Owed int
	// Buyers is how many replicas share the budget, this one included.
	Buyers int
}

// Turn is the rule: paid is when all turns that were given are paid back, and what
// it is afterwards is returned with the answer (generic cell rate algorithm). A
// turn may be given for a moment to come: whoever gets it waits, and those who ask
// later wait for longer. A turn that is not given costs nothing. In Redis the same
// rule is a script; brokertest.TestStore holds both to it.
func (r TurnRequest) Turn(paid, now time.Time) (Turn, time.Time) {
	if paid.Before(now) {
		paid = now
	}
	owed := int((paid.Sub(now) + r.Cost - 1) / r.Cost)
	then := paid.Add(r.Cost)
	wait := max(0, then.Sub(now)-r.Cost*time.Duration(r.Burst-r.Spare))
	if wait > r.Patience {
		return Turn{Wait: wait - r.Patience, Owed: owed}, paid
	}
	return Turn{Given: true, Wait: wait, Owed: owed + 1}, then
}

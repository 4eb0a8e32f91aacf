package redisstore

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"time"

	"smokeball.internal/tokenbroker/internal/token"
)

// How long a replica that has bought counts among those that do.
const buyerMemory = time.Hour

// Admit gives an exchange with the issuer at endpoint its turn within the
// budget of the fleet, or says when to ask again. An error means that Redis could
// not be asked.
func (s *Store) Admit(ctx context.Context, endpoint string, r token.TurnRequest) (token.Turn, error) {
	budget, buyers := s.budgetKeys(endpoint)
	reply, err := admitScript.Run(ctx, s.client, []string{budget, buyers},
		r.Cost.Microseconds(), r.Burst, r.Spare, r.Patience.Microseconds(), s.replica, buyerMemory.Microseconds()).Int64Slice()
	if err != nil || len(reply) != 4 {
		return token.Turn{}, fmt.Errorf("ask for a turn: %w", err)
	}
	return token.Turn{Given: reply[0] == 1, Wait: time.Duration(reply[1]) * time.Microsecond, Owed: int(reply[2]), Buyers: int(reply[3])}, nil
}

// budgetKeys returns the names of an issuer's budget and of those who share it.
// An endpoint is a URL of any length, and may be one that is nobody's business.
func (s *Store) budgetKeys(endpoint string) (budget, buyers string) {
	sum := sha256.Sum256([]byte(endpoint))
	name := "{" + hex.EncodeToString(sum[:16]) + "}"
	return s.prefix + "budget:" + name, s.prefix + "buyers:" + name
}

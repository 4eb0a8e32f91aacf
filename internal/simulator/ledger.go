package simulator

import (
	"maps"
	"time"
)

// sale is what the API knows of a token. It goes by what was sold, not by what the token says: KindClaims and KindOpaque
// change the one and not the other.
type sale struct {
	clientID string
	scopes   []string
	expires  int64 // Unix time in seconds, as in the exp claim
}

func (s sale) expired(now time.Time) bool { return now.Unix() >= s.expires }

// ledger has the tokens that were sold and may still be presented to the API. :: token → its sale
type ledger map[string]sale

// add puts a token in. Whenever there are as many as a power of two says, the expired ones are thrown out first: seldom
// enough to cost nothing, often enough that a simulator can run for weeks.
func (l ledger) add(token string, s sale, now time.Time) {
	if n := len(l); n >= 1024 && n&(n-1) == 0 {
		maps.DeleteFunc(l, func(_ string, s sale) bool { return s.expired(now) })
	}
	l[token] = s
}

// Revoke makes the API answer 401 to every token sold to the client so far, or for AllClients to every token. The client
// can buy others. The token endpoint does not know of it: KindSameToken may sell a revoked token again, to no use.
func (s *Simulator) Revoke(clientID string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	maps.DeleteFunc(s.sold, func(_ string, sold sale) bool { return clientID == AllClients || sold.clientID == clientID })
}

package redisstore

import (
	"time"

	"github.com/redis/go-redis/v9"

	"smokeball.internal/tokenbroker/internal/token"
)

// reading is what Redis's clock showed, and when the answer was here.
type reading struct {
	server int64 // milliseconds
	here   time.Time
	key    token.Key // that was asked for: in a cluster, each node has its own clock
}

// How long a reading is gone by. Clocks are set now and then; a token is saved
// seconds after it was looked for, which is when the clock is read.
const maxReadingAge = time.Minute

// readClock notes what the clock of the server that has k showed just now.
func (s *Store) readClock(k token.Key, ms any) {
	if server, ok := ms.(int64); ok {
		s.clock.Store(&reading{server, time.Now(), k})
	}
}

// serverTime returns what the clock of the server that has k shows at a moment
// here, in milliseconds, rather too little than too much; 0 if that is not known.
func (s *Store) serverTime(k token.Key, at time.Time) int64 {
	r := s.clock.Load()
	_, nodes := s.client.(*redis.ClusterClient)
	if r == nil || at.Sub(r.here) > maxReadingAge || nodes && r.key != k {
		return 0
	}
	return r.server + at.Sub(r.here).Milliseconds()
}

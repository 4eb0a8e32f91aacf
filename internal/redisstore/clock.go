package redisstore

import "time"

// reading is what Redis's clock showed, and when the answer was here.
type reading struct {
	server int64 // milliseconds
	here   time.Time
}

// How long a reading is gone by. Clocks are set now and then; a token is saved
// seconds after it was looked for, which is when the clock is read.
const maxReadingAge = time.Minute

// readClock notes what Redis's clock showed just now.
func (s *Store) readClock(ms any) {
	if server, ok := ms.(int64); ok {
		s.clock.Store(&reading{server, time.Now()})
	}
}

// serverTime returns what Redis's clock shows at a moment here, in milliseconds,
// rather too little than too much; 0 if that is not known.
func (s *Store) serverTime(at time.Time) int64 {
	r := s.clock.Load()
	if r == nil || at.Sub(r.here) > maxReadingAge {
		return 0
	}
	return r.server + at.Sub(r.here).Milliseconds()
}

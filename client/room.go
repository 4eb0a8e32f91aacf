package client

import (
	"sync"
	"time"
)

const (
	// How many sources have a stream at most; the others ask before their token ends.
	// The broker admits 1000 streams on a connection.
	maxStreams = 500
	// Proxies often admit fewer, and let those wait that are too many, without a word.
	// After one that was not answered no more are tried for this time.
	fullFor = 10 * time.Minute
)

// room counts the streams of a client. The zero room is empty.
type room struct {
	mu      sync.Mutex
	streams int
	most    int       // until then; 0: maxStreams
	until   time.Time // of most
}

// enter says whether there is room for one more stream; leave must be called at
// its end.
func (r *room) enter() bool {
	r.mu.Lock()
	defer r.mu.Unlock()
	most := maxStreams
	if r.most > 0 && time.Now().Before(r.until) {
		most = r.most
	}
	if r.streams >= most {
		return false
	}
	r.streams++
	return true
}

func (r *room) leave() {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.streams--
}

// full says that one of the streams was not answered.
func (r *room) full() {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.most, r.until = max(1, r.streams-1), time.Now().Add(fullFor)
}

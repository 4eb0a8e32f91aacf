package redisstore

import (
	"fmt"
	"time"

	"github.com/alicebob/miniredis/v2"
)

// Embedded is a Redis-compatible store in this process's memory, for development:
// what it holds is gone with it.
type Embedded struct {
	server *miniredis.Miniredis
	stop   chan struct{} // closed to end the clock
	done   chan struct{} // closed when the clock has ended
}

// StartEmbedded starts a store on a free loopback port. It must be closed.
func StartEmbedded() (*Embedded, error) {
	server := miniredis.NewMiniRedis()
	if err := server.Start(); err != nil {
		return nil, fmt.Errorf("embedded store: %w", err)
	}
	e := &Embedded{server, make(chan struct{}), make(chan struct{})}
	go e.clock()
	return e, nil
}

// URL returns where the store is.
func (e *Embedded) URL() string { return "redis://" + e.server.Addr() }

// Close ends the store.
func (e *Embedded) Close() {
	close(e.stop)
	<-e.done
	e.server.Close()
}

// clock lets time pass in the store, which miniredis leaves to its user.
func (e *Embedded) clock() {
	defer close(e.done)
	ticker := time.NewTicker(10 * time.Millisecond)
	defer ticker.Stop()
	for last := time.Now(); ; {
		select {
		case now := <-ticker.C:
			e.server.FastForward(now.Sub(last))
			last = now
		case <-e.stop:
			return
		}
	}
}

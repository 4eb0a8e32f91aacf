package audit

import (
	"context"
	"fmt"
	"sync"
	"time"
)

const (
	// changePatience bounds how long a change waits for its record.
	changePatience = 2 * time.Second
	// Changes find room behind decisions, this many.
	changeRoom = 1024
)

// entry is a record on its way.
type entry struct {
	Record
	at      int64         // Unix time in nanoseconds
	written chan struct{} // closed when it is; nil: nobody waits
}

// queue holds the records that Run has not written yet.
type queue struct {
	mu      sync.Mutex
	entries []entry // not taken by Run yet
	pending int     // in entries, or taken and not written yet
	closed  bool    // nothing more is taken
	missed  uint64  // not taken since the last that were recorded
	since   int64   // when the first of these was not taken; Unix nanoseconds

	wake   chan struct{} // has one when there is something to write
	urgent chan struct{} // has one when it should be written now
}

func (q *queue) init() {
	q.wake, q.urgent = make(chan struct{}, 1), make(chan struct{}, 1)
}

// Decision records what was decided for a caller. It never blocks, and the record is
// written soon after it has returned. If too many wait to be written, the record is
// dropped and counted, and the log says how many were as soon as it can; with
// Config.Strict it is ErrUnavailable too, and the call is to be refused. What r
// points to must not be changed afterwards.
func (l *Log) Decision(r Record) error {
	if l.off() {
		return nil
	}
	r.clip(maxText)
	if !l.put(entry{Record: r, at: time.Now().UnixNano()}, l.length) && l.strict {
		return ErrUnavailable
	}
	return nil
}

// Change records a change, and returns when the record is written; in a file it is
// on disk then. After 2 s, or when ctx ends, or if too many wait, it is
// ErrUnavailable, and a change that is to begin must not be made. Its record may be
// written later all the same: it says that the change was asked for.
func (l *Log) Change(ctx context.Context, r Record) error {
	if l.off() {
		return nil
	}
	r.clip(maxText)
	e := entry{Record: r, at: time.Now().UnixNano(), written: make(chan struct{})}
	if !l.put(e, l.length+changeRoom) {
		return ErrUnavailable
	}
	patience := time.NewTimer(changePatience)
	defer patience.Stop()
	select {
	case <-e.written:
		return nil
	case <-patience.C:
		return ErrUnavailable
	case <-ctx.Done():
		return fmt.Errorf("%w: %w", ErrUnavailable, context.Cause(ctx))
	}
}

// put queues e, unless as many as room wait already.
func (l *Log) put(e entry, room int) bool {
	l.mu.Lock()
	if l.closed || l.pending >= room {
		if l.missed == 0 {
			l.since = e.at
			signal(l.wake) // To tell of it.
		}
		l.missed++
		l.mu.Unlock()
		l.dropped.Add(1)
		return false
	}
	l.pending++
	l.entries = append(l.entries, e)
	n := len(l.entries)
	l.mu.Unlock()
	if n == 1 {
		signal(l.wake)
	}
	// Run gathers records for a moment, but not until there is no room.
	if e.written != nil || n == (l.length+1)/2 {
		signal(l.urgent)
	}
	return true
}

func signal(c chan struct{}) {
	select {
	case c <- struct{}{}:
	default:
	}
}

// take returns what waits, for which it leaves spare, and how many were missed
// since when.
func (q *queue) take(spare []entry) (taken []entry, missed uint64, since int64) {
	q.mu.Lock()
	defer q.mu.Unlock()
	taken, missed, since = q.entries, q.missed, q.since
	q.entries, q.missed = spare[:0], 0
	return taken, missed, since
}

// done makes room for n more, which were taken and are written.
func (q *queue) done(n int) {
	q.mu.Lock()
	q.pending -= n
	q.mu.Unlock()
}

// close has nothing taken any more.
func (q *queue) close() {
	q.mu.Lock()
	q.closed = true
	q.mu.Unlock()
}

func (q *queue) waiting() int {
	q.mu.Lock()
	defer q.mu.Unlock()
	return q.pending
}

package audit

import (
	"context"
	"runtime"
	"slices"
	"time"
)

const (
	// gatherTime is how long Run waits for more decisions to write with one.
	gatherTime = 10 * time.Millisecond
	chunk      = 512 // records that are written at once
	// courtesy is how many records Run encodes until it lets others have the processor: it
	// has some hundred to encode at once, and a call would wait for all of them.
	courtesy = 16
	// syncAfter bounds how long a decision in a file is not on disk.
	syncAfter   = time.Second
	retryPause  = 500 * time.Millisecond
	anchorEvery = time.Minute
	// A write that takes longer than this is complained of, and complaints are not
	// repeated more often than this.
	slowWrite      = 2 * time.Second
	complaintEvery = 10 * time.Second
	// stopPatience is for what is not written yet when Run is to end.
	stopPatience = 5 * time.Second
)

// Run writes what is recorded, until ctx ends and all that was taken until then is
// written and synced, but for 5 s longer at most: a write that blocks is left behind.
// It must be called once. The chain's head goes to the logger when Run begins and
// ends, and every minute if it has moved.
func (l *Log) Run(ctx context.Context) {
	if l.off() {
		<-ctx.Done()
		return
	}
	limit, giveUp := context.WithCancel(context.WithoutCancel(ctx))
	defer giveUp()
	defer context.AfterFunc(ctx, func() { time.AfterFunc(stopPatience, giveUp) })()
	w := &writer{Log: l, limit: limit, jobs: make(chan job), results: make(chan result, 1), ended: make(chan struct{})}
	go w.work()
	w.run(ctx)
	close(w.jobs)
	select {
	case <-w.ended:
	case <-limit.Done():
	}
}

// writer is what Run has to itself.
type writer struct {
	*Log
	limit context.Context // what is not written when it ends never is

	jobs    chan job
	results chan result   // has room for the one that nobody waits for
	ended   chan struct{} // closed when work has ended

	buf        []byte
	spare      []entry
	unsynced   <-chan time.Time // fires when what was written is to be synced; nil: nothing is
	anchored   head
	failing    bool // and that was said
	complained time.Time
}

type job struct {
	lines []byte
	sync  bool
}

type result struct {
	n   int
	err error
}

// work does what may block, in a goroutine of its own. It ends when there are no
// more jobs, and the last one that it has taken is done.
func (w *writer) work() {
	defer close(w.ended)
	for j := range w.jobs {
		n, err := w.sink.write(j.lines, j.sync)
		w.results <- result{n, err}
	}
	_ = w.sink.close() // It was synced before, or that was complained of.
}

func (w *writer) run(ctx context.Context) {
	if w.tampered {
		w.logger.WarnContext(ctx, "the last record of the audit file was changed after it was written", "seq", w.chain.seq)
	}
	whole := w.write(&Record{Event: eventStart}, w.start, true)
	if whole {
		w.anchor(ctx)
	}
	minute := time.NewTicker(anchorEvery)
	defer minute.Stop()
	for whole && ctx.Err() == nil {
		select {
		case <-ctx.Done():
		case <-w.wake:
			select {
			case <-time.After(gatherTime):
			case <-w.urgent:
			case <-ctx.Done():
			}
			whole = w.drain()
		case <-w.urgent:
			whole = w.drain()
		case <-w.unsynced:
			whole = w.flush(true)
		case <-minute.C:
			w.anchor(ctx)
		}
	}
	w.queue.close()
	whole = whole && w.drain() && w.write(&Record{Event: eventStop}, own{}, true)
	if left := w.waiting(); !whole {
		w.dropped.Add(uint64(left))
		w.logger.ErrorContext(ctx, "the audit log ends before its time: it could not be written", "unwritten", left)
		return
	}
	w.anchor(ctx)
}

// write writes one of the log's own records.
func (w *writer) write(r *Record, o own, sync bool) bool {
	w.buf = w.chain.append(w.buf, r, o, time.Now().UnixNano())
	return w.flush(sync)
}

// drain writes all that waits now. It returns false if w.limit has ended first.
func (w *writer) drain() bool {
	taken, missed, since := w.take(w.spare)
	for entries := range slices.Chunk(taken, chunk) {
		if !w.writeEntries(entries) {
			return false
		}
	}
	clear(taken)
	w.spare = taken
	if missed == 0 {
		return true
	}
	if w.mayComplain() {
		w.logger.Warn("audit records were dropped", "dropped", missed, "dropped_ever", w.dropped.Load())
	}
	return w.write(&Record{Event: eventDropped}, own{Dropped: missed, Since: time.Unix(0, since).UTC().Format(timeFormat)}, false)
}

func (w *writer) writeEntries(entries []entry) bool {
	awaited := false
	for i := range entries {
		e := &entries[i]
		w.buf = w.chain.append(w.buf, &e.Record, own{}, e.at)
		awaited = awaited || e.written != nil
		if i%courtesy == courtesy-1 {
			runtime.Gosched()
		}
	}
	if !w.flush(awaited) {
		return false
	}
	w.written.Add(uint64(len(entries)))
	w.done(len(entries))
	for _, e := range entries {
		if e.written != nil {
			close(e.written)
		}
	}
	return true
}

// flush writes w.buf, and tries again until it is written, or w.limit ends and it
// returns false. Then work may still have w.buf, and nothing is to be written any
// more.
func (w *writer) flush(sync bool) bool {
	rest := w.buf
	for {
		r, ok := w.attempt(job{rest, sync})
		if !ok {
			return false
		}
		rest = rest[r.n:]
		if r.err == nil {
			break
		}
		w.failed.Add(1)
		w.stuck.Store(true)
		if w.mayComplain() {
			w.failing = true
			w.logger.Warn("audit records cannot be written", "error", r.err, "dropped_ever", w.dropped.Load())
		}
		select {
		case <-time.After(retryPause):
		case <-w.limit.Done():
			return false
		}
	}
	w.buf = w.buf[:0]
	w.stuck.Store(false)
	if w.failing {
		w.failing = false
		w.logger.Info("audit records are written again", "dropped_ever", w.dropped.Load())
	}
	switch {
	case sync:
		w.unsynced = nil
	case w.unsynced == nil:
		w.unsynced = time.After(syncAfter)
	}
	return true
}

// attempt has work do j, and waits for it until w.limit ends.
func (w *writer) attempt(j job) (result, bool) {
	w.jobs <- j // It has nothing else to do.
	slow := time.NewTicker(slowWrite)
	defer slow.Stop()
	for {
		select {
		case r := <-w.results:
			return r, true
		case <-slow.C:
			w.stuck.Store(true)
			if w.mayComplain() {
				w.failing = true
				w.logger.Warn("audit records cannot be written: the sink blocks", "dropped_ever", w.dropped.Load())
			}
		case <-w.limit.Done():
			return result{}, false
		}
	}
}

// mayComplain says that the last complaint was long enough ago for another.
func (w *writer) mayComplain() bool {
	now := time.Now()
	if now.Sub(w.complained) < complaintEvery {
		return false
	}
	w.complained = now
	return true
}

// anchor tells the logger of the chain's head, if it has moved.
func (w *writer) anchor(ctx context.Context) {
	if w.chain.head != w.anchored {
		w.anchored = w.chain.head
		w.logger.InfoContext(ctx, "audit chain", "chain", w.chain.id, "seq", w.chain.seq, "hash", string(w.chain.hash[:]))
	}
}

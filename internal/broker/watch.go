package broker

import (
	"context"
	"sync"
	"time"
)

// Watch follows what Get answers for one tenant and set of scopes. It is for one
// goroutine.
type Watch struct {
	broker  *Broker
	id      string
	scopes  []string
	bell    *bell
	changed <-chan struct{} // closed when there may be another answer; nil before the first
	last    *Answer
}

// Watch returns a watch of the tenant's tokens with these scopes (none: the
// registered ones). A token that is watched is in use: it is replaced when it is
// due. Close must be called.
func (b *Broker) Watch(id string, scopes []string) *Watch {
	return &Watch{broker: b, id: id, scopes: scopes, bell: b.bells.open(id)}
}

// Close ends the watch.
func (w *Watch) Close() { w.broker.bells.close(w.bell) }

// Next returns the answer of Get, at first at once, and then each time when there
// may be another, or when the tenant has changed otherwise; news says whether the
// token, the base URL or the API key is another than the last time. The error is
// one of Get, which has the last word when a token ends and none could be had, or
// the context's own; after that one, Next may be called again.
func (w *Watch) Next(ctx context.Context) (a *Answer, news bool, err error) {
	if err := w.wait(ctx); err != nil {
		return nil, false, err
	}
	changed := w.bell.listen() // Before looking: what changes meanwhile is heard.
	found, held, err := w.broker.answer(ctx, w.id, w.scopes, wish{})
	if err != nil {
		return nil, false, err
	}
	a = &found
	news = w.last == nil || !w.last.same(a)
	if news && held {
		w.broker.stats.fromMemory.Add(1)
	}
	w.changed, w.last = changed, a
	return a, news, nil
}

// lookAgain is how soon a watch looks again though it heard of no change: a tenant
// that could not be read again in time after a Resync was taken as it was.
const lookAgain = time.Minute

// wait waits for the moment when there may be another answer.
func (w *Watch) wait(ctx context.Context) error {
	if w.changed == nil {
		return nil
	}
	again := time.NewTimer(min(lookAgain, time.Until(w.last.Token.SafeEnd())))
	defer again.Stop()
	select {
	case <-w.changed:
		return nil
	case <-again.C:
		return nil
	case <-ctx.Done():
		return ctx.Err()
	}
}

func (a *Answer) same(other *Answer) bool {
	return a.Token.ID == other.Token.ID && a.APIBaseURL == other.APIBaseURL && a.APIKey.Equal(other.APIKey)
}

// bells ring for those who watch a tenant when its token or the tenant is another,
// or may be. The zero bells is ready.
type bells struct {
	mu    sync.Mutex
	bells map[string]*bell // :: tenant id → its bell, while anybody listens
	count int              // how many listen, to all of them
}

type bell struct {
	all       *bells
	id        string
	listeners int
	rings     chan struct{} // closed at the next ring
}

func (all *bells) open(id string) *bell {
	all.mu.Lock()
	defer all.mu.Unlock()
	b, ok := all.bells[id]
	if !ok {
		if all.bells == nil {
			all.bells = map[string]*bell{}
		}
		b = &bell{all: all, id: id, rings: make(chan struct{})}
		all.bells[id] = b
	}
	b.listeners++
	all.count++
	return b
}

func (all *bells) close(b *bell) {
	all.mu.Lock()
	defer all.mu.Unlock()
	all.count--
	if b.listeners--; b.listeners == 0 {
		delete(all.bells, b.id)
	}
}

// listeners returns how many listen.
func (all *bells) listeners() int {
	all.mu.Lock()
	defer all.mu.Unlock()
	return all.count
}

// listen returns what is closed at the next ring.
func (b *bell) listen() <-chan struct{} {
	b.all.mu.Lock()
	defer b.all.mu.Unlock()
	return b.rings
}

func (all *bells) ring(id string) {
	all.mu.Lock()
	defer all.mu.Unlock()
	if b, ok := all.bells[id]; ok {
		b.ring()
	}
}

func (all *bells) ringAll() {
	all.mu.Lock()
	defer all.mu.Unlock()
	for _, b := range all.bells {
		b.ring()
	}
}

func (b *bell) ring() {
	close(b.rings)
	b.rings = make(chan struct{})
}

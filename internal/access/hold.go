package access

import (
	"context"
	"time"

	"golang.org/x/sync/errgroup"
)

// hold is a stream that goes on only as long as its caller may have it.
type hold struct {
	caller  *Caller
	allowed func() error
	end     context.CancelCauseFunc
}

// Hold returns a context for a stream, which ends when the caller's proof
// expires or is not accepted any more, or when allowed, which is asked after each
// change, returns an error. That is the context's cause then. release must be called at the stream's end.
func (g *Guard) Hold(ctx context.Context, c *Caller, allowed func() error) (held context.Context, release func()) {
	ctx, cancel := context.WithCancelCause(ctx)
	h := &hold{c, allowed, cancel}
	var expiry *time.Timer
	if !c.expires.IsZero() {
		expiry = time.AfterFunc(time.Until(c.expires), func() { cancel(&Refused{errProofExpired}) })
	}
	g.mu.Lock()
	g.held[h] = struct{}{}
	g.mu.Unlock()
	h.recheck() // What changed since the stream was allowed.
	return ctx, func() {
		g.mu.Lock()
		delete(g.held, h)
		g.mu.Unlock()
		if expiry != nil {
			expiry.Stop()
		}
		cancel(nil)
	}
}

// Recheck ends the streams whose callers are not accepted, or not allowed to have
// them, any more. SetPolicy does it too; it is to be called after a change of
// authorities or keys.
func (g *Guard) Recheck() {
	g.mu.Lock()
	holds := make([]*hold, 0, len(g.held))
	for h := range g.held {
		holds = append(holds, h)
	}
	g.mu.Unlock()
	var checks errgroup.Group
	checks.SetLimit(recheckers)
	for _, h := range holds {
		checks.Go(func() error { h.recheck(); return nil })
	}
	_ = checks.Wait()
}

// recheckers is how many streams are looked at at a time: for each, labels may have
// to be looked up.
const recheckers = 32

func (h *hold) recheck() {
	if err := h.caller.check(time.Now()); err != nil {
		h.end(&Refused{err})
	} else if err := h.allowed(); err != nil {
		h.end(err)
	}
}

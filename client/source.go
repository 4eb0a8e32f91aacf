package client

import (
	"context"
	"fmt"
	"math/rand/v2"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"golang.org/x/oauth2"
)

// coldWait is how long Token waits for a token if there is none.
const coldWait = 10 * time.Second

// TokenSource has the tokens of one tenant ready, from the first time that it is
// asked. It is safe for concurrent use, and implements oauth2.TokenSource.
//
// It keeps a token as long as it lives, whatever becomes of the broker, but for
// one thing: it drops it when the broker says that the tenant is disabled or
// deleted, or that the caller may not have its tokens. While there is no token and
// the last attempt to get one has failed, callers get that attempt's error at once;
// the source itself goes on trying, with pauses of five seconds at most (half a
// minute, if somebody has to change something first; longer, if the broker asks for it).
//
// A source that nobody has asked for a token's whole life stops, and begins anew
// when it is asked. Nothing needs to be closed for that.
type TokenSource struct {
	client *Client
	key    string   // in Client.sources
	tenant string   // its resource name
	scopes []string // sorted, each once
	draw   float64  // in [0, 1): spreads when the sources ask for new tokens

	held     atomic.Pointer[held] // nil: none yet. Written with mu
	asked    chan struct{}        // somebody has asked since the owner last looked
	replaced chan struct{}        // Replace has brought a token

	mu      sync.Mutex
	started bool          // the owner runs
	failure error         // for callers while there is no token; nil: they wait
	changed chan struct{} // closed when held or failure has changed
	replacement
}

// SourceOption changes what tokens a source has.
type SourceOption func(*sourceOptions)

type sourceOptions struct{ scopes []string }

// WithScopes has the source ask for tokens with these scopes, in any order.
// Without it, or with none, tokens have the tenant's registered scopes, or, if it
// has none, all that the issuer allows.
func WithScopes(scopes ...string) SourceOption {
	return func(o *sourceOptions) {
		o.scopes = slices.Compact(slices.Sorted(slices.Values(scopes)))
	}
}

// TokenSource returns the source of a tenant's tokens. The tenant is named
// "tenants/acme", or "acme" for short. There is one source for each tenant and
// set of scopes, while it is in use: ask for it as often as you like. It asks the
// broker for nothing before it is asked itself.
func (c *Client) TokenSource(tenant string, opts ...SourceOption) *TokenSource {
	if !strings.HasPrefix(tenant, "tenants/") {
		tenant = "tenants/" + tenant
	}
	var o sourceOptions
	for _, opt := range opts {
		opt(&o)
	}
	key := fmt.Sprintf("%q", append([]string{tenant}, o.scopes...)) // Quoted: no two lists meet.
	c.mu.Lock()
	defer c.mu.Unlock()
	if known := c.sources[key]; known != nil {
		return known
	}
	s := &TokenSource{
		client: c, key: key, tenant: tenant, scopes: o.scopes, draw: rand.Float64(),
		asked: make(chan struct{}, 1), replaced: make(chan struct{}, 1), changed: make(chan struct{}),
	}
	c.sources[key] = s
	return s
}

// Token implements oauth2.TokenSource. With a token in memory it allocates
// nothing and takes no lock; without one it waits for ten seconds at most, and
// not at all if it is known that none can be had. Errors are as Get's.
//
// All get the same *oauth2.Token: do not change it, and do not wrap the source in
// oauth2.ReuseTokenSource (oauth2.NewClient does), which writes to the token and
// keeps it when it is replaced or dropped. Use Transport, or oauth2.Transport. Its
// Expiry is when it is not handed out any more, by the wall clock of this machine.
func (s *TokenSource) Token() (*oauth2.Token, error) {
	if h := s.ready(); h != nil {
		return &h.oauth2, nil
	}
	ctx, cancel := context.WithTimeout(context.Background(), coldWait)
	defer cancel()
	h, err := s.wait(ctx)
	if err != nil {
		return nil, err
	}
	return &h.oauth2, nil
}

// Get returns the token, with what a request needs beside it. Without one in
// memory it waits within ctx, and not at all if it is known that none can be had.
//
// An error wraps a gRPC status (status.FromError, Reason), or ctx's error if its
// time is over. After Close it has the code CANCELLED.
func (s *TokenSource) Get(ctx context.Context) (*Token, error) {
	if h := s.ready(); h != nil {
		return &h.token, nil
	}
	h, err := s.wait(ctx)
	if err != nil {
		return nil, err
	}
	return &h.token, nil
}

// ready returns the token if one may be handed out, else nil. It does not look at
// the clock: a timer ends each token. A process that was frozen for longer than the
// margin may so see the ended token for one instant more; and where timers stand still
// while the machine sleeps, as on Linux, until the connection turns out to be broken, or the token is due. Smokeball
// rejects it then, and Replace helps.
func (s *TokenSource) ready() *held {
	h := s.held.Load()
	if h == nil {
		return nil
	}
	switch h.state.Load() {
	case ended:
		return nil
	case unused:
		if h.state.CompareAndSwap(unused, used) {
			s.ask()
			_ = s.start() // After Close there is no token.
		}
	}
	return h
}

// ask lets the owner know that somebody has asked.
func (s *TokenSource) ask() {
	select {
	case s.asked <- struct{}{}:
	default: // It knows.
	}
}

// wait returns the token as soon as there is one. The owner ends every wait: with
// a token, with an attempt that failed, or with its own end.
func (s *TokenSource) wait(ctx context.Context) (*held, error) {
	for {
		if err := s.start(); err != nil {
			return nil, err
		}
		s.ask()
		s.mu.Lock()
		h, failure, changed := s.held.Load(), s.failure, s.changed
		s.mu.Unlock()
		switch {
		case h.usable():
			return h, nil
		case failure != nil:
			return nil, failure
		}
		select {
		case <-changed:
		case <-ctx.Done():
			return nil, fmt.Errorf("%s: no token in time: %w", s.tenant, ctx.Err())
		}
	}
}

// start has the owner run, unless it does already.
func (s *TokenSource) start() error {
	s.mu.Lock()
	defer s.mu.Unlock()
	if !s.started && !s.client.run(s.own) {
		return errClosed
	}
	s.started = true
	return nil
}

// stop ends the owner's life, unless somebody has asked. Who asks later waits for a
// new attempt. The client forgets the source: there are as many tenants as there are names.
func (s *TokenSource) stop() bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	if len(s.asked) > 0 {
		return false
	}
	s.started, s.failure = false, nil
	s.client.forget(s)
	s.announce()
	return true
}

func (c *Client) forget(s *TokenSource) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.sources[s.key] == s {
		delete(c.sources, s.key)
	}
}

// run runs f in a goroutine that Close waits for; not at all after Close.
func (c *Client) run(f func()) bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	if !c.closed {
		c.running.Go(f)
	}
	return !c.closed
}

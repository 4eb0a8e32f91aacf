package client

import (
	"slices"
	"sync/atomic"
	"time"

	"golang.org/x/oauth2"

	pb "smokeball.internal/tokenbroker/gen/tokenbroker/v1"
)

const (
	// A token is not handed out in the last tenth of its life, one minute at most,
	// so that it is still valid when the request arrives. The broker does the same.
	maxMargin = time.Minute
	// A token is asked after in this part of its life, unless another came: the
	// broker replaces it at 70 to 80 %.
	dueFrom, dueTo = 0.82, 0.88
)

// The states of a held token.
const (
	unused uint32 = iota // since the owner last looked
	used
	ended // not handed out any more. Nothing comes after it
)

// held is a token as readers find it. All but its state stays as it is.
type held struct {
	token  Token
	oauth2 oauth2.Token  // the same, for Token
	life   time.Duration // from its issue to its end
	end    time.Time     // when it is not handed out any more
	due    time.Time     // when another is asked for

	state atomic.Uint32
	timer *time.Timer // sets state to ended at end
}

// hold makes t, received at now, a token to hand out, and starts the timer that
// ends it. Its life is counted from now by what the broker says is left; of the
// broker's clock only the difference of two readings is used, and that only to
// know how long the margin is and when to ask for another. draw, a number in
// [0, 1), says when within the time for that.
func hold(t *pb.Token, now time.Time, draw float64) (*held, error) {
	remaining := t.GetRemaining().AsDuration()
	switch {
	case t == nil:
		return nil, nonsense("no token")
	case t.GetAccessToken() == "":
		return nil, nonsense("an empty token")
	case t.GetRemaining().CheckValid() != nil || remaining <= 0:
		return nil, nonsense("a token that has no time left")
	}
	life := remaining
	if t.GetIssueTime().IsValid() && t.GetExpireTime().IsValid() {
		life = max(life, t.GetExpireTime().AsTime().Sub(t.GetIssueTime().AsTime()))
	}
	left := remaining - min(maxMargin, life/10) // until it is not handed out any more
	if left <= 0 {
		return nil, nonsense("a token that is about to end")
	}
	h := &held{
		token: Token{
			AccessToken: t.GetAccessToken(),
			ID:          t.GetTokenId(),
			Scopes:      slices.Clone(t.GetScopes()),
			Expires:     now.Add(remaining),
			APIBaseURL:  t.GetApiBaseUrl(),
			APIKey:      t.GetApiKey(),
		},
		life: life,
		end:  now.Add(left),
	}
	h.oauth2 = oauth2.Token{AccessToken: h.token.AccessToken, TokenType: "Bearer", Expiry: h.end}
	// Part of the life is over already. A token that comes late is the best the
	// broker has: it is asked again when a quarter of what is left is over.
	wait := time.Duration(float64(life)*(dueFrom+(dueTo-dueFrom)*draw)) - (life - remaining)
	h.due = now.Add(max(wait, left/4, minPause))
	h.timer = time.AfterFunc(time.Until(h.end), func() { h.state.Store(ended) })
	return h, nil
}

// usable says whether the token may be handed out. A nil token may not.
func (h *held) usable() bool { return h != nil && h.state.Load() != ended }

// drop ends the token before its time.
func (h *held) drop() {
	if h != nil {
		h.timer.Stop()
		h.state.Store(ended)
	}
}

// put has callers get t from now on.
func (s *TokenSource) put(t *pb.Token) error {
	h, err := hold(t, time.Now(), s.draw)
	if err != nil {
		return err
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	old := s.held.Load()
	switch {
	case s.client.ctx.Err() != nil:
		h.drop()
		return errClosed
	case h.token.ID == s.rejected && old.usable() && old.token.ID != s.rejected:
		h.drop() // From a replica that has not heard of the new one yet.
		return errStale
	}
	s.held.Store(h)
	if old != nil {
		old.timer.Stop()
	}
	s.failure = nil
	s.announce()
	return nil
}

// fail has callers get err while there is no token, and ends the one that is held
// if that is to be dropped.
func (s *TokenSource) fail(err error, drop bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if drop {
		s.held.Load().drop()
	}
	s.failure = err
	s.announce()
}

// announce wakes who waits for a change. Call it with mu.
func (s *TokenSource) announce() {
	close(s.changed)
	s.changed = make(chan struct{})
}

package client

import (
	"context"
	"fmt"
	"time"

	"google.golang.org/genproto/googleapis/rpc/errdetails"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/types/known/durationpb"

	pb "smokeball.internal/tokenbroker/gen/tokenbroker/v1"
)

const (
	// The time between two replacements: it doubles between these, as long as the
	// tokens that come are rejected too.
	minReplaceWait = time.Minute
	maxReplaceWait = 15 * time.Minute
	// The time after an answer that was lost. Whether a token was bought or not, the
	// broker sells no second one for the same rejection.
	lostReplaceWait = 2 * time.Second
)

// replacement is what a source knows of its replaced tokens.
type replacement struct {
	rejected string        // the token that Replace was last asked to replace
	underWay chan struct{} // closed when RefreshToken was answered; nil: it is not asked
	until    time.Time     // when it may be asked again
	refusal  error         // why not before; nil: since a token has just been replaced
	came     string        // the token that came last
	cameAt   time.Time
	gap      time.Duration // between the last replacement and the one after it
}

// Replace returns another token than the one with this ID, which Smokeball
// rejected although its time is not over. If another is held by now, that one is
// the answer. Otherwise the broker is asked for one, once for all who wait; this
// goes on when ctx, which bounds the caller's wait only, is over.
//
// A rejection may also come from a missing scope, a wrong account or a wrong API
// key, which a new token does not cure, and each token is billed. So the broker is
// asked once a minute at most, and ever more seldom, down to once in 15 minutes, if
// what it sends is rejected too; after an error not before the time that is in it.
// Until then the error is RESOURCE_EXHAUSTED with Reason REFRESH_TOO_SOON, or what
// the broker has answered. The token that is held goes on being handed out.
func (s *TokenSource) Replace(ctx context.Context, rejectedID string) (*Token, error) {
	if rejectedID == "" {
		return nil, status.Error(codes.InvalidArgument, "the rejected token has to be named")
	}
	if err := s.start(); err != nil {
		return nil, err
	}
	for {
		t, underWay, err := s.replace(rejectedID)
		if t != nil || err != nil {
			return t, err
		}
		select {
		case <-underWay:
		case <-ctx.Done():
			return nil, fmt.Errorf("%s: no other token in time: %w", s.tenant, ctx.Err())
		case <-s.client.ctx.Done():
			return nil, errClosed
		}
	}
}

// replace returns the token that is in place of the rejected one, or why there is
// none, or a channel that is closed when that can be asked again.
func (s *TokenSource) replace(rejectedID string) (*Token, <-chan struct{}, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	now := time.Now()
	if h := s.held.Load(); h.usable() && h.token.ID != rejectedID {
		return &h.token, nil, nil
	}
	switch {
	case s.underWay != nil:
		return nil, s.underWay, nil
	case now.Before(s.until) && s.refusal != nil:
		return nil, nil, s.refusal
	case now.Before(s.until):
		return nil, nil, s.tooSoon(s.until.Sub(now))
	}
	underWay := make(chan struct{})
	if !s.client.run(func() { s.refresh(rejectedID, underWay) }) {
		return nil, nil, errClosed
	}
	s.underWay, s.rejected = underWay, rejectedID
	return nil, underWay, nil
}

// refresh asks the broker for another token.
func (s *TokenSource) refresh(rejectedID string, underWay chan struct{}) {
	ctx, cancel := context.WithTimeout(s.client.ctx, answerWait)
	defer cancel()
	answer, err := s.client.tokens.RefreshToken(ctx, &pb.RefreshTokenRequest{
		Tenant: s.tenant, Scopes: s.scopes, RejectedTokenId: rejectedID,
	})
	t := answer.GetToken()
	if err == nil && t.GetTokenId() == rejectedID {
		err = status.Error(codes.Unavailable, "the issuer has returned the rejected token again")
	}
	if err == nil {
		err = s.put(t)
	}

	s.mu.Lock()
	defer s.mu.Unlock()
	defer close(underWay)
	s.underWay = nil
	now := time.Now()
	if err != nil {
		wait, told := retryAfter(err)
		switch {
		case outOfReach(err):
			wait = lostReplaceWait
		case !told:
			wait = minReplaceWait
		}
		s.until, s.refusal = now.Add(min(wait, maxReplaceWait)), fmt.Errorf("%s: token not replaced: %w", s.tenant, err)
		return
	}
	// Other clients replace the tenant's tokens too. So it is not only the token that
	// came here whose rejection counts, but any that comes as soon as it can.
	again := s.came == rejectedID || s.came != "" && now.Sub(s.cameAt) < 2*s.gap
	if !again {
		s.gap = 0
	}
	s.gap = min(max(minReplaceWait, 2*s.gap), maxReplaceWait)
	s.came, s.cameAt = t.GetTokenId(), now
	s.until, s.refusal = now.Add(s.gap), nil
	select {
	case s.replaced <- struct{}{}: // The owner looks when the new one is due.
	default:
	}
}

// tooSoon is the error for a token that came in place of a rejected one and is
// rejected too. It is made like the broker's.
func (s *TokenSource) tooSoon(after time.Duration) error {
	refusal := status.New(codes.ResourceExhausted, s.tenant+": the token has just been replaced; "+
		"look for a missing scope, a wrong account or a wrong API key")
	detailed, err := refusal.WithDetails(
		&errdetails.ErrorInfo{Reason: "REFRESH_TOO_SOON", Domain: "tokenbroker"},
		&errdetails.RetryInfo{RetryDelay: durationpb.New(after)},
	)
	if err != nil {
		return refusal.Err()
	}
	return detailed.Err()
}

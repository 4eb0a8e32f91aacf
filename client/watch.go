package client

import (
	"context"
	"errors"
	"io"
	"math/rand/v2"
	"time"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/types/known/durationpb"

	pb "smokeball.internal/tokenbroker/gen/tokenbroker/v1"
)

const (
	// How often the broker is to say that it is there, and after how much silence a
	// stream is given up.
	heartbeat = 25 * time.Second
	silence   = heartbeat * 5 / 2
	// How long a token, or a stream's first message, is waited for.
	answerWait = 10 * time.Second

	// The pauses after failed attempts double between these. With no token, and if
	// somebody has to change something, and with a token that lives for long:
	minPause     = 250 * time.Millisecond
	bareMax      = 5 * time.Second
	lastingMax   = 30 * time.Second
	heldMax      = 5 * time.Minute
	steady       = time.Minute // who was well for so long begins anew
	barePatience = time.Minute // without a token: how long attempts go on that nobody waits for
)

var (
	errGivenUp  = errors.New("the stream was silent, or brought no token in time")
	errNoStream = errors.New("no stream is to be had")
	errMute     = status.Error(codes.DeadlineExceeded, "the broker's stream brought nothing")
	errEnded    = status.Error(codes.Unavailable, "the broker ended the stream")
	errStale    = status.Error(codes.Unavailable, "the broker answers with the token that was rejected")
)

// owner is the one goroutine that keeps a source's token fresh. It asks for a
// token if none is held or the one that is held is due, then follows the stream
// until that breaks or the token is due, then rests for the pause that the outcome
// asks for, and begins again.
type owner struct {
	*TokenSource
	wanted   time.Time // when somebody last asked
	failures int       // attempts that have failed in a row
	since    time.Time // when the first of them did; zero: there is none since the last token
}

// own is the owner's life. It ends when nobody asks any more.
func (s *TokenSource) own() {
	o := &owner{TokenSource: s, wanted: time.Now()}
	for s.client.ctx.Err() == nil {
		if o.idle() && s.stop() {
			return
		}
		began, reconnected := time.Now(), s.client.reconnected()
		err := o.round()
		if !outOfReach(err) {
			reconnected = nil
		}
		o.rest(o.next(began, err), reconnected)
	}
	s.fail(errClosed, true)
}

// round is one turn. It returns nil when it is time for another.
func (o *owner) round() error {
	if o.due() {
		if err := o.get(); err != nil {
			return err
		}
	}
	err := o.watch()
	if !revoked(err) {
		return err
	}
	// GetToken decides: it may be the stream alone that the caller may not have.
	if err := o.get(); err != nil {
		return err
	}
	return errNoStream
}

// next returns when to try again after a turn that began at began.
func (o *owner) next(began time.Time, err error) time.Time {
	soonest := began.Add(minPause)
	switch {
	case err == nil:
		return soonest
	case errors.Is(err, errNoStream):
		o.failures = 0
		if h := o.held.Load(); h.usable() && h.due.After(soonest) {
			return h.due
		}
		return soonest
	}
	if time.Since(began) >= steady {
		o.failures = 0
	}
	if o.since.IsZero() {
		o.since = time.Now()
	}
	o.failures++
	o.fail(noToken(o.tenant, o.since, err), revoked(err))
	return time.Now().Add(o.pause(err))
}

// pause returns how long to wait after err. It doubles with each failure up to a
// most: the shorter, the less time there is left. What the broker asks for comes
// on top, so that those who were sent away together do not come back together.
func (o *owner) pause(err error) time.Duration {
	most := bareMax
	if lasting(err) {
		most = lastingMax
	}
	h := o.held.Load()
	if h.usable() {
		most = max(most, min(time.Until(h.end)/4, heldMax))
	}
	pause := min(most, minPause<<min(o.failures-1, 16))
	pause = pause/2 + rand.N(pause/2)
	if h.usable() && !o.due() {
		pause = min(pause, time.Until(h.due))
	}
	after, _ := retryAfter(err)
	return pause + min(after, heldMax)
}

// rest returns at until, or before if another token came from Replace, or soon
// after the connection is there again, or at the end of the client.
func (o *owner) rest(until time.Time, reconnected <-chan struct{}) {
	timer := time.NewTimer(time.Until(until))
	defer timer.Stop()
	for {
		select {
		case <-timer.C:
		case <-reconnected:
			reconnected = nil
			timer.Reset(min(rand.N(minPause), time.Until(until))) // Not all sources at once.
			continue
		case <-o.replaced:
		case <-o.client.ctx.Done():
		}
		return
	}
}

// due says whether it is time to ask for a token.
func (o *owner) due() bool {
	h := o.held.Load()
	return !h.usable() || !time.Now().Before(h.due)
}

// idle says whether nobody has asked for so long that the source stops: a watched
// token is bought again and again, and billed.
func (o *owner) idle() bool {
	h, patience := o.held.Load(), barePatience
	if h.usable() {
		patience = h.life
	}
	select {
	case <-o.asked:
		o.noteUse(h)
	default:
	}
	return time.Since(o.wanted) >= patience
}

// noteUse is called when somebody has asked. The next who asks says so again.
func (o *owner) noteUse(h *held) {
	o.wanted = time.Now()
	if h != nil {
		h.state.CompareAndSwap(used, unused)
	}
}

// get asks for a token.
func (o *owner) get() error {
	ctx, cancel := context.WithTimeout(o.client.ctx, answerWait)
	defer cancel()
	answer, err := o.client.tokens.GetToken(ctx, &pb.GetTokenRequest{Tenant: o.tenant, Scopes: o.scopes})
	if err != nil {
		return err
	}
	return o.take(answer.GetToken())
}

// take holds t from now on.
func (o *owner) take(t *pb.Token) error {
	if err := o.put(t); err != nil {
		return err
	}
	o.since = time.Time{}
	return nil
}

// watch takes what a stream brings. It returns nil when the stream was given up:
// it was silent, the token is due, or nobody needs it.
func (o *owner) watch() error {
	if !o.client.room.enter() {
		return errNoStream
	}
	defer o.client.room.leave()
	ctx, giveUp := context.WithCancelCause(o.client.ctx)
	defer giveUp(nil)
	watchdog := time.AfterFunc(answerWait, func() { giveUp(errGivenUp) })
	defer watchdog.Stop()

	stream, err := o.client.streams.WatchToken(ctx, &pb.WatchTokenRequest{
		Tenant: o.tenant, Scopes: o.scopes, HeartbeatInterval: durationpb.New(heartbeat),
	})
	heard := false
	for ; err == nil; heard = true {
		var message *pb.WatchTokenResponse
		if message, err = stream.Recv(); err != nil {
			break
		}
		if message.GetToken() != nil || !heard {
			if err := o.take(message.GetToken()); err != nil {
				return err
			}
		}
		if o.idle() {
			return nil
		}
		watchdog.Reset(min(silence, time.Until(o.held.Load().due)))
	}
	switch givenUp := errors.Is(context.Cause(ctx), errGivenUp); {
	case givenUp && heard:
		return nil
	case givenUp:
		o.client.room.full() // Perhaps.
		return errMute
	case errors.Is(err, io.EOF):
		return errEnded
	case status.Code(err) == codes.Unimplemented:
		return errNoStream // A broker or a proxy that does not know streams.
	}
	return err
}

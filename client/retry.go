package client

import (
	"context"
	"math/rand/v2"
	"strings"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
)

const (
	// How long a call may take that has no deadline, attempts and pauses together.
	callTimeout = 10 * time.Second
	maxAttempts = 4
	// The pauses between attempts, before jitter: 50 ms, 200 ms, 800 ms. That is
	// enough for a replica that goes or comes.
	firstPause  = 50 * time.Millisecond
	pauseGrowth = 4
	// The longest pause that is waited for. The broker may ask for minutes; whoever
	// called knows better what to do meanwhile.
	longestPause = 5 * time.Second
	// What the methods that may be repeated begin with.
	tokenService = "/tokenbroker.v1.TokenService/"
)

// retry is a grpc.UnaryClientInterceptor that repeats calls which failed in a way that
// passes (passing): any method of TokenService may be repeated, since RefreshToken names
// what it replaces. Others are not: a change of a tenant may have been made. It never repeats one sooner than the RetryInfo of its error says, which
// gRPC's own retries do not read. What cannot be waited for, since it is too long or
// past the call's deadline, is not: the error is returned at once.
func retry(ctx context.Context, method string, req, reply any, conn *grpc.ClientConn, invoke grpc.UnaryInvoker, opts ...grpc.CallOption) error {
	if _, ok := ctx.Deadline(); !ok {
		var cancel context.CancelFunc
		ctx, cancel = context.WithTimeout(ctx, callTimeout)
		defer cancel()
	}
	pause := firstPause
	for attempt := 1; ; attempt++ {
		err := invoke(ctx, method, req, reply, conn, opts...)
		if attempt == maxAttempts || !strings.HasPrefix(method, tokenService) || !passing(err) {
			return err
		}
		asked, _ := retryAfter(err)
		wait := min(asked, 2*longestPause) + jittered(pause) // It may ask for centuries.
		if deadline, _ := ctx.Deadline(); wait > longestPause || time.Until(deadline) <= wait {
			return err
		}
		select {
		case <-time.After(wait):
		case <-ctx.Done():
			return status.FromContextError(ctx.Err()).Err()
		}
		pause *= pauseGrowth
	}
}

// passing says whether another attempt may have another end, a little later or at another
// replica.
func passing(err error) bool {
	switch status.Code(err) {
	case codes.Unavailable:
		return true
	case codes.Internal:
		return outOfReach(err) // It is of a balancer that has lost its replica, and resets the stream.
	case codes.ResourceExhausted:
		// The call was refused before it was read. Without a time to wait, more calls would only make it worse.
		_, ok := retryAfter(err)
		return ok && Reason(err) == "CALLER_TOO_FAST"
	}
	return false
}

// jittered returns d and up to half as much, so that those who failed together do
// not come back together.
func jittered(d time.Duration) time.Duration { return d + rand.N(d/2) }

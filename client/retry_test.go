package client_test

import (
	"context"
	"math"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"google.golang.org/genproto/googleapis/rpc/errdetails"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/protoadapt"
	"google.golang.org/protobuf/types/known/durationpb"

	"smokeball.internal/tokenbroker/client"
	pb "smokeball.internal/tokenbroker/gen/tokenbroker/v1"
)

// bubble runs a test of a client and its one replica in virtual time. They are
// connected already.
func bubble(t *testing.T, test func(t *testing.T, c *client.Client, r *standIn)) {
	t.Helper()
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		n, r := &network{}, newStandIn()
		n.join(t, "localhost:1", r)
		c := n.client(t)
		wantToken(t, c)
		r.forget()
		test(t, c, r)
	})
}

// fails answers the first n calls with an error.
func (r *standIn) fails(n int, err error) {
	r.answers(func(context.Context) error {
		if r.calls() <= n {
			return err
		}
		return nil
	})
}

func unavailable(details ...protoadapt.MessageV1) error {
	return failure(codes.Unavailable, details...)
}

func failure(code codes.Code, details ...protoadapt.MessageV1) error {
	s, err := status.New(code, "away").WithDetails(details...)
	if err != nil {
		return err
	}
	return s.Err()
}

func tooFast(details ...protoadapt.MessageV1) error {
	return failure(codes.ResourceExhausted, append(details, &errdetails.ErrorInfo{Reason: "CALLER_TOO_FAST", Domain: "tokenbroker"})...)
}

func retryIn(d time.Duration) *errdetails.RetryInfo {
	return &errdetails.RetryInfo{RetryDelay: durationpb.New(d)}
}

const always = math.MaxInt

func TestRetry(t *testing.T) {
	for name, test := range map[string]struct {
		failures int
		err      error
		limit    time.Duration // of the call; 0: none
		code     codes.Code
		calls    int
		min, max time.Duration // that it takes
	}{
		"once":                          {1, unavailable(), 0, codes.OK, 2, 50 * time.Millisecond, 75 * time.Millisecond},
		"three times":                   {3, unavailable(), 0, codes.OK, 4, 1050 * time.Millisecond, 1575 * time.Millisecond},
		"for ever":                      {always, unavailable(), 0, codes.Unavailable, 4, 1050 * time.Millisecond, 1575 * time.Millisecond},
		"with a time to wait":           {1, unavailable(retryIn(3 * time.Second)), 0, codes.OK, 2, 3 * time.Second, 3100 * time.Millisecond},
		"with a time to wait each time": {2, unavailable(retryIn(2 * time.Second)), 0, codes.OK, 3, 4 * time.Second, 4500 * time.Millisecond},
		"with other details too":        {1, unavailable(&errdetails.ErrorInfo{Reason: "ISSUER_THROTTLED", Domain: "tokenbroker"}, retryIn(time.Second)), 0, codes.OK, 2, time.Second, 1100 * time.Millisecond},
		"with a longer time":            {always, unavailable(retryIn(time.Minute)), time.Hour, codes.Unavailable, 1, 0, 0},
		"with an endless time":          {always, unavailable(&errdetails.RetryInfo{RetryDelay: &durationpb.Duration{Seconds: math.MaxInt64}}), 0, codes.Unavailable, 1, 0, 0},
		"with a time in the past":       {1, unavailable(retryIn(-time.Hour)), 0, codes.OK, 2, 50 * time.Millisecond, 75 * time.Millisecond},
		"with a time past the deadline": {always, unavailable(retryIn(3 * time.Second)), 2 * time.Second, codes.Unavailable, 1, 0, 0},
		"with little time":              {always, unavailable(), 100 * time.Millisecond, codes.Unavailable, 2, 50 * time.Millisecond, 75 * time.Millisecond},
		"between here and the broker":   {1, failure(codes.Internal), 0, codes.OK, 2, 50 * time.Millisecond, 75 * time.Millisecond},
		"there for ever":                {always, failure(codes.Internal), 0, codes.Internal, 4, 1050 * time.Millisecond, 1575 * time.Millisecond},
		"too fast":                      {1, tooFast(retryIn(20 * time.Millisecond)), 0, codes.OK, 2, 70 * time.Millisecond, 95 * time.Millisecond},
		"too fast for ever":             {always, tooFast(retryIn(20 * time.Millisecond)), 0, codes.ResourceExhausted, 4, 1110 * time.Millisecond, 1635 * time.Millisecond},
		"much too fast":                 {always, tooFast(retryIn(6 * time.Second)), time.Hour, codes.ResourceExhausted, 1, 0, 0},
		"too fast for the deadline":     {always, tooFast(retryIn(3 * time.Second)), 2 * time.Second, codes.ResourceExhausted, 1, 0, 0},
	} {
		t.Run(name, func(t *testing.T) {
			bubble(t, func(t *testing.T, c *client.Client, r *standIn) {
				r.fails(test.failures, test.err)
				ctx := t.Context()
				if test.limit > 0 {
					var cancel context.CancelFunc
					ctx, cancel = context.WithTimeout(ctx, test.limit)
					defer cancel()
				}
				began := time.Now()
				_, err := c.GetToken(ctx)
				took := time.Since(began)
				if status.Code(err) != test.code || r.calls() != test.calls {
					t.Errorf("%d calls, and %v, want %d and %v", r.calls(), err, test.calls, test.code)
				}
				if took < test.min || took > test.max {
					t.Errorf("it took %v, want %v to %v", took, test.min, test.max)
				}
			})
		})
	}
}

// What another try does not cure is not tried again.
func TestNoRetry(t *testing.T) {
	errs := map[string]error{
		"too fast, for nobody knows how long": tooFast(),
		"too soon":                            failure(codes.ResourceExhausted, &errdetails.ErrorInfo{Reason: "REFRESH_TOO_SOON", Domain: "tokenbroker"}, retryIn(time.Second)),
		"exhausted, with a time to wait":      failure(codes.ResourceExhausted, retryIn(time.Second)),
		"too large":                           failure(codes.ResourceExhausted),
	}
	for code := codes.Canceled; code <= codes.Unauthenticated; code++ {
		if code != codes.Unavailable {
			errs[code.String()] = failure(code, &errdetails.RequestInfo{RequestId: "1"}) // The broker's all have that.
		}
	}
	for name, err := range errs {
		t.Run(name, func(t *testing.T) {
			bubble(t, func(t *testing.T, c *client.Client, r *standIn) {
				r.fails(1, err)
				wantCode(t, c, status.Code(err))
				if r.calls() != 1 {
					t.Errorf("%d calls", r.calls())
				}
			})
		})
	}
}

// The error has in it what the broker said.
func TestErrorAfterRetries(t *testing.T) {
	bubble(t, func(t *testing.T, c *client.Client, r *standIn) {
		r.fails(always, unavailable(&errdetails.ErrorInfo{Reason: "ISSUER_UNAVAILABLE", Domain: "tokenbroker"}))
		_, err := call(t, c)
		details := status.Convert(err).Details()
		if len(details) != 1 || details[0].(*errdetails.ErrorInfo).GetReason() != "ISSUER_UNAVAILABLE" || !strings.Contains(err.Error(), "away") {
			t.Errorf("%v, with %v", err, details)
		}
	})
}

func TestCallsEnd(t *testing.T) {
	for name, test := range map[string]struct{ limit, want time.Duration }{
		"without a deadline": {0, 10 * time.Second},
		"with a shorter one": {time.Second, time.Second},
		"with a longer one":  {time.Minute, time.Minute},
	} {
		t.Run(name, func(t *testing.T) {
			bubble(t, func(t *testing.T, c *client.Client, r *standIn) {
				r.answers(func(ctx context.Context) error {
					<-ctx.Done()
					return ctx.Err()
				})
				ctx := t.Context()
				if test.limit > 0 {
					var cancel context.CancelFunc
					ctx, cancel = context.WithTimeout(ctx, test.limit)
					defer cancel()
				}
				began := time.Now()
				_, err := c.GetToken(ctx)
				if took := time.Since(began); status.Code(err) != codes.DeadlineExceeded || took != test.want {
					t.Errorf("it took %v, and ended with %v", took, err)
				}
			})
		})
	}
}

func TestCallerLeavesDuringAPause(t *testing.T) {
	bubble(t, func(t *testing.T, c *client.Client, r *standIn) {
		r.fails(always, unavailable(retryIn(4*time.Second)))
		ctx, cancel := context.WithCancel(t.Context())
		time.AfterFunc(time.Second, cancel)
		began := time.Now()
		_, err := c.GetToken(ctx)
		if took := time.Since(began); status.Code(err) != codes.Canceled || took != time.Second || r.calls() != 1 {
			t.Errorf("it took %v and %d calls, and ended with %v", took, r.calls(), err)
		}
	})
}

// Those who failed together do not come back together.
func TestPausesDiffer(t *testing.T) {
	bubble(t, func(t *testing.T, c *client.Client, r *standIn) {
		pauses := map[time.Duration]bool{}
		for range 20 {
			r.forget()
			r.fails(1, unavailable(retryIn(time.Second)))
			began := time.Now()
			wantToken(t, c)
			pauses[time.Since(began)] = true
		}
		if len(pauses) < 10 {
			t.Errorf("20 pauses had %d lengths", len(pauses))
		}
	})
}

// A replica that goes is no error for anybody, while there is another.
func TestRetryAtAnotherReplica(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		n, a, b := &network{}, newStandIn(), newStandIn()
		n.join(t, "a", a)
		n.join(t, "b", b)
		c := n.clientOf(t, "a", "b")
		wantToken(t, c)
		synctest.Wait()
		a.answers(func(context.Context) error {
			return unavailable(&errdetails.ErrorInfo{Reason: "SHUTTING_DOWN", Domain: "tokenbroker"})
		})
		for range 10 {
			wantToken(t, c)
		}
		if a.calls() == 0 || b.calls() < 10 {
			t.Errorf("%d and %d calls", a.calls(), b.calls())
		}
	})
}

// A change of a tenant may have been made though its answer was lost.
func TestOnlyCallsOfTokenServiceAreRepeated(t *testing.T) {
	t.Parallel()
	for method, want := range map[string]int{
		pb.TokenService_GetToken_FullMethodName:            4,
		pb.TenantService_RotateClientSecret_FullMethodName: 1,
	} {
		synctest.Test(t, func(t *testing.T) {
			calls := 0
			lost := func(context.Context, string, any, any, *grpc.ClientConn, ...grpc.CallOption) error {
				calls++
				return status.Error(codes.Unavailable, "lost")
			}
			if err := client.Retry(t.Context(), method, nil, nil, nil, lost); status.Code(err) != codes.Unavailable || calls != want {
				t.Errorf("%s: %d calls, %v, want %d", method, calls, err, want)
			}
		})
	}
}

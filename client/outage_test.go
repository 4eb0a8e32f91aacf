package client_test

import (
	"strings"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"google.golang.org/genproto/googleapis/rpc/errdetails"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"smokeball.internal/tokenbroker/client"
)

func TestOutageLongerThanATokenLives(t *testing.T) {
	inBubble(t, time.Hour, func(t *testing.T, h *house) {
		h.want(t, 1)
		h.later(10 * minute)
		h.down()
		gone := time.Now()
		for time.Since(gone) < 48*minute {
			if _, err := h.acme.Token(); err != nil {
				t.Fatalf("after %v: %v", time.Since(gone), err)
			}
			time.Sleep(time.Second)
		}
		h.later(2 * minute)
		err := h.failure(t, codes.Unavailable)
		for _, part := range []string{"tenants/acme", "since " + gone.UTC().Format(time.RFC3339), "refused"} {
			if !strings.Contains(err.Error(), part) {
				t.Errorf("%q does not say %q", err, part)
			}
		}
		h.later(2 * time.Hour)
		h.wantError(t, codes.Unavailable)

		h.up()
		h.later(6500 * time.Millisecond) // A pause of the connection's, with its jitter.
		h.mu.Lock()
		_, _, _ = h.token() // The replica's own is due too.
		number := h.number
		h.mu.Unlock()
		h.want(t, number)
		h.later(minute)
		if h.streams() != 1 {
			t.Error("no stream after the outage")
		}

		h.down()
		gone = time.Now()
		h.later(time.Hour)
		if err := h.failure(t, codes.Unavailable); !strings.Contains(err.Error(), "since "+gone.UTC().Format(time.RFC3339)) {
			t.Errorf("%q, and it was gone at %v", err, gone)
		}
	})
}

// While none can be had a thousand callers cost what one does: an attempt for each
// pause, and none of them waits.
func TestThousandCallersInAnOutage(t *testing.T) {
	inBubble(t, time.Hour, func(t *testing.T, h *house) {
		h.change(func(r *fake) { r.getErr = refusal(codes.Unavailable, "ISSUER_UNAVAILABLE", 0) })
		var failed atomic.Int32
		for range 1000 {
			go func() {
				for range 30 {
					began := time.Now()
					if _, err := h.acme.Token(); status.Code(err) == codes.Unavailable && time.Since(began) == 0 {
						failed.Add(1)
					}
					time.Sleep(time.Second)
				}
			}()
		}
		time.Sleep(31 * time.Second)
		synctest.Wait()
		if failed.Load() != 30000 {
			t.Errorf("%d of 30000 were told at once", failed.Load())
		}
		// 0.25, 0.5, 1, 2, 4 s, then 5 s, less up to a half each.
		if n := h.count("GetToken"); n < 8 || n > 20 {
			t.Errorf("%d attempts in half a minute", n)
		}
		h.change(func(r *fake) { r.getErr = nil })
		time.Sleep(5 * time.Second)
		h.want(t, 1)
	})
}

// Who asks seldom is not told what was long ago: there is a new attempt.
func TestErrorsAreForgotten(t *testing.T) {
	inBubble(t, time.Hour, func(t *testing.T, h *house) {
		h.change(func(r *fake) { r.getErr = refusal(codes.NotFound, "TENANT_NOT_FOUND", 0) })
		h.wantError(t, codes.NotFound)
		time.Sleep(10 * minute)
		n := h.count("GetToken")
		if n > 12 {
			t.Errorf("%d attempts that nobody waited for", n)
		}
		time.Sleep(time.Hour)
		if h.count("GetToken") != n {
			t.Error("attempts go on that nobody waits for")
		}
		h.change(func(r *fake) { r.getErr = nil })
		h.want(t, 2) // The replica has another by now.
	})
}

func TestAttemptsThatNeedSomebodyToActAreFew(t *testing.T) {
	for code, most := range map[codes.Code]int{
		codes.Unavailable: 1000, codes.Unauthenticated: 1000, codes.ResourceExhausted: 1000,
		codes.NotFound: 175, codes.FailedPrecondition: 175, codes.PermissionDenied: 175, codes.InvalidArgument: 175,
	} {
		t.Run(code.String(), func(t *testing.T) {
			inBubble(t, time.Hour, func(t *testing.T, h *house) {
				h.change(func(r *fake) { r.getErr = status.Error(code, "no") })
				h.wantError(t, code)
				h.later(time.Hour)
				if n := h.count("GetToken"); n > most || n < most/2 {
					t.Errorf("%d attempts in an hour, want about %d", n, most)
				}
			})
		})
	}
}

func TestAttemptsHeedRetryInfo(t *testing.T) {
	inBubble(t, time.Hour, func(t *testing.T, h *house) {
		h.change(func(r *fake) { r.getErr = refusal(codes.Unavailable, "ISSUER_THROTTLED", 2*minute) })
		h.wantError(t, codes.Unavailable)
		h.later(2*minute - 1)
		if n := h.count("GetToken"); n != 1 {
			t.Errorf("%d attempts, and the broker had asked for two minutes", n)
		}
		h.change(func(r *fake) { r.getErr = nil })
		h.later(time.Second)
		h.want(t, 1)
	})
}

// An absurd RetryInfo does not silence a source for ever.
func TestRetryInfoIsBounded(t *testing.T) {
	inBubble(t, time.Hour, func(t *testing.T, h *house) {
		h.change(func(r *fake) { r.getErr = refusal(codes.Unavailable, "ISSUER_THROTTLED", 1000*day) })
		h.wantError(t, codes.Unavailable)
		h.change(func(r *fake) { r.getErr = nil })
		h.later(6 * minute)
		h.want(t, 1)
	})
}

func TestWhatIsHeldIsDroppedOrKept(t *testing.T) {
	for _, c := range []struct {
		code    codes.Code
		reason  string
		dropped bool
	}{
		{codes.NotFound, "TENANT_NOT_FOUND", true},
		{codes.FailedPrecondition, "TENANT_DISABLED", true},
		{codes.PermissionDenied, "NOT_ALLOWED", true},
		{codes.PermissionDenied, "SCOPE_NOT_ALLOWED", true},
		{codes.FailedPrecondition, "CREDENTIALS_REJECTED", false},
		{codes.FailedPrecondition, "SCOPE_REJECTED", false},
		{codes.Unavailable, "ISSUER_UNAVAILABLE", false},
		{codes.Unavailable, "REGISTRY_LOST", false},
		{codes.Unauthenticated, "UNAUTHENTICATED", false},
		{codes.ResourceExhausted, "CALLER_TOO_FAST", false},
		{codes.Internal, "TENANT_UNREADABLE", false},
		{codes.Internal, "", false},
		{codes.InvalidArgument, "", false},
	} {
		for _, by := range []string{"stream", "answer"} {
			t.Run(c.code.String()+" "+c.reason+" by "+by, func(t *testing.T) {
				inBubble(t, time.Hour, func(t *testing.T, h *house) {
					if by == "answer" {
						h.change(func(r *fake) { r.watchErr = status.Error(codes.Unimplemented, "no streams") })
					}
					h.want(t, 1)
					h.change(func(r *fake) { r.away, r.getErr = true, refusal(c.code, c.reason, 0) })
					if by == "answer" {
						h.later(55 * minute)
					}
					if !c.dropped {
						h.want(t, 1)
						h.later(time.Until(h.issued.Add(time.Hour)))
					}
					err := h.failure(t, c.code)
					if client.Reason(err) != c.reason {
						t.Errorf("reason %q, want %q", client.Reason(err), c.reason)
					}
					h.change(func(r *fake) { r.away, r.getErr = false, nil; r.buy() })
					h.later(31 * time.Second)
					h.want(t, 2)
				})
			})
		}
	}
}

// What stands between the client and the broker speaks for neither.
func TestWhatAProxyRefusesDropsNoToken(t *testing.T) {
	for _, code := range []codes.Code{codes.PermissionDenied, codes.NotFound, codes.FailedPrecondition, codes.Unauthenticated} {
		t.Run(code.String(), func(t *testing.T) {
			inBubble(t, time.Hour, func(t *testing.T, h *house) {
				h.want(t, 1)
				foreign, err := status.New(code, "access denied").WithDetails(&errdetails.ErrorInfo{Reason: "NOT_ALLOWED", Domain: "mesh"})
				if err != nil {
					t.Fatal(err)
				}
				for _, refused := range []error{status.Error(code, "access denied"), foreign.Err()} {
					h.change(func(r *fake) { r.getErr, r.watchErr = refused, refused })
					h.later(10 * minute)
					h.want(t, 1)
					if reason := client.Reason(refused); reason != "" {
						t.Errorf("reason %s of somebody else", reason)
					}
				}
			})
		})
	}
}

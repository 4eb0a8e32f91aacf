package client_test

import (
	"context"
	"errors"
	"slices"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"smokeball.internal/tokenbroker/client"
	pb "smokeball.internal/tokenbroker/gen/tokenbroker/v1"
)

// replace checks that the token in place of one is the other, and the number of
// RefreshToken until then.
func (h *house) replace(t *testing.T, rejected, want, calls int) {
	t.Helper()
	synctest.Wait()
	got, err := h.acme.Replace(t.Context(), id(rejected))
	if err != nil || got.AccessToken != access(want) {
		t.Fatalf("in place of %d: %v, %v, want %d", rejected, got, err, want)
	}
	h.wantRefreshes(t, calls)
}

// notReplaced checks that there is no token in place of one, and why, and that this
// is told at once.
func (h *house) notReplaced(t *testing.T, rejected int, code codes.Code, reason string, calls int) {
	t.Helper()
	synctest.Wait()
	got, err := h.acme.Replace(t.Context(), id(rejected))
	if status.Code(err) != code || client.Reason(err) != reason {
		t.Fatalf("in place of %d: %v, %v, want %v %s", rejected, got, err, code, reason)
	}
	h.wantRefreshes(t, calls)
}

func (h *house) wantRefreshes(t *testing.T, calls int) {
	t.Helper()
	if n := h.count("RefreshToken"); n != calls {
		t.Fatalf("%d RefreshToken, want %d", n, calls)
	}
}

func TestReplaceBringsAnotherToken(t *testing.T) {
	inBubble(t, time.Hour, func(t *testing.T, h *house) {
		h.want(t, 1)
		h.replace(t, 1, 2, 1)
		if !slices.Equal(h.rejected, []string{id(1)}) {
			t.Errorf("named %v", h.rejected)
		}
		h.want(t, 2)
		h.replace(t, 1, 2, 1) // Who asks late gets what is there.
		h.later(45 * minute)
		h.want(t, 3)
		h.replace(t, 1, 3, 1)
		h.replace(t, 2, 3, 1)
		if gets, watches := h.count("GetToken"), h.count("WatchToken"); gets != 1 || watches != 1 {
			t.Errorf("%d GetToken, %d WatchToken", gets, watches)
		}
	})
}

func TestReplaceHasToNameTheToken(t *testing.T) {
	inBubble(t, time.Hour, func(t *testing.T, h *house) {
		if _, err := h.acme.Replace(t.Context(), ""); status.Code(err) != codes.InvalidArgument {
			t.Errorf("got %v", err)
		}
		h.wantRefreshes(t, 0)
	})
}

// A source that has no token yet can be asked for another one.
func TestReplaceInAColdSource(t *testing.T) {
	inBubble(t, time.Hour, func(t *testing.T, h *house) {
		if _, err := h.acme.Replace(t.Context(), id(1)); err != nil {
			t.Fatal(err)
		}
		synctest.Wait()
		if h.streams() != 1 {
			t.Error("it does not watch")
		}
		h.later(3 * time.Hour)
		if _, err := h.acme.Token(); err != nil {
			t.Error(err)
		}
		h.wantRefreshes(t, 1)
	})
}

func TestThousandRejectedCallersCostOneCall(t *testing.T) {
	inBubble(t, time.Hour, func(t *testing.T, h *house) {
		h.want(t, 1)
		var second atomic.Int32
		for i := range 1000 {
			go func() {
				time.Sleep(time.Duration(i) * time.Millisecond / 2) // Some come later than the answer.
				if got, err := h.acme.Replace(t.Context(), id(1)); err == nil && got.ID == id(2) {
					second.Add(1)
				}
			}()
		}
		time.Sleep(time.Second)
		synctest.Wait()
		if second.Load() != 1000 {
			t.Errorf("%d of 1000 have the other token", second.Load())
		}
		h.wantRefreshes(t, 1)
	})
}

// A Smokeball that rejects everything costs one exchange for each pause.
func TestEverythingIsRejected(t *testing.T) {
	inBubble(t, day, func(t *testing.T, h *house) {
		h.want(t, 1)
		began := time.Now()
		var exchanges []time.Duration
		for range 10 {
			go func() {
				for time.Since(began) < 2*time.Hour {
					held, err := h.acme.Get(t.Context())
					if err != nil {
						t.Error(err)
						return
					}
					_, err = h.acme.Replace(t.Context(), held.ID)
					if err != nil && (status.Code(err) != codes.ResourceExhausted || client.Reason(err) != "REFRESH_TOO_SOON") {
						t.Errorf("got %v", err)
						return
					}
					time.Sleep(2 * time.Second)
				}
			}()
		}
		for n := 0; time.Since(began) < 2*time.Hour; time.Sleep(time.Second) {
			if now := h.count("RefreshToken"); now != n {
				n = now
				exchanges = append(exchanges, time.Since(began).Round(10*time.Second))
			}
		}
		want := []time.Duration{0, 1 * minute, 3 * minute, 7 * minute, 15 * minute, 30 * minute, 45 * minute, 60 * minute, 75 * minute, 90 * minute, 105 * minute}
		if len(exchanges) < len(want) || len(exchanges) > len(want)+1 {
			t.Fatalf("at %v, want about %v", exchanges, want)
		}
		for i, at := range want {
			if d := exchanges[i] - at; d.Abs() > 30*time.Second {
				t.Errorf("at %v, want about %v", exchanges[i], at)
			}
		}
		time.Sleep(time.Minute)
	})
}

// The pauses are those of a rejection after another: a token that was fine for long
// is replaced without delay, and the pauses begin anew.
func TestPausesBeginAnew(t *testing.T) {
	inBubble(t, day, func(t *testing.T, h *house) {
		h.want(t, 1)
		h.replace(t, 1, 2, 1)
		h.notReplaced(t, 2, codes.ResourceExhausted, "REFRESH_TOO_SOON", 1)
		h.later(time.Minute)
		h.replace(t, 2, 3, 2)
		h.later(time.Minute)
		h.notReplaced(t, 3, codes.ResourceExhausted, "REFRESH_TOO_SOON", 2)
		h.later(3 * time.Hour)
		h.change((*fake).buy) // Not by a replacement.
		h.later(time.Hour)
		h.replace(t, 4, 5, 3)
		h.later(time.Minute)
		h.replace(t, 5, 6, 4)
	})
}

// A token that came in place of another and is rejected, however late, makes the
// next pause longer.
func TestReplacementThatIsRejectedLater(t *testing.T) {
	inBubble(t, day, func(t *testing.T, h *house) {
		h.want(t, 1)
		h.replace(t, 1, 2, 1)
		h.later(10 * minute)
		h.replace(t, 2, 3, 2)
		h.later(time.Minute)
		h.notReplaced(t, 3, codes.ResourceExhausted, "REFRESH_TOO_SOON", 2)
		h.later(time.Minute)
		h.replace(t, 3, 4, 3)
	})
}

// It does not matter which client has replaced the token: one that comes and is
// rejected as soon as it can counts.
func TestTokensThatOthersReplacedCount(t *testing.T) {
	inBubble(t, day, func(t *testing.T, h *house) {
		h.want(t, 1)
		h.replace(t, 1, 2, 1)
		h.later(time.Minute)
		h.change((*fake).buy)
		h.replace(t, 3, 4, 2)
		h.later(time.Minute)
		h.change((*fake).buy)
		h.notReplaced(t, 5, codes.ResourceExhausted, "REFRESH_TOO_SOON", 2)
		h.later(time.Minute)
		h.replace(t, 5, 6, 3)
	})
}

func TestRefusedReplacement(t *testing.T) {
	for name, c := range map[string]struct {
		err    error
		code   codes.Code
		reason string
		wait   time.Duration
	}{
		"too soon":           {refusal(codes.ResourceExhausted, "REFRESH_TOO_SOON", 40*time.Second), codes.ResourceExhausted, "REFRESH_TOO_SOON", 40 * time.Second},
		"too soon by far":    {refusal(codes.ResourceExhausted, "REFRESH_TOO_SOON", 5*minute), codes.ResourceExhausted, "REFRESH_TOO_SOON", 5 * minute},
		"too soon, no delay": {refusal(codes.ResourceExhausted, "REFRESH_TOO_SOON", 0), codes.ResourceExhausted, "REFRESH_TOO_SOON", minute},
		"issuer away":        {refusal(codes.Unavailable, "ISSUER_UNAVAILABLE", 10*time.Second), codes.Unavailable, "ISSUER_UNAVAILABLE", 10 * time.Second},
		"broken":             {status.Error(codes.Unavailable, "broken"), codes.Unavailable, "", 2 * time.Second},
		"too soon, absurd":   {refusal(codes.ResourceExhausted, "REFRESH_TOO_SOON", 100*day), codes.ResourceExhausted, "REFRESH_TOO_SOON", 15 * minute},
		"not allowed":        {refusal(codes.PermissionDenied, "NOT_ALLOWED", 0), codes.PermissionDenied, "NOT_ALLOWED", minute},
	} {
		t.Run(name, func(t *testing.T) {
			inBubble(t, time.Hour, func(t *testing.T, h *house) {
				h.want(t, 1)
				h.change(func(r *fake) { r.refresh = func() error { return c.err } })
				h.notReplaced(t, 1, c.code, c.reason, 1)
				refused := time.Now()
				h.want(t, 1) // It is handed out: the rejection may have other causes.
				h.change(func(r *fake) { r.refresh = nil })
				for time.Since(refused) < c.wait-time.Second {
					h.notReplaced(t, 1, c.code, c.reason, 1)
					time.Sleep(time.Second)
				}
				time.Sleep(time.Second)
				h.replace(t, 1, 2, 2)
				h.later(time.Minute)
				h.replace(t, 2, 3, 3) // A refusal has not made the pause longer.
			})
		})
	}
}

// Another token that comes by the stream is the answer also while the broker would
// not be asked.
func TestPushedTokenEndsTheRefusal(t *testing.T) {
	inBubble(t, time.Hour, func(t *testing.T, h *house) {
		h.want(t, 1)
		h.change(func(r *fake) {
			r.refresh = func() error { return refusal(codes.ResourceExhausted, "REFRESH_TOO_SOON", minute) }
		})
		h.notReplaced(t, 1, codes.ResourceExhausted, "REFRESH_TOO_SOON", 1)
		h.change((*fake).buy)
		h.replace(t, 1, 2, 1)
	})
}

// What the broker sends in place of a token has to be another that can be used.
func TestReplacementThatIsNone(t *testing.T) {
	for name, c := range map[string]struct {
		answer func(*pb.Token)
		code   codes.Code
	}{
		"the same":  {func(t *pb.Token) { t.TokenId = id(1) }, codes.Unavailable},
		"no token":  {func(t *pb.Token) { t.AccessToken = "" }, codes.Internal},
		"no time":   {func(t *pb.Token) { t.Remaining = nil }, codes.Internal},
		"an ending": {func(t *pb.Token) { t.Remaining.Seconds = 10 }, codes.Internal},
	} {
		t.Run(name, func(t *testing.T) {
			inBubble(t, time.Hour, func(t *testing.T, h *house) {
				h.want(t, 1)
				h.change(func(r *fake) {
					r.watchErr = status.Error(codes.Unimplemented, "no streams")
					r.answer = c.answer
				})
				h.notReplaced(t, 1, c.code, "", 1)
				h.notReplaced(t, 1, c.code, "", 1)
				h.want(t, 1)
			})
		})
	}
}

// Who leaves does not take away what others wait for.
func TestCallerWhoLeavesEndsNothing(t *testing.T) {
	inBubble(t, time.Hour, func(t *testing.T, h *house) {
		h.want(t, 1)
		ctx, cancel := context.WithTimeout(t.Context(), 10*time.Millisecond)
		defer cancel()
		left := make(chan error, 1)
		go func() {
			_, err := h.acme.Replace(ctx, id(1))
			left <- err
		}()
		synctest.Wait()
		began := time.Now()
		got, err := h.acme.Replace(t.Context(), id(1))
		if err != nil || got.ID != id(2) || time.Since(began) != 100*time.Millisecond {
			t.Errorf("who waited: %v, %v, after %v", got, err, time.Since(began))
		}
		if err := <-left; !errors.Is(err, context.DeadlineExceeded) {
			t.Errorf("who left: %v", err)
		}
		h.wantRefreshes(t, 1)
	})
}

// A replica that has not heard of the replacement yet does not bring the rejected
// token back.
func TestRejectedTokenDoesNotComeBack(t *testing.T) {
	inBubble(t, time.Hour, func(t *testing.T, h *house) {
		h.want(t, 1)
		h.replace(t, 1, 2, 1)
		h.change(func(r *fake) { r.answer = func(t *pb.Token) { t.AccessToken, t.TokenId = access(1), id(1) } })
		h.down()
		h.up()
		h.later(5 * minute)
		h.want(t, 2)
		if n := h.count("WatchToken"); n < 3 || n > 15 {
			t.Errorf("%d WatchToken", n)
		}
		h.change(func(r *fake) { r.answer = nil; r.buy() })
		h.later(5 * minute)
		h.want(t, 3)
	})
}

// A source without a stream asks in time for the token after one that came by
// Replace and lives less long.
func TestReplacementThatLivesLessLong(t *testing.T) {
	inBubble(t, day, func(t *testing.T, h *house) {
		h.change(func(r *fake) { r.watchErr = status.Error(codes.Unimplemented, "no streams") })
		h.want(t, 1)
		h.change(func(r *fake) { r.life = 5 * minute })
		h.replace(t, 1, 2, 1)
		for range 60 * 60 {
			began := time.Now()
			if _, err := h.acme.Token(); err != nil || time.Since(began) != 0 {
				t.Fatalf("%v, after %v", err, time.Since(began))
			}
			time.Sleep(time.Second)
		}
	})
}

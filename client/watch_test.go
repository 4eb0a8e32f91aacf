package client_test

import (
	"io"
	"math"
	"testing"
	"testing/synctest"
	"time"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/types/known/durationpb"

	pb "smokeball.internal/tokenbroker/gen/tokenbroker/v1"
)

const (
	day = 24 * time.Hour
	// minute is when the client's pauses after a stream that broke are long over.
	minute = time.Minute
)

func TestTokensComeByTheStream(t *testing.T) {
	inBubble(t, time.Hour, func(t *testing.T, h *house) {
		h.want(t, 1)
		for n := 2; n <= 9; n++ {
			h.change((*fake).buy)
			h.want(t, n)
		}
		for n := 10; n <= 20; n++ {
			h.later(45 * time.Minute)
			h.want(t, n)
		}
		if gets, watches := h.count("GetToken"), h.count("WatchToken"); gets != 1 || watches != 1 {
			t.Errorf("%d GetToken, %d WatchToken", gets, watches)
		}
	})
}

// In a day of steady use a source that hears of its tokens asks for none.
func TestSteadyDayCostsOneStream(t *testing.T) {
	for _, life := range []time.Duration{5 * time.Minute, time.Hour, day} {
		t.Run(life.String(), func(t *testing.T) {
			inBubble(t, life, func(t *testing.T, h *house) {
				for range 24 * 60 {
					if _, err := h.acme.Token(); err != nil {
						t.Fatal(err)
					}
					time.Sleep(minute)
				}
				if gets, watches := h.count("GetToken"), h.count("WatchToken"); gets != 1 || watches != 1 {
					t.Errorf("%d GetToken, %d WatchToken", gets, watches)
				}
			})
		})
	}
}

func TestTokenEndsAtItsSafeEnd(t *testing.T) {
	for _, c := range []struct{ life, margin time.Duration }{
		{5 * time.Second, 500 * time.Millisecond}, {5 * time.Minute, 30 * time.Second},
		{time.Hour, minute}, {day, minute},
	} {
		t.Run(c.life.String(), func(t *testing.T) {
			inBubble(t, c.life, func(t *testing.T, h *house) {
				h.want(t, 1)
				safeEnd := h.issued.Add(c.life - c.margin)
				h.down()
				h.later(time.Until(safeEnd) - 1)
				h.want(t, 1)
				time.Sleep(2 * time.Nanosecond)
				h.wantError(t, codes.Unavailable)
			})
		})
	}
}

// A stream brings tokens at their ends and readers read all the time: none gets a
// token that has ended.
func TestReadersNeverSeeAnEndedToken(t *testing.T) {
	inBubble(t, 5*time.Second, func(t *testing.T, h *house) {
		h.want(t, 1)
		stop := make(chan struct{})
		for i := range 10 {
			go func() {
				for {
					select {
					case <-stop:
						return
					case <-time.After(time.Duration(i+1) * time.Millisecond):
					}
					if token, err := h.acme.Token(); err == nil && time.Now().After(token.Expiry) {
						t.Errorf("%v after its end", time.Since(token.Expiry))
						return
					}
				}
			}()
		}
		for range 20 {
			h.change(func(r *fake) { r.away = true })
			time.Sleep(4500*time.Millisecond + time.Duration(time.Now().UnixNano()%3)*time.Millisecond)
			h.change(func(r *fake) { r.away = false; r.buy() })
		}
		close(stop)
		synctest.Wait()
	})
}

func TestWallClocksDoNotMatter(t *testing.T) {
	for _, skew := range []time.Duration{-30 * time.Hour, -5 * time.Hour, 5 * time.Hour, 30 * time.Hour} {
		t.Run(skew.String(), func(t *testing.T) {
			inBubble(t, time.Hour, func(t *testing.T, h *house) {
				h.change(func(r *fake) { r.skew = skew })
				began := time.Now()
				h.want(t, 1)
				if got, err := h.acme.Get(t.Context()); err != nil || !got.Expires.Equal(began.Add(time.Hour)) {
					t.Errorf("expires %v, %v", got.Expires, err)
				}
				h.later(10 * time.Hour)
				if gets, watches := h.count("GetToken"), h.count("WatchToken"); gets != 1 || watches != 1 {
					t.Errorf("%d GetToken, %d WatchToken", gets, watches)
				}
				h.down()
				time.Sleep(time.Hour)
				h.wantError(t, codes.Unavailable)
			})
		})
	}
}

func TestStreamThatBreaksIsOpenedAnew(t *testing.T) {
	inBubble(t, time.Hour, func(t *testing.T, h *house) {
		h.want(t, 1)
		for n := 2; n <= 15; n++ { // Who was well in between does not wait longer each time.
			h.later(10 * minute)
			h.down()
			h.up()
			h.later(10 * time.Second)
			h.change((*fake).buy)
			h.want(t, n)
		}
		if gets, watches := h.count("GetToken"), h.count("WatchToken"); gets != 1 || watches != 15 {
			t.Errorf("%d GetToken, %d WatchToken", gets, watches)
		}
	})
}

// Without streams a source asks when its token is due, and not before.
func TestWithoutStreamsTokensAreAskedFor(t *testing.T) {
	for name, c := range map[string]struct {
		err     error
		watches int // most in a day
	}{
		"unimplemented": {status.Error(codes.Unimplemented, "unknown method"), 32},
		"refused":       {refusal(codes.ResourceExhausted, "CALLER_TOO_FAST", 0), 24 * 22},
		"broken":        {status.Error(codes.Unavailable, "broken"), 24 * 22},
		"ended":         {io.EOF, 24 * 22},
		"unknown":       {status.Error(codes.Unknown, "a proxy's page"), 24 * 22},
	} {
		t.Run(name, func(t *testing.T) {
			inBubble(t, time.Hour, func(t *testing.T, h *house) {
				h.change(func(r *fake) { r.watchErr = c.err })
				for range 24 * 60 {
					if _, err := h.acme.Token(); err != nil {
						t.Fatal(err)
					}
					time.Sleep(minute)
				}
				// A token lives for an hour, and is asked for at 82 to 88 % of it.
				gets, watches := h.count("GetToken"), h.count("WatchToken")
				if gets < 24 || gets > 33 || watches > c.watches {
					t.Errorf("%d GetToken, %d WatchToken", gets, watches)
				}
				h.change(func(r *fake) { r.watchErr = nil })
				h.later(time.Hour)
				if h.streams() != 1 {
					t.Error("no stream, though there could be one")
				}
			})
		})
	}
}

// A mesh may let GetToken pass and not WatchToken. The stream's refusal alone does
// not take the token away.
func TestStreamThatAloneIsForbidden(t *testing.T) {
	for _, code := range []codes.Code{codes.PermissionDenied, codes.NotFound} {
		t.Run(code.String(), func(t *testing.T) {
			inBubble(t, time.Hour, func(t *testing.T, h *house) {
				h.want(t, 1)
				h.change(func(r *fake) { r.watchErr = status.Error(code, "no streams here") })
				for range 24 * 60 {
					if _, err := h.acme.Token(); err != nil {
						t.Fatal(err)
					}
					time.Sleep(minute)
				}
				if gets, watches := h.count("GetToken"), h.count("WatchToken"); gets > 24*22 || watches > 24*22 {
					t.Errorf("%d GetToken, %d WatchToken", gets, watches)
				}
			})
		})
	}
}

// However short tokens live and however long streams are away: callers do not wait.
func TestShortLivedTokensWithoutStreams(t *testing.T) {
	inBubble(t, 5*time.Second, func(t *testing.T, h *house) {
		h.change(func(r *fake) { r.watchErr = status.Error(codes.Unavailable, "broken") })
		h.want(t, 1)
		for range 600 {
			began := time.Now()
			if _, err := h.acme.Token(); err != nil || time.Since(began) != 0 {
				t.Fatalf("%v, after %v", err, time.Since(began))
			}
			time.Sleep(time.Second)
		}
		if gets := h.count("GetToken"); gets > 600/4 {
			t.Errorf("%d GetToken", gets)
		}
	})
}

// RetryInfo is how long to stay away.
func TestStreamIsNotTriedSoonerThanTheBrokerSays(t *testing.T) {
	inBubble(t, time.Hour, func(t *testing.T, h *house) {
		h.change(func(r *fake) { r.watchErr = refusal(codes.Unavailable, "SHUTTING_DOWN", 2*minute) })
		h.want(t, 1)
		h.later(2 * minute)
		if n := h.count("WatchToken"); n != 1 {
			t.Errorf("%d in two minutes", n)
		}
		h.later(10 * time.Second)
		if n := h.count("WatchToken"); n != 2 {
			t.Errorf("%d a little later", n)
		}
	})
}

func TestSilentStreamIsGivenUp(t *testing.T) {
	inBubble(t, time.Hour, func(t *testing.T, h *house) {
		h.want(t, 1)
		h.change(func(r *fake) { r.mute = true })
		h.later(2 * minute)
		h.change(func(r *fake) { r.mute = false; r.watchErr = nil })
		h.later(20 * time.Second)
		h.change((*fake).buy)
		h.want(t, 2)
		if gets, watches := h.count("GetToken"), h.count("WatchToken"); gets != 1 || watches < 2 || watches > 10 {
			t.Errorf("%d GetToken, %d WatchToken", gets, watches)
		}
		if h.streams() != 1 {
			t.Errorf("%d streams are open", h.streams())
		}
	})
}

// A stream that brings nothing, or heartbeats only, does not keep a source from
// having tokens, and from looking for a better one.
func TestUselessStreams(t *testing.T) {
	for name, spoil := range map[string]func(*fake){
		"mute":            func(r *fake) { r.mute = true },
		"heartbeats only": func(r *fake) { r.hollow = true },
	} {
		t.Run(name+" from the beginning", func(t *testing.T) {
			inBubble(t, time.Hour, func(t *testing.T, h *house) {
				h.change(spoil)
				h.useForADay(t)
			})
		})
		t.Run(name+" after a while", func(t *testing.T) {
			inBubble(t, time.Hour, func(t *testing.T, h *house) {
				h.want(t, 1)
				h.change(spoil)
				h.useForADay(t)
			})
		})
	}
}

// useForADay checks that there is always a token, at the cost of few calls.
func (h *house) useForADay(t *testing.T) {
	t.Helper()
	for range 24 * 60 {
		if _, err := h.acme.Token(); err != nil {
			t.Fatal(err)
		}
		time.Sleep(minute)
	}
	if gets, watches := h.count("GetToken"), h.count("WatchToken"); gets > 40 || watches < 24*5 || watches > 24*22 {
		t.Errorf("%d GetToken, %d WatchToken", gets, watches)
	}
}

// The broker has no newer token, for its issuer is away: it is asked again, but not
// all the time.
func TestLateTokenIsAskedForAFewTimes(t *testing.T) {
	inBubble(t, time.Hour, func(t *testing.T, h *house) {
		h.want(t, 1)
		h.change(func(r *fake) { r.away = true })
		h.later(58 * minute)
		h.want(t, 1)
		if gets := h.count("GetToken"); gets < 3 || gets > 15 {
			t.Errorf("%d GetToken", gets)
		}
		h.later(2 * minute)
		h.wantError(t, codes.Unavailable)
		h.change(func(r *fake) { r.away = false })
		h.later(6 * time.Second)
		h.want(t, 2)
	})
}

// What makes no sense is an error, and what is held is kept.
func TestNonsense(t *testing.T) {
	for name, c := range map[string]struct {
		spoil func(*pb.Token)
		fine  bool
	}{
		"no access token":     {func(t *pb.Token) { t.AccessToken = "" }, false},
		"nothing left":        {func(t *pb.Token) { t.Remaining = nil }, false},
		"zero left":           {func(t *pb.Token) { t.Remaining = durationpb.New(0) }, false},
		"less than zero":      {func(t *pb.Token) { t.Remaining = durationpb.New(-time.Hour) }, false},
		"mixed signs":         {func(t *pb.Token) { t.Remaining = &durationpb.Duration{Seconds: 3600, Nanos: -1} }, false},
		"no such duration":    {func(t *pb.Token) { t.Remaining = &durationpb.Duration{Seconds: math.MaxInt64} }, false},
		"about to end":        {func(t *pb.Token) { t.Remaining = durationpb.New(59 * time.Second) }, false},
		"nothing at all":      {func(t *pb.Token) { t.Reset() }, false},
		"for ever":            {func(t *pb.Token) { t.Remaining = durationpb.New(math.MaxInt64) }, true},
		"no times":            {func(t *pb.Token) { t.IssueTime, t.ExpireTime = nil, nil }, true},
		"no issue time":       {func(t *pb.Token) { t.IssueTime = nil }, true},
		"times the wrong way": {func(t *pb.Token) { t.IssueTime, t.ExpireTime = t.ExpireTime, t.IssueTime }, true},
		"times that are none": {func(t *pb.Token) { t.IssueTime.Seconds = math.MinInt64 }, true},
		"nothing but a token": {func(t *pb.Token) { t.Scopes, t.ApiBaseUrl, t.ApiKey, t.TokenType = nil, "", "", "" }, true},
	} {
		t.Run(name, func(t *testing.T) {
			inBubble(t, time.Hour, func(t *testing.T, h *house) {
				h.change(func(r *fake) { r.answer = c.spoil })
				if c.fine {
					h.want(t, 1)
					got, err := h.acme.Token()
					if left := time.Until(got.Expiry); err != nil || left > 59*minute && name != "for ever" {
						t.Errorf("handed out for %v", left)
					}
					h.later(40 * minute)
					if gets, watches := h.count("GetToken"), h.count("WatchToken"); gets != 1 || watches != 1 {
						t.Errorf("%d GetToken, %d WatchToken", gets, watches)
					}
					return
				}
				h.wantError(t, codes.Internal)
				h.change(func(r *fake) { r.answer = nil })
				h.later(6 * time.Second)
				h.want(t, 1)
				h.change(func(r *fake) { r.answer = c.spoil; r.buy() })
				h.later(30 * minute)
				h.want(t, 1)
				if watches := h.count("WatchToken"); watches > 20 {
					t.Errorf("%d WatchToken", watches)
				}
				h.change(func(r *fake) { r.answer = nil })
				h.later(6 * minute)
				h.want(t, 2)
			})
		})
	}
}

package token_test

import (
	"errors"
	"fmt"
	"io"
	"strings"
	"testing"
	"time"

	"smokeball.internal/tokenbroker/internal/token"
)

var classes = map[token.Class]struct{ permanent bool }{
	token.CredentialsRejected: {true},
	token.GrantRejected:       {true},
	token.ScopeRejected:       {true},
	token.Throttled:           {false},
	token.Blocked:             {false},
	token.Unavailable:         {false},
	token.Malformed:           {false},
}

func TestOnlyARefusalIsPermanent(t *testing.T) {
	for class, want := range classes {
		if got := class.Permanent(); got != want.permanent {
			t.Errorf("%s: Permanent() = %v, want %v", class, got, want.permanent)
		}
	}
}

func TestHoldGrowsWithTheStreakUpToACap(t *testing.T) {
	const s = time.Second
	for _, test := range []struct {
		class  token.Class
		streak int
		most   time.Duration // the wait at the greatest draw; the least is half of it
	}{
		{token.Unavailable, 0, 1 * s}, // not counted: as the first
		{token.Unavailable, 1, 1 * s},
		{token.Unavailable, 2, 2 * s},
		{token.Unavailable, 3, 4 * s},
		{token.Unavailable, 5, 16 * s},
		{token.Unavailable, 6, 30 * s},
		{token.Unavailable, 1_000_000, 30 * s}, // a shift by that much would give zero
		{token.Unavailable, -5, 1 * s},
		{token.Malformed, 1, 1 * s},
		{token.Malformed, 60, 30 * s},
		{token.Throttled, 1, 5 * s},
		{token.Throttled, 2, 10 * s},
		{token.Throttled, 5, 60 * s},
		{token.Throttled, 64, 60 * s},
		{token.Blocked, 1, 5 * s},
		{token.Blocked, 64, 60 * s},
	} {
		f := &token.Failure{Class: test.class, Streak: test.streak}
		for draw, want := range map[float64]time.Duration{0: test.most / 2, 0.5: test.most * 3 / 4} {
			if got := f.Hold(draw); got != want {
				t.Errorf("%s, streak %d, draw %v: Hold = %v, want %v", test.class, test.streak, draw, got, want)
			}
		}
		if got := f.Hold(0.999999); got > test.most || got < test.most*99/100 {
			t.Errorf("%s, streak %d: the longest hold is %v, want nearly %v", test.class, test.streak, got, test.most)
		}
	}
}

func TestHoldAfterARefusalIsTenMinutesWhateverElseIsSaid(t *testing.T) {
	for class, is := range classes {
		if !is.permanent {
			continue
		}
		for _, f := range []token.Failure{{}, {Streak: 9}, {RetryAfter: time.Second}, {RetryAfter: time.Hour}} {
			f.Class = class
			for _, draw := range []float64{0, 0.9} {
				if got := f.Hold(draw); got != 10*time.Minute {
					t.Errorf("%s: Hold = %v", class, got)
				}
			}
		}
	}
}

func TestHoldHonoursRetryAfterUpToAnHour(t *testing.T) {
	for _, test := range []struct {
		name       string
		retryAfter time.Duration
		want       time.Duration
	}{
		{"longer than the backoff", 90 * time.Second, 90 * time.Second},
		{"an hour", time.Hour, time.Hour},
		{"longer than an hour", 30 * 24 * time.Hour, time.Hour},
		{"shorter than the backoff, which then stands", time.Second, 2500 * time.Millisecond},
		{"negative", -time.Hour, 2500 * time.Millisecond},
	} {
		for class, is := range classes {
			if is.permanent {
				continue
			}
			f := &token.Failure{Class: class, RetryAfter: test.retryAfter, Streak: 1}
			want := test.want
			if class == token.Unavailable || class == token.Malformed {
				// Their first backoff is a second.
				want = max(test.retryAfter, 500*time.Millisecond)
				want = min(want, time.Hour)
			}
			if got := f.Hold(0); got != want {
				t.Errorf("%s, %s: Hold = %v, want %v", test.name, class, got, want)
			}
		}
	}
}

func TestFailureHoldsUntilItsRetryAt(t *testing.T) {
	f := &token.Failure{RetryAt: issued}
	for now, want := range map[time.Time]bool{issued.Add(-1): true, issued: false, issued.Add(1): false} {
		if got := f.Holds(now); got != want {
			t.Errorf("Holds %v after RetryAt = %v, want %v", now.Sub(issued), got, want)
		}
	}
	var none *token.Failure
	if none.Holds(issued) {
		t.Error("a failure that never was holds")
	}
	if new(token.Failure).Holds(issued) {
		t.Error("a failure without a time holds")
	}
}

// The cause is for errors.Is. Its text may quote the other side, so it is printed nowhere.
func TestFailureShowsItsMessageAndKeepsItsCauseToItself(t *testing.T) {
	cause := fmt.Errorf("malformed HTTP response %q: %w", "planted", io.ErrUnexpectedEOF)
	f := &token.Failure{Class: token.Unavailable, Message: "auth.example closed the connection", Cause: cause}
	wrapped := fmt.Errorf("exchange: %w", f)
	if !errors.Is(wrapped, io.ErrUnexpectedEOF) {
		t.Error("the cause cannot be found")
	}
	var got *token.Failure
	if !errors.As(wrapped, &got) || got != f {
		t.Error("the failure cannot be found")
	}
	for _, text := range []string{f.Error(), fmt.Sprintf("%v %+v %s %q", f, f, f, f), wrapped.Error()} {
		if strings.Contains(text, "planted") || !strings.Contains(text, "unavailable: auth.example closed the connection") {
			t.Errorf("printed as %q", text)
		}
	}
}

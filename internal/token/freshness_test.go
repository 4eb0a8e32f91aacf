package token_test

import (
	"testing"
	"time"

	"smokeball.internal/tokenbroker/internal/token"
)

var issued = time.Date(2026, 3, 1, 12, 0, 0, 0, time.UTC)

func living(life time.Duration) *token.Token {
	return &token.Token{Issued: issued, Expires: issued.Add(life)}
}

// lives are the lifetimes that matter: Smokeball's default, Cognito's shortest, one that is shorter than any margin,
// and two of tokens that were dead when they came.
var lives = []struct {
	name            string
	life            time.Duration
	safe            time.Duration // from the issue to the safe end
	refreshInterval time.Duration
}{
	{"an hour", 3600 * time.Second, 3540 * time.Second, time.Minute},
	{"five minutes", 300 * time.Second, 270 * time.Second, time.Minute},
	{"ten minutes, where the two margins meet", 600 * time.Second, 540 * time.Second, time.Minute},
	{"five seconds", 5 * time.Second, 4500 * time.Millisecond, 1250 * time.Millisecond},
	{"no time", 0, 0, 0},
	{"less than no time", -100 * time.Second, -100 * time.Second, -25 * time.Second},
}

func TestTokenIsHandedOutUntilAMinuteOrATenthBeforeItsEnd(t *testing.T) {
	for _, test := range lives {
		t.Run(test.name, func(t *testing.T) {
			tok := living(test.life)
			if got := tok.Lifetime(); got != test.life {
				t.Errorf("Lifetime() = %v, want %v", got, test.life)
			}
			if got := tok.SafeEnd().Sub(issued); got != test.safe {
				t.Errorf("SafeEnd() is %v after the issue, want %v", got, test.safe)
			}
			if tok.SafeEnd().After(tok.Expires) {
				t.Error("the safe end is after the end")
			}
			if alive := test.life > 0; tok.Usable(issued, 0) != alive {
				t.Errorf("usable when issued: %v, want %v", !alive, alive)
			}
			if test.life > 0 && !tok.Usable(tok.SafeEnd().Add(-1), 0) {
				t.Error("not usable just before the safe end")
			}
			for _, late := range []time.Time{tok.SafeEnd(), tok.Expires, tok.Expires.Add(time.Hour)} {
				if tok.Usable(late, 0) {
					t.Errorf("usable %v after the issue", late.Sub(issued))
				}
			}
		})
	}
}

func TestUsableHeedsWhatTheCallerNeeds(t *testing.T) {
	hour := living(time.Hour)
	for _, test := range []struct {
		name    string
		token   *token.Token
		after   time.Duration
		atLeast time.Duration
		want    bool
	}{
		{"exactly as much as is left", hour, 30 * time.Minute, 30 * time.Minute, true},
		{"a moment more than is left", hour, 30 * time.Minute, 30*time.Minute + 1, false},
		{"more than the token ever had", hour, 0, 2 * time.Hour, false},
		{"less than the margin does not reach behind the safe end", hour, 3540 * time.Second, time.Second, false},
		{"a negative wish is no wish", hour, 3540 * time.Second, -time.Hour, false},
		{"nor does it raise the dead", living(-100 * time.Second), -95 * time.Second, -time.Hour, false},
		{"a clock behind the issue", hour, -time.Minute, 0, true},
		{"no token", nil, 0, 0, false},
	} {
		if got := test.token.Usable(issued.Add(test.after), test.atLeast); got != test.want {
			t.Errorf("%s: Usable = %v, want %v", test.name, got, test.want)
		}
	}
}

func TestTokenIsDueFromItsRefreshPointOn(t *testing.T) {
	tok := living(time.Hour)
	tok.RefreshAt = issued.Add(45 * time.Minute)
	for after, want := range map[time.Duration]bool{
		0: false, 45*time.Minute - 1: false, 45 * time.Minute: true, 2 * time.Hour: true,
	} {
		if got := tok.Due(issued.Add(after)); got != want {
			t.Errorf("Due after %v = %v, want %v", after, got, want)
		}
	}
}

func TestRefreshIntervalIsAMinuteOrAQuarterOfTheLife(t *testing.T) {
	for _, test := range lives {
		if got := living(test.life).RefreshInterval(); got != test.refreshInterval {
			t.Errorf("%s: RefreshInterval() = %v, want %v", test.name, got, test.refreshInterval)
		}
	}
}

// The jitter must be wide enough to spread a fleet's refreshes and narrow enough to leave time to try again.
func TestRefreshPointLiesBetween70And80PercentOfTheLife(t *testing.T) {
	const last = 1 - 1.0/(1<<53) // the greatest draw there is
	for _, test := range lives {
		at := func(draw float64) time.Duration {
			return token.RefreshPoint(issued, issued.Add(test.life), draw).Sub(issued)
		}
		near := func(got time.Duration, fraction float64) bool {
			want := time.Duration(float64(test.life) * fraction)
			return (got - want).Abs() <= time.Microsecond
		}
		if got := at(0); !near(got, 0.70) {
			t.Errorf("%s: the earliest refresh point is at %v", test.name, got)
		}
		if got := at(0.5); !near(got, 0.75) {
			t.Errorf("%s: the middle refresh point is at %v", test.name, got)
		}
		if got := at(last); !near(got, 0.80) {
			t.Errorf("%s: the latest refresh point is at %v", test.name, got)
		}
		if test.life <= 0 {
			continue
		}
		tok := living(test.life)
		if latest := issued.Add(at(last)); !latest.Before(tok.SafeEnd()) {
			t.Errorf("%s: a token in use is refreshed at %v, after it was handed out for the last time", test.name, latest)
		}
		// Else a refresh that is due would be refused as too soon.
		if at(0) < tok.RefreshInterval() {
			t.Errorf("%s: a refresh is due after %v, sooner than it is allowed", test.name, at(0))
		}
	}
}

func TestATokenOfACrowdIsDueAnywhereFromTenToEightyPerCentOfItsLife(t *testing.T) {
	expires := issued.Add(time.Hour)
	for draw, want := range map[float64]time.Duration{0: 6 * time.Minute, 0.5: 27 * time.Minute, 1: 48 * time.Minute} {
		if got := token.CrowdRefreshPoint(issued, expires, draw).Sub(issued); (got - want).Abs() > time.Millisecond {
			t.Errorf("draw %v: after %v, want %v", draw, got, want)
		}
	}
}

func TestStandbyMovesTheRefreshPointAndNothingElse(t *testing.T) {
	tok := &token.Token{ID: "a", Issued: issued, Expires: issued.Add(time.Hour), RefreshAt: issued.Add(45 * time.Minute)}
	for draw, want := range map[float64]time.Duration{0: 0, 0.5: 18 * time.Second, 1: 36 * time.Second} {
		later := tok.Standby(draw)
		if got := later.RefreshAt.Sub(tok.RefreshAt); (got - want).Abs() > time.Millisecond {
			t.Errorf("draw %v: moved by %v, want %v", draw, got, want)
		}
		if later.ID != tok.ID || later.Issued != tok.Issued || later.Expires != tok.Expires || tok.RefreshAt != issued.Add(45*time.Minute) {
			t.Errorf("draw %v: %+v of %+v", draw, later, tok)
		}
	}
	dead := &token.Token{Issued: issued, Expires: issued.Add(-time.Hour), RefreshAt: issued}
	if got := dead.Standby(1).RefreshAt; got != issued {
		t.Errorf("of a token without a life: moved to %v", got)
	}
}

func TestARefreshIsUrgentWhenHalfOfItsTimeIsOver(t *testing.T) {
	// Due after 45 minutes, not handed out after 59.
	tok := &token.Token{Issued: issued, Expires: issued.Add(time.Hour), RefreshAt: issued.Add(45 * time.Minute)}
	for after, want := range map[time.Duration]bool{
		0: false, 45 * time.Minute: false, 52*time.Minute - 1: false, 52 * time.Minute: true, 58 * time.Minute: true, 2 * time.Hour: true,
	} {
		if got := tok.Urgent(issued.Add(after)); got != want {
			t.Errorf("after %v: %v", after, got)
		}
	}
}

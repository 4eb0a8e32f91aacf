package token

import "time"

const (
	// The part of its life after which a token in use is replaced. AWS: "use
	// Amazon Cognito tokens for about 75% of the token lifetime".
	refreshFraction = 0.75
	// How far the refresh point is moved at most, either way, so that tokens
	// bought together are not replaced together.
	refreshJitter = 0.05
	// A token that was bought in a crowd may be replaced as early as this, so that
	// the crowd does not come back: the refreshes are spread over as much time as
	// lies between two.
	crowdFraction = 0.10
	// Replicas that did not buy a token are in no hurry to replace it: they come
	// later by up to this part of its life, if the one that did is gone.
	standbyFraction = 0.01
	// A token is not handed out in the last part of its life, so that it is
	// still valid when the caller's request arrives: a tenth of it, one minute
	// at most (tokens of Cognito live five minutes to a day).
	maxMargin = time.Minute
	// No two forced refreshes of one credential within this time. Tokens that are
	// shorter than four times this are allowed a quarter of their life.
	maxRefreshInterval = time.Minute
)

// SafeEnd returns from when on the token is not handed out any more; it is never
// after Expires.
func (t *Token) SafeEnd() time.Time {
	return t.Expires.Add(-min(maxMargin, max(0, t.Lifetime()/10)))
}

// Usable says whether the token may be handed out at now to a caller that needs
// it to live for at least atLeast (0: any safe time). A nil token is not usable.
func (t *Token) Usable(now time.Time, atLeast time.Duration) bool {
	return t != nil && now.Before(t.SafeEnd()) && t.Expires.Sub(now) >= atLeast
}

// Due says whether the token should be replaced at now if it is in use.
func (t *Token) Due(now time.Time) bool { return !now.Before(t.RefreshAt) }

// RefreshInterval returns how long a token that replaced a rejected one is not
// replaced itself: one minute, or a quarter of its life if that is less.
func (t *Token) RefreshInterval() time.Duration {
	return min(maxRefreshInterval, t.Lifetime()/4)
}

// CrowdRefreshPoint is RefreshPoint for a token that was bought together with those
// of many other tenants: anywhere from 10 % to 80 % of its life.
func CrowdRefreshPoint(issued, expires time.Time, draw float64) time.Time {
	fraction := crowdFraction + (refreshFraction+refreshJitter-crowdFraction)*draw
	return issued.Add(time.Duration(float64(expires.Sub(issued)) * fraction))
}

// Standby returns the token as a replica holds it that did not buy it: due a
// little later, by up to 1 % of its life, as draw, a number in [0, 1), has it.
func (t *Token) Standby(draw float64) *Token {
	later := *t
	later.RefreshAt = t.RefreshAt.Add(time.Duration(float64(max(0, t.Lifetime())) * standbyFraction * draw))
	return &later
}

// Urgent says whether so much of the time between the refresh point and the safe
// end is over at now that a refresh should not be put off any more: half of it.
func (t *Token) Urgent(now time.Time) bool {
	return now.Sub(t.RefreshAt) >= t.SafeEnd().Sub(t.RefreshAt)/2
}

// RefreshPoint returns when a token asked for at issued is due: at 75 % of its
// life, moved by up to 5 % of its life by draw, a number in [0, 1).
func RefreshPoint(issued, expires time.Time, draw float64) time.Time {
	fraction := refreshFraction + refreshJitter*(2*draw-1)
	return issued.Add(time.Duration(float64(expires.Sub(issued)) * fraction))
}

package smokeball

import (
	"encoding/json"
	"math"
	"net/http"
	"strconv"
	"strings"
	"time"
)

const (
	// The lifetime of a token whose issuer says nothing about it. RFC 6749
	// only recommends expires_in; five minutes is the shortest Cognito has.
	defaultLifetime = 5 * time.Minute
	// The longest lifetime believed; a day is the longest Cognito has.
	maxLifetime = 24 * time.Hour
)

// lifetime returns how long a token lives, from when its request was sent. It is
// what expires_in says, but not more than is left until the token's own exp: a
// cache in front of the issuer repeats expires_in for a token that it has had for
// a while. Zero or negative is the issuer's word that the token is good for this
// one use. dead means that exp has passed.
//
// exp is compared with the server's clock (its Date header), never with the one
// here, which may be wrong. Cognito asks to treat tokens as opaque: where exp or
// Date cannot be read, expires_in is all there is.
func lifetime(expires json.RawMessage, c claims, header http.Header) (life time.Duration, dead bool) {
	left, hasExp := untilExp(c, header)
	if hasExp && left <= 0 {
		return 0, true
	}
	life, said := expiresIn(expires)
	switch {
	case !said && hasExp:
		life = left
	case !said:
		life = defaultLifetime
	case hasExp:
		life = min(life, left)
	}
	return min(life, maxLifetime), false
}

// expiresIn reads expires_in, in seconds: a JSON number with or without a
// fraction, or one in a string. said is false if it is missing, null or not a
// number.
func expiresIn(raw json.RawMessage) (life time.Duration, said bool) {
	text := string(raw)
	if len(raw) > 0 && raw[0] == '"' {
		if json.Unmarshal(raw, &text) != nil {
			return 0, false
		}
	}
	seconds, err := strconv.ParseFloat(strings.TrimSpace(text), 64)
	if math.IsNaN(seconds) || err != nil && !math.IsInf(seconds, 0) {
		return 0, false
	}
	seconds = max(0, min(seconds, maxLifetime.Seconds()))
	return time.Duration(seconds * float64(time.Second)), true
}

// untilExp returns the time from now to the exp claim, where now is the Date of the
// answer and, if that comes out of a cache with it, the Age of both (RFC 9111
// section 4.2.3).
func untilExp(c claims, header http.Header) (left time.Duration, ok bool) {
	now, err := http.ParseTime(header.Get("Date"))
	if err != nil {
		return 0, false
	}
	if age, err := strconv.ParseUint(header.Get("Age"), 10, 31); err == nil {
		now = now.Add(time.Duration(age) * time.Second)
	}
	at, ok := c.expiry()
	return at.Sub(now), ok
}

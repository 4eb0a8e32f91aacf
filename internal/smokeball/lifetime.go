package smokeball

import (
	"encoding/base64"
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

// lifetime returns how long the token in a lives, from when its request was
// sent. It is what expires_in says, but not more than is left until the token's
// own exp: a cache in front of the issuer repeats expires_in for a token that it
// has had for a while. Zero or negative is the issuer's word that the token is
// good for this one use. dead means that exp has passed.
//
// exp is compared with the server's clock (its Date header), never with the one
// here, which may be wrong. Cognito asks to treat tokens as opaque: where exp or
// Date cannot be read, expires_in is all there is.
func lifetime(a answer, header http.Header) (life time.Duration, dead bool) {
	left, hasExp := untilExp(a.AccessToken, header)
	if hasExp && left <= 0 {
		return 0, true
	}
	life, said := expiresIn(a.ExpiresIn)
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

// untilExp returns the time from now to the exp claim of a JWT, where now is the
// Date of the answer and, if that comes out of a cache with it, the Age of both
// (RFC 9111 section 4.2.3). It verifies nothing: the claim can only shorten a
// life.
func untilExp(accessToken string, header http.Header) (left time.Duration, ok bool) {
	now, err := http.ParseTime(header.Get("Date"))
	if age, err := strconv.ParseUint(header.Get("Age"), 10, 31); err == nil {
		now = now.Add(time.Duration(age) * time.Second)
	}
	parts := strings.Split(accessToken, ".")
	if err != nil || len(parts) != 3 {
		return 0, false
	}
	payload, err := base64.RawURLEncoding.DecodeString(strings.TrimRight(parts[1], "="))
	if err != nil {
		return 0, false
	}
	var claims struct {
		Exp *float64 `json:"exp"`
	}
	if json.Unmarshal(payload, &claims) != nil || claims.Exp == nil || *claims.Exp < 0 || *claims.Exp > math.MaxInt32*64 {
		return 0, false
	}
	return time.Unix(int64(*claims.Exp), 0).Sub(now), true
}

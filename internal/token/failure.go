package token

import (
	"fmt"
	"time"
)

// Class says what a failed exchange means for the next one.
type Class string

// The classes of failure.
const (
	// CredentialsRejected: the issuer knows no such client id and secret.
	CredentialsRejected Class = "credentials_rejected"
	// GrantRejected: the client is known, but may not use this grant, or the
	// issuer finds the request itself wrong.
	GrantRejected Class = "grant_rejected"
	// ScopeRejected: the client may not have these scopes.
	ScopeRejected Class = "scope_rejected"
	// Throttled: the issuer asks to slow down.
	Throttled Class = "throttled"
	// Blocked: something in front of the issuer refused the request before the
	// issuer saw it.
	Blocked Class = "blocked"
	// Unavailable: no answer, or an answer that says the issuer is in trouble.
	Unavailable Class = "unavailable"
	// Malformed: an answer that is not a token response.
	Malformed Class = "malformed"
)

// Classes returns all classes.
func Classes() []Class {
	return []Class{CredentialsRejected, GrantRejected, ScopeRejected, Throttled, Blocked, Unavailable, Malformed}
}

// Permanent says whether the failure stays until somebody changes something.
func (c Class) Permanent() bool {
	return c == CredentialsRejected || c == GrantRejected || c == ScopeRejected
}

// Failure is the outcome of an exchange that brought no token. It carries
// nothing of the issuer's answer but what is known to be harmless: the body of
// a token response can hold a token.
type Failure struct {
	// Class is what the failure means.
	Class Class
	// Message says what happened, in words, without secrets.
	Message string
	// RetryAfter is how long the issuer asked to be left alone; 0 if it did not.
	RetryAfter time.Duration
	// RetryAt is when the next exchange may be tried. The broker sets it.
	RetryAt time.Time
	// Streak counts the failures in a row up to this one. The broker sets it.
	Streak int
	// Cause is the underlying error, if any. It is not shared between replicas.
	Cause error
}

// Error returns the class and the message.
func (f *Failure) Error() string { return fmt.Sprintf("%s: %s", f.Class, f.Message) }

// Unwrap returns the cause.
func (f *Failure) Unwrap() error { return f.Cause }

// Holds says whether the failure still stands at now. A nil failure does not.
func (f *Failure) Holds(now time.Time) bool { return f != nil && now.Before(f.RetryAt) }

const (
	// How long a permanent refusal is remembered. A change of the credentials
	// ends it at once; the time is for what is mended at the issuer's side.
	refusalHold = 10 * time.Minute
	// MaxRetryAfter is the longest Retry-After that is honoured.
	MaxRetryAfter = time.Hour
)

// Hold returns how long no exchange is tried after f: what the issuer asked for,
// up to an hour; ten minutes after a refusal; else a backoff that doubles with
// the streak up to a cap, spread over its upper half by draw, a number in [0, 1).
func (f *Failure) Hold(draw float64) time.Duration {
	if f.Class.Permanent() {
		return refusalHold
	}
	first, limit := time.Second, 30*time.Second
	if f.Class == Throttled || f.Class == Blocked {
		first, limit = 5*time.Second, time.Minute
	}
	backoff := min(limit, first<<min(max(f.Streak-1, 0), 10))
	backoff = backoff/2 + time.Duration(float64(backoff/2)*draw)
	return max(backoff, min(f.RetryAfter, MaxRetryAfter))
}

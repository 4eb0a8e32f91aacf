// Package token says what a token is: the credential it is bought with, the key
// it is kept under, how long it is fresh, what a failed exchange means, and when
// the next one has its turn. It holds values and rules only: no I/O, and no clock
// of its own.
package token

import (
	"crypto/sha256"
	"encoding/hex"
	"time"

	"smokeball.internal/tokenbroker/internal/secret"
)

// Token is an access token as the issuer granted it. Tokens are not changed
// once made; they may be shared between goroutines.
type Token struct {
	// ID is a digest of AccessToken that names it without revealing it.
	ID string
	// AccessToken is the bearer token itself.
	AccessToken secret.Text
	// Scopes that were granted, canonical. Empty: the issuer did not say.
	Scopes []string
	// Issued is when the token was asked for: its life is counted from the
	// moment the request was sent (RFC 6749 counts from when the response was
	// made, which is later), so that Expires is never too late.
	Issued time.Time
	// Expires is when the issuer stops honouring the token.
	Expires time.Time
	// RefreshAt is when a token in use is to be replaced. It is drawn once, when
	// the token is bought, and kept with it.
	RefreshAt time.Time
	// Replaced is the ID of the token that this one replaced because Smokeball had
	// rejected it; empty if there was none.
	Replaced string
}

// ID returns the name of an access token: 32 hexadecimal digits of its SHA-256.
func ID(accessToken secret.Text) string {
	sum := sha256.Sum256([]byte(accessToken.Reveal()))
	return hex.EncodeToString(sum[:16])
}

// Lifetime returns how long the token lives from Issued; zero or negative for a
// token that was expired when it came.
func (t *Token) Lifetime() time.Duration { return t.Expires.Sub(t.Issued) }

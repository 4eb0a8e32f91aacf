package smokeball

import (
	"encoding/base64"
	"encoding/json"
	"math"
	"slices"
	"strings"
	"time"

	"smokeball.internal/tokenbroker/internal/token"
)

// claims are what a JWT says of itself, by name. Nothing of it is verified: that
// is for the API that the token is for. It can only speak against a token.
type claims map[string]json.RawMessage

// claimsOf returns the claims of an access token; nil if it is not a JWT, which
// nobody promises (RFC 6749 section 1.4).
func claimsOf(accessToken string) claims {
	parts := strings.Split(accessToken, ".")
	if len(parts) != 3 {
		return nil
	}
	payload, err := base64.RawURLEncoding.DecodeString(strings.TrimRight(parts[1], "="))
	if err != nil {
		return nil
	}
	var c claims
	if json.Unmarshal(payload, &c) != nil {
		return nil
	}
	return c
}

// text returns a claim that is a string.
func (c claims) text(name string) (value string, ok bool) {
	var s *string
	if json.Unmarshal(c[name], &s) != nil || s == nil {
		return "", false
	}
	return *s, true
}

// expiry returns the exp claim.
func (c claims) expiry() (at time.Time, ok bool) {
	var seconds *float64
	if json.Unmarshal(c["exp"], &seconds) != nil || seconds == nil || *seconds < 0 || *seconds > math.MaxInt32*64 {
		return time.Time{}, false
	}
	return time.Unix(int64(*seconds), 0), true
}

// foreign says in words why a token cannot be the one that was asked for; empty if
// nothing speaks against it. A cache or a proxy that confuses answers would
// otherwise have one tenant's callers act as another. A claim that is missing, or
// is no string, says nothing; scope is that of the response. Source of the claims:
// https://docs.aws.amazon.com/cognito/latest/developerguide/amazon-cognito-user-pools-using-the-access-token.html
func (c claims) foreign(asked token.Credential, scope string) string {
	if id, ok := c.text("client_id"); ok && id != asked.ClientID {
		return "answers with a token of another client"
	}
	if use, ok := c.text("token_use"); ok && use != "access" {
		return "answers with a token that is not an access token"
	}
	claimed, _ := c.text("scope")
	if len(asked.Scopes) > 0 && !within(scope+" "+claimed, asked.Scopes) {
		return "answers with a token for scopes that were not asked for"
	}
	return ""
}

// within says whether each scope in the list, RFC 6749 section 3.3, is one of
// those in scopes.
func within(list string, scopes []string) bool {
	for s := range strings.FieldsSeq(list) {
		if !slices.Contains(scopes, s) {
			return false
		}
	}
	return true
}

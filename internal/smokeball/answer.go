package smokeball

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"mime"
	"net/http"
	"regexp"
	"strconv"
	"strings"
	"time"

	"smokeball.internal/tokenbroker/internal/secret"
	"smokeball.internal/tokenbroker/internal/token"
)

// answer is a token response, good (RFC 6749 section 5.1) or bad (section 5.2),
// and the error body of AWS APIs ("__type"). Unknown fields are ignored.
type answer struct {
	AccessToken string          `json:"access_token"`
	TokenType   string          `json:"token_type"`
	ExpiresIn   json.RawMessage `json:"expires_in"`
	Scope       string          `json:"scope"`
	Error       string          `json:"error"`
	AWSType     string          `json:"__type"`
}

// oauthErrors are the error codes that may be repeated to an administrator.
// Any other text in the error field stays here: it is the issuer's, and has been
// known to hold secrets.
var oauthErrors = map[string]token.Class{
	"invalid_client":         token.CredentialsRejected,
	"invalid_scope":          token.ScopeRejected,
	"unauthorized_client":    token.GrantRejected,
	"unsupported_grant_type": token.GrantRejected,
	"invalid_grant":          token.GrantRejected,
	"invalid_request":        token.GrantRejected,
	// Not in RFC 6749, seen in the field.
	"temporarily_unavailable": token.Unavailable,
	"server_error":            token.Unavailable,
	"slow_down":               token.Throttled,
}

// errSettled is the cause of a failure that the same request would meet again,
// and perhaps pay for again: whoever answered does not speak OAuth 2.0, or not
// to us, or sells what cannot be used.
var errSettled = errors.New("another try would not help")

// interpret turns the issuer's answer into a token or a classified failure. It
// goes by the JSON error first and the status second: Cognito answers
// invalid_client with 400, where RFC 6749 wants 401.
func interpret(resp *http.Response, body []byte, c token.Credential, sent time.Time) (*token.Token, *token.Failure) {
	var a answer
	isJSON := json.Unmarshal(body, &a) == nil
	throttled := resp.StatusCode == http.StatusTooManyRequests ||
		strings.Contains(a.AWSType, "TooManyRequests") || strings.Contains(a.Error, "TooManyRequests") ||
		resp.StatusCode == http.StatusBadRequest && bytes.Contains(bytes.ToLower(body), []byte("rate exceeded"))
	class, knownError := oauthErrors[a.Error]

	switch {
	case throttled:
		return nil, describe(resp, token.Throttled, "asks to slow down", nil)
	case isJSON && knownError:
		return nil, describe(resp, class, "answers "+a.Error, nil)
	case resp.StatusCode/100 == 5, resp.StatusCode == http.StatusRequestTimeout:
		return nil, describe(resp, token.Unavailable, "is in trouble", nil)
	case resp.StatusCode/100 == 3:
		return nil, describe(resp, token.Malformed, "answers with a redirect, which is not followed", errSettled)
	case resp.StatusCode == http.StatusForbidden:
		return nil, describe(resp, token.Blocked, "refuses the request before looking at it (a firewall, or the address this comes from)", nil)
	case resp.StatusCode != http.StatusOK:
		return nil, describe(resp, token.Malformed, "answers with neither a token nor an error code of OAuth 2.0", errSettled)
	case len(body) == 0:
		return nil, describe(resp, token.Malformed, "answers with nothing", nil)
	case !isJSON:
		return nil, describe(resp, token.Malformed, "answers with something that is not JSON", nil)
	case a.Error != "":
		return nil, describe(resp, token.Malformed, "answers 200 with an error", nil)
	case a.AccessToken == "" || !visible(a.AccessToken):
		return nil, describe(resp, token.Malformed, "answers without a usable access_token", nil)
	case !strings.EqualFold(a.TokenType, "Bearer"):
		return nil, describe(resp, token.Malformed, "answers with a token that is not a bearer token", errSettled)
	}

	claimed := claimsOf(a.AccessToken)
	if why := claimed.foreign(c, a.Scope); why != "" {
		return nil, describe(resp, token.Malformed, why, errSettled)
	}
	life, dead := lifetime(a.ExpiresIn, claimed, resp.Header)
	if dead {
		return nil, describe(resp, token.Malformed, "answers with a token that has expired already", errSettled)
	}
	scopes := c.Scopes
	if a.Scope != "" {
		scopes = token.CanonicalScopes(strings.Fields(a.Scope))
	}
	accessToken := secret.New(a.AccessToken)
	return &token.Token{
		ID:          token.ID(accessToken),
		AccessToken: accessToken,
		Scopes:      scopes,
		Issued:      sent,
		Expires:     sent.Add(life),
	}, nil
}

// visible says whether s can stand in an HTTP header: a token with a line break
// would let the issuer write headers of its choice into every request.
func visible(s string) bool {
	for i := range len(s) {
		if s[i] <= ' ' || s[i] > '~' {
			return false
		}
	}
	return true
}

// mediaTypes are those that may be repeated: what a token endpoint, AWS and the
// things in front of them answer with. A header is as much the issuer's text as
// the body is.
var mediaTypes = map[string]bool{
	"application/json": true, "application/problem+json": true, "application/x-amz-json-1.1": true,
	"application/xml": true, "text/html": true, "text/plain": true, "text/xml": true,
}

// requestID is the form of Cognito's request identifiers, a UUID.
var requestID = regexp.MustCompile(`^[0-9a-fA-F]{8}(-[0-9a-fA-F]{4}){3}-[0-9a-fA-F]{12}$`)

// describe makes a failure of an answer: what kind of text it is and which
// request it was (for AWS support), never what is in it.
func describe(resp *http.Response, class token.Class, what string, cause error) *token.Failure {
	message := fmt.Sprintf("%s %s (status %d", resp.Request.URL.Host, what, resp.StatusCode)
	if t, _, err := mime.ParseMediaType(resp.Header.Get("Content-Type")); err == nil && mediaTypes[t] {
		message += ", " + t
	}
	if id := resp.Header.Get("X-Amz-Cognito-Request-Id"); requestID.MatchString(id) {
		message += ", request " + id
	}
	return &token.Failure{
		Class:      class,
		Message:    message + ")",
		RetryAfter: retryAfter(resp.Header.Get("Retry-After"), resp.Header.Get("Date")),
		Cause:      cause,
	}
}

// retryAfter reads a Retry-After header, RFC 9110 section 10.2.3: seconds, or a
// date, which is compared with the server's own Date where there is one.
// token.MaxRetryAfter at most; 0 if there is none, it cannot be read, or it is over.
func retryAfter(value, date string) time.Duration {
	if seconds, err := strconv.ParseUint(value, 10, 63); err == nil {
		return time.Duration(min(seconds, uint64(token.MaxRetryAfter/time.Second))) * time.Second
	}
	at, err := http.ParseTime(value)
	if err != nil {
		return 0
	}
	now, err := http.ParseTime(date)
	if err != nil {
		now = time.Now()
	}
	return min(max(0, at.Sub(now)), token.MaxRetryAfter)
}

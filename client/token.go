package client

import (
	"fmt"
	"io"
	"log/slog"
	"time"
)

// Token is an access token and what a request to Smokeball needs beside it.
//
// It prints its ID and its end, and no secret, through fmt with any verb, slog,
// JSON and whatever else asks for its text. fmt does not ask the methods of what is
// in an unexported field: a struct that has a token in one should not be printed.
//
// A Token is shared by all who asked for it: do not change it.
type Token struct {
	// AccessToken is the credential itself: send it as "Authorization: Bearer …".
	// Secret. Never empty.
	AccessToken string
	// ID names the token without revealing it. It may be logged. Replace wants it.
	ID string
	// Scopes are those that were granted, sorted. Empty: the issuer did not say and
	// none were asked for, so that the token has every scope of the tenant's client.
	Scopes []string
	// Expires is when the token ends, by this process's clock: it is counted from
	// the token's receipt and does not depend on the wall clock being right as long
	// as its monotonic reading is kept. A source stops handing the token out a
	// minute earlier (a tenth of its life, if that is less).
	Expires time.Time
	// APIBaseURL is where to send requests with this token, the account's prefix
	// included, without a trailing slash.
	APIBaseURL string
	// APIKey is the value of the x-api-key header. Secret. Empty: none is registered.
	APIKey string
}

// String names the token and its end, and nothing that is secret.
func (t Token) String() string {
	return "token " + t.ID + " until " + t.Expires.UTC().Format(time.RFC3339)
}

// Format prints String for every verb and flag.
func (t Token) Format(f fmt.State, _ rune) { _, _ = io.WriteString(f, t.String()) }

// LogValue keeps what is secret out of slog records.
func (t Token) LogValue() slog.Value {
	return slog.GroupValue(slog.String("id", t.ID), slog.Time("expires", t.Expires.Round(0)))
}

// MarshalText keeps what is secret out of JSON, XML and YAML: there is String
// instead. A Token is not made to be stored or sent on.
func (t Token) MarshalText() ([]byte, error) { return []byte(t.String()), nil }

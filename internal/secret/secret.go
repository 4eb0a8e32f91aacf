// Package secret holds text that must never be seen: client secrets, API keys
// and access tokens on their way through the process.
package secret

import (
	"crypto/subtle"
	"fmt"
	"io"
	"log/slog"
)

const redacted = "[redacted]"

// Text is a string that shows itself as "[redacted]" wherever values are
// printed: fmt with any verb, slog, encoding/json, encoding/xml, text templates.
// Reveal is the only way to the string. The zero Text is empty.
//
// The string sits behind a pointer because fmt prints unexported fields of a
// surrounding struct without asking their methods; all it finds there is an
// address.
type Text struct{ p *string }

// New makes s a Text.
func New(s string) Text {
	if s == "" {
		return Text{}
	}
	return Text{&s}
}

// Reveal returns the string itself. Each call is a place to look at in a review.
func (t Text) Reveal() string {
	if t.p == nil {
		return ""
	}
	return *t.p
}

// IsZero says whether the text is empty.
func (t Text) IsZero() bool { return t.p == nil }

// Equal compares two texts in a time that depends on their lengths only.
func (t Text) Equal(u Text) bool {
	return subtle.ConstantTimeCompare([]byte(t.Reveal()), []byte(u.Reveal())) == 1
}

// Format prints "[redacted]" for every verb and flag, an empty text included.
func (t Text) Format(f fmt.State, _ rune) { _, _ = io.WriteString(f, redacted) }

// String returns "[redacted]".
func (t Text) String() string { return redacted }

// LogValue keeps the text out of slog records.
func (t Text) LogValue() slog.Value { return slog.StringValue(redacted) }

// MarshalText keeps the text out of JSON, XML and YAML.
func (t Text) MarshalText() ([]byte, error) { return []byte(redacted), nil }

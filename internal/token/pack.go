package token

import (
	"strings"

	"smokeball.internal/tokenbroker/internal/secret"
)

// Packed returns a copy of t with its text in one piece of memory, and all the rest in
// another. Whoever holds a hundred thousand tokens has the collector of garbage look at
// each piece again and again, and callers wait for each that is in no cache.
func (t Token) Packed() *Token {
	packed := &struct {
		Token
		accessToken string // Not a field of Token: fmt would print it.
	}{Token: t}
	text := strings.Join(append(append([]string{t.ID}, t.Scopes...), t.AccessToken.Reveal()), "")
	cut := func(n int) (part string) {
		part, text = text[:n], text[n:]
		return part
	}
	packed.ID = cut(len(t.ID))
	if len(t.Scopes) > 0 {
		packed.Scopes = make([]string, len(t.Scopes))
	}
	for i, scope := range t.Scopes {
		packed.Scopes[i] = cut(len(scope))
	}
	packed.accessToken = text
	packed.AccessToken = secret.At(&packed.accessToken)
	return &packed.Token
}

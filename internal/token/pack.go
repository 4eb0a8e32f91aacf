package token

import (
	"strings"

	"smokeball.internal/tokenbroker/internal/secret"
)

// Packed returns t with its text in one piece of memory. Whoever holds a hundred
// thousand tokens has the collector of garbage look at each piece again and again.
func (t Token) Packed() *Token {
	parts := append([]string{t.ID}, t.Scopes...)
	parts = append(parts, t.AccessToken.Reveal())
	all := strings.Join(parts, "")
	for i, part := range parts {
		parts[i], all = all[:len(part)], all[len(part):]
	}
	last := len(parts) - 1
	t.ID, t.AccessToken = parts[0], secret.At(&parts[last])
	if len(t.Scopes) > 0 {
		t.Scopes = parts[1:last:last]
	}
	return &t
}

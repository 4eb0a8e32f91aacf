package token

import (
	"crypto/sha256"
	"encoding/binary"
	"encoding/hex"
	"slices"
	"strings"

	"smokeball.internal/tokenbroker/internal/secret"
)

// Credential is what a token is bought with.
type Credential struct {
	// Endpoint is the URL of the token endpoint.
	Endpoint string
	// ClientID is the OAuth 2.0 client identifier.
	ClientID string
	// SecretID names the client secret without revealing it.
	SecretID string
	// Secret is the client secret.
	Secret secret.Text
	// Scopes to ask for, canonical. Empty: all scopes of the client.
	Scopes []string
}

// Key names the credential and scopes that a token belongs to. Two tenants that
// share a credential share a key, and so a token; a new secret is a new key.
type Key struct {
	// Endpoint, ClientID and SecretID are those of the credential.
	Endpoint, ClientID, SecretID string
	// Scope is the canonical scope parameter, RFC 6749 section 3.3.
	Scope string
}

// Key returns the key of the tokens bought with c.
func (c Credential) Key() Key {
	return Key{Endpoint: c.Endpoint, ClientID: c.ClientID, SecretID: c.SecretID, Scope: ScopeParam(c.Scopes)}
}

// Digest returns 64 hexadecimal digits that stand for k. Each part goes in
// behind its length, so that no two different keys have the same text, and the
// secret only as its SecretID.
func (k Key) Digest() string {
	h := sha256.New()
	for _, part := range []string{"tokenbroker/key/1", k.Endpoint, k.ClientID, k.SecretID, k.Scope} {
		h.Write(binary.BigEndian.AppendUint64(nil, uint64(len(part))))
		h.Write([]byte(part))
	}
	return hex.EncodeToString(h.Sum(nil))
}

// CanonicalScopes returns scopes sorted and each once; nil if there are none.
// The slice given is left as it is.
func CanonicalScopes(scopes []string) []string {
	if len(scopes) == 0 {
		return nil
	}
	sorted := slices.Clone(scopes)
	slices.Sort(sorted)
	return slices.Compact(sorted)
}

// ScopeParam returns canonical scopes as one scope parameter, RFC 6749 section
// 3.3. Scopes have no spaces in them.
func ScopeParam(scopes []string) string { return strings.Join(scopes, " ") }

package accesstest

import (
	"crypto/ecdsa"
	"encoding/base64"
	"encoding/json"
	"testing"
	"time"

	"github.com/go-jose/go-jose/v4"
	"github.com/go-jose/go-jose/v4/jwt"
)

// TokenIssuer issues JSON web tokens.
type TokenIssuer struct {
	t     testing.TB
	name  string
	keyID string
	key   *ecdsa.PrivateKey
}

// NewTokenIssuer returns an issuer with this name and a new key, which is called
// keyID.
func NewTokenIssuer(t testing.TB, name, keyID string) *TokenIssuer {
	t.Helper()
	return &TokenIssuer{t, name, keyID, newKey(t)}
}

// Claims returns the claims of a token for an hour.
func (i *TokenIssuer) Claims(subject, audience string) jwt.Claims {
	return jwt.Claims{
		Issuer: i.name, Subject: subject, Audience: jwt.Audience{audience},
		IssuedAt: jwt.NewNumericDate(time.Now()), Expiry: jwt.NewNumericDate(time.Now().Add(time.Hour)),
	}
}

// Sign returns a token with these claims.
func (i *TokenIssuer) Sign(claims any) string {
	i.t.Helper()
	signer, err := jose.NewSigner(jose.SigningKey{Algorithm: jose.ES256, Key: i.key},
		(&jose.SignerOptions{}).WithType("JWT").WithHeader("kid", i.keyID))
	if err != nil {
		i.t.Fatal(err)
	}
	token, err := jwt.Signed(signer).Claims(claims).Serialize()
	if err != nil {
		i.t.Fatal(err)
	}
	return token
}

// Unsigned returns a token with these claims whose algorithm is "none".
func Unsigned(t testing.TB, claims any) string {
	t.Helper()
	payload, err := json.Marshal(claims)
	if err != nil {
		t.Fatal(err)
	}
	return base64.RawURLEncoding.EncodeToString([]byte(`{"alg":"none","typ":"JWT"}`)) + "." + base64.RawURLEncoding.EncodeToString(payload) + "."
}

// JWKS returns the issuer's key set; with others, that of all.
func (i *TokenIssuer) JWKS(others ...*TokenIssuer) []byte {
	i.t.Helper()
	var set jose.JSONWebKeySet
	for _, issuer := range append([]*TokenIssuer{i}, others...) {
		set.Keys = append(set.Keys, jose.JSONWebKey{Key: issuer.key.Public(), KeyID: issuer.keyID, Use: "sig", Algorithm: string(jose.ES256)})
	}
	content, err := json.Marshal(set)
	if err != nil {
		i.t.Fatal(err)
	}
	return content
}

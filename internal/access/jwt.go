package access

import (
	"crypto"
	"crypto/ecdsa"
	"crypto/ed25519"
	"crypto/rsa"
	"crypto/sha256"
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"strings"
	"sync/atomic"
	"time"
	"unicode"
	"unicode/utf8"

	"github.com/go-jose/go-jose/v4"
	"github.com/go-jose/go-jose/v4/jwt"
	"github.com/jellydator/ttlcache/v3"
)

const (
	// What is longer than this is not looked at.
	maxToken   = 16 << 10
	maxSubject = 256
	maxKeys    = 100
	minRSABits = 2048
	// How far the clock of who issues a token may be ahead. A token that has expired
	// has expired.
	leeway = time.Minute
	// Tokens that were verified are remembered, since verifying one costs as much
	// as answering its call.
	remembered = 10_000
)

// algorithms are those of signatures that only the issuer can make: none with a
// secret that is shared, and not "none".
var algorithms = []jose.SignatureAlgorithm{
	jose.RS256, jose.RS384, jose.RS512, jose.PS256, jose.PS384, jose.PS512,
	jose.ES256, jose.ES384, jose.ES512, jose.EdDSA,
}

// Tokens verifies JSON web tokens (RFC 7519) of one issuer, for example a
// Kubernetes cluster's service-account tokens. It is safe for concurrent use.
type Tokens struct {
	issuer   string
	audience jwt.Audience
	keys     atomic.Pointer[keyring]
	missed   func()
}

// keyring is a set of the issuer's keys, and the callers whose tokens these have
// signed.
type keyring struct {
	number uint64
	keys   []jose.JSONWebKey
	bySum  map[string]bool // :: thumbprint
	known  *ttlcache.Cache[[sha256.Size]byte, *Caller]
}

// NewTokens returns a verifier of tokens that name this issuer and one of these
// audiences. It has no keys yet. missed is called when a token names a key that
// there is not, so that the keys can be looked up; it must return at once. nil: nothing is.
func NewTokens(issuer string, audiences []string, missed func()) *Tokens {
	if missed == nil {
		missed = func() {}
	}
	return &Tokens{issuer: issuer, audience: audiences, missed: missed}
}

// SetKeys sets the issuer's keys, a JWK set (RFC 7517). Tokens and open streams of keys that are
// not among them any more are refused from then on.
func (t *Tokens) SetKeys(jwks []byte) error {
	var set jose.JSONWebKeySet
	if err := json.Unmarshal(jwks, &set); err != nil {
		return errors.New("not a JWK set") // The error might quote it.
	}
	ring := &keyring{number: 1, bySum: map[string]bool{}}
	for n, key := range set.Keys {
		if key.Use != "" && key.Use != "sig" {
			continue
		}
		if err := usable(key); err != nil {
			return fmt.Errorf("key %d of the JWK set: %w", n+1, err)
		}
		sum, err := thumbprint(key)
		if err != nil {
			return fmt.Errorf("key %d of the JWK set has no thumbprint", n+1)
		}
		ring.keys, ring.bySum[sum] = append(ring.keys, key), true
	}
	switch {
	case len(ring.keys) == 0:
		return errors.New("the JWK set has no key for signatures in it")
	case len(ring.keys) > maxKeys:
		return fmt.Errorf("the JWK set has more than %d keys", maxKeys)
	}
	ring.known = ttlcache.New(ttlcache.WithCapacity[[sha256.Size]byte, *Caller](remembered), ttlcache.WithDisableTouchOnHit[[sha256.Size]byte, *Caller]())
	if before := t.keys.Load(); before != nil {
		ring.number = before.number + 1
	}
	t.keys.Store(ring)
	return nil
}

func usable(key jose.JSONWebKey) error {
	switch k := key.Key.(type) {
	case *rsa.PublicKey:
		if k.N.BitLen() < minRSABits {
			return fmt.Errorf("an RSA key must have %d bits", minRSABits)
		}
	case *ecdsa.PublicKey, ed25519.PublicKey:
	default:
		return errors.New("it must be a public RSA, EC or Ed25519 key; a private or shared one must not be here at all")
	}
	if !key.Valid() {
		return errors.New("it is not valid")
	}
	return nil
}

func thumbprint(key jose.JSONWebKey) (string, error) {
	sum, err := key.Thumbprint(crypto.SHA256)
	return base64.RawURLEncoding.EncodeToString(sum), err
}

// Reasons for which a token is refused. They go to the caller, and say nothing that the
// caller cannot read in the token.
var (
	errNoKeys    = errors.New("tokens cannot be verified yet: the keys of their issuer are not here")
	errMalformed = errors.New("the bearer token is not a signed JSON web token of an accepted algorithm")
	errSignature = errors.New("the bearer token is not signed by a key of the issuer")
	errIssuer    = errors.New("the bearer token is of another issuer")
	errAudience  = errors.New("the bearer token is meant for another audience")
	errExpired   = errors.New("the bearer token has expired")
	errNotYet    = errors.New("the bearer token is not valid yet")
	errClaims    = errors.New("the bearer token must have an expiry and a subject of printable characters")
)

// Caller returns who a token stands for: "jwt:" and its subject.
func (t *Tokens) Caller(raw string) (*Caller, error) {
	ring := t.keys.Load()
	if ring == nil {
		t.missed()
		return nil, errNoKeys
	}
	if len(raw) > maxToken {
		return nil, errMalformed
	}
	sum := sha256.Sum256([]byte(raw))
	now := time.Now()
	if item := ring.known.Get(sum); item != nil {
		return item.Value(), nil
	}
	c, err := t.verify(ring, raw, now)
	if err != nil {
		return nil, err
	}
	ring.known.Set(sum, c, c.expires.Sub(now))
	return c, nil
}

func (t *Tokens) verify(ring *keyring, raw string, now time.Time) (*Caller, error) {
	// Of the header of a signed token only the algorithm and the name of the key
	// are believed, the latter among the keys that are here.
	parsed, err := jwt.ParseSigned(raw, algorithms)
	if err != nil || len(parsed.Headers) != 1 {
		return nil, errMalformed
	}
	key, ok := ring.key(parsed.Headers[0].KeyID)
	if !ok {
		t.missed()
		return nil, errSignature
	}
	var claims jwt.Claims
	if parsed.Claims(key.Key, &claims) != nil {
		return nil, errSignature
	}
	switch {
	case claims.Issuer != t.issuer:
		return nil, errIssuer
	case claims.Expiry == nil || !nameable(claims.Subject):
		return nil, errClaims
	case !now.Before(claims.Expiry.Time()):
		return nil, errExpired
	}
	switch err := claims.ValidateWithLeeway(jwt.Expected{Issuer: t.issuer, AnyAudience: t.audience, Time: now}, leeway); {
	case errors.Is(err, jwt.ErrInvalidAudience):
		return nil, errAudience
	case errors.Is(err, jwt.ErrNotValidYet), errors.Is(err, jwt.ErrIssuedInTheFuture):
		return nil, errNotYet
	case err != nil:
		return nil, errClaims
	}
	sum, err := thumbprint(key)
	if err != nil {
		return nil, errSignature
	}
	c := &Caller{names: []string{"jwt:" + claims.Subject}, expires: claims.Expiry.Time(), keyID: sum, stands: t.stands}
	c.vouched.Store(ring.number)
	return c, nil
}

// key returns the key with this name; without a name, the only one.
func (r *keyring) key(id string) (jose.JSONWebKey, bool) {
	if id == "" && len(r.keys) == 1 {
		return r.keys[0], true
	}
	for _, key := range r.keys {
		if id != "" && key.KeyID == id {
			return key, true
		}
	}
	return jose.JSONWebKey{}, false
}

// nameable says whether a subject can stand in rules and records.
func nameable(subject string) bool {
	return subject != "" && len(subject) <= maxSubject && utf8.ValidString(subject) &&
		!strings.ContainsFunc(subject, func(r rune) bool { return r == ' ' || !unicode.IsPrint(r) })
}

// stands says whether the key that signed the caller's token is still the issuer's.
func (t *Tokens) stands(caller *Caller) error {
	ring := t.keys.Load()
	switch {
	case caller.vouched.Load() == ring.number:
		return nil
	case !ring.bySum[caller.keyID]:
		return errSignature
	}
	caller.vouched.Store(ring.number)
	return nil
}

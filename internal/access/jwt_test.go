package access_test

import (
	"crypto/rand"
	"crypto/rsa"
	"encoding/base64"
	"encoding/json"
	"errors"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/go-jose/go-jose/v4"
	"github.com/go-jose/go-jose/v4/jwt"

	"smokeball.internal/tokenbroker/internal/access"
	"smokeball.internal/tokenbroker/internal/access/accesstest"
)

const idp, audience, subject = "https://idp.example", "tokenbroker", "system:serviceaccount:billing:invoicer"

func tokens(t testing.TB, jwks []byte) *access.Tokens {
	t.Helper()
	tokens := access.NewTokens(idp, []string{audience, "second"}, nil)
	if err := tokens.SetKeys(jwks); err != nil {
		t.Fatal(err)
	}
	return tokens
}

func TestBearerTokens(t *testing.T) {
	issuer, stranger, namesake := accesstest.NewTokenIssuer(t, idp, "one"), accesstest.NewTokenIssuer(t, idp, "two"), accesstest.NewTokenIssuer(t, idp, "one")
	verify := tokens(t, issuer.JWKS())
	with := func(change func(*jwt.Claims)) string {
		claims := issuer.Claims(subject, audience)
		change(&claims)
		return issuer.Sign(claims)
	}
	good := with(func(*jwt.Claims) {})
	parts := strings.Split(good, ".")
	forged, _ := json.Marshal(issuer.Claims("system:admin", audience))
	shared, err := jose.NewSigner(jose.SigningKey{Algorithm: jose.HS256, Key: issuer.JWKS()}, (&jose.SignerOptions{}).WithHeader("kid", "one"))
	if err != nil {
		t.Fatal(err)
	}
	confused, err := jwt.Signed(shared).Claims(issuer.Claims(subject, audience)).Serialize()
	if err != nil {
		t.Fatal(err)
	}
	for name, test := range map[string]struct{ token, word string }{
		"good":                     {good, ""},
		"good, a second time":      {good, ""},
		"for another, too":         {with(func(c *jwt.Claims) { c.Audience = jwt.Audience{"vault", "second"} }), ""},
		"a clock that is ahead":    {with(func(c *jwt.Claims) { c.NotBefore = jwt.NewNumericDate(time.Now().Add(30 * time.Second)) }), ""},
		"expired":                  {with(func(c *jwt.Claims) { c.Expiry = jwt.NewNumericDate(time.Now()) }), "expired"},
		"without an end":           {with(func(c *jwt.Claims) { c.Expiry = nil }), "expiry"},
		"not yet valid":            {with(func(c *jwt.Claims) { c.NotBefore = jwt.NewNumericDate(time.Now().Add(2 * time.Minute)) }), "not valid yet"},
		"issued in the future":     {with(func(c *jwt.Claims) { c.IssuedAt = jwt.NewNumericDate(time.Now().Add(2 * time.Minute)) }), "not valid yet"},
		"another audience":         {with(func(c *jwt.Claims) { c.Audience = jwt.Audience{"vault"} }), "audience"},
		"no audience":              {with(func(c *jwt.Claims) { c.Audience = nil }), "audience"},
		"another issuer":           {with(func(c *jwt.Claims) { c.Issuer = idp + "/" }), "issuer"},
		"no subject":               {with(func(c *jwt.Claims) { c.Subject = "" }), "subject"},
		"a subject of two lines":   {with(func(c *jwt.Claims) { c.Subject = "a\nb" }), "subject"},
		"a subject with a space":   {with(func(c *jwt.Claims) { c.Subject = "a b" }), "subject"},
		"a long subject":           {with(func(c *jwt.Claims) { c.Subject = strings.Repeat("a", 257) }), "subject"},
		"a key that is not here":   {stranger.Sign(stranger.Claims(subject, audience)), "signed"},
		"a key of the same name":   {namesake.Sign(namesake.Claims(subject, audience)), "signed"},
		"not signed":               {accesstest.Unsigned(t, issuer.Claims(subject, audience)), "accepted algorithm"},
		"signed with a public key": {confused, "accepted algorithm"},
		"other claims":             {parts[0] + "." + base64.RawURLEncoding.EncodeToString(forged) + "." + parts[2], "signed"},
		"no signature":             {parts[0] + "." + parts[1] + ".", "sign"},
		"two parts":                {parts[0] + "." + parts[1], "JSON web token"},
		"none":                     {"", "JSON web token"},
		"too long":                 {good + strings.Repeat("a", 16<<10), "JSON web token"},
	} {
		t.Run(name, func(t *testing.T) {
			caller, err := verify.Caller(test.token)
			switch {
			case test.word == "" && (err != nil || caller.Principal() != "jwt:"+subject):
				t.Errorf("got %v, %v", caller, err)
			case test.word != "" && (err == nil || !strings.Contains(err.Error(), test.word)):
				t.Errorf("got %v, want an error about %q", err, test.word)
			case err != nil && (strings.Contains(err.Error(), "vault") || test.token != "" && strings.Contains(err.Error(), test.token)):
				t.Errorf("%q repeats the token", err)
			}
		})
	}
}

// A token that was verified before ends all the same, and with its key.
func TestAKnownTokenEnds(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		issuer, next := accesstest.NewTokenIssuer(t, idp, "one"), accesstest.NewTokenIssuer(t, idp, "two")
		verify := tokens(t, issuer.JWKS())
		token := issuer.Sign(issuer.Claims(subject, audience))
		guard := access.NewGuard(verify, nil)
		identify := func() error { _, err := guard.Identify(nil, []string{"Bearer " + token}); return err }
		if err := identify(); err != nil {
			t.Fatal(err)
		}
		time.Sleep(time.Hour - time.Second)
		if err := identify(); err != nil {
			t.Error(err)
		}
		time.Sleep(time.Second)
		if err := identify(); err == nil || !strings.Contains(err.Error(), "expired") {
			t.Errorf("got %v", err)
		}
		token = issuer.Sign(issuer.Claims(subject, audience))
		if err := identify(); err != nil {
			t.Error(err)
		}
		if err := verify.SetKeys(next.JWKS(issuer)); err != nil || identify() != nil {
			t.Errorf("beside another key: %v, %v", err, identify())
		}
		if err := verify.SetKeys(next.JWKS()); err != nil || identify() == nil {
			t.Errorf("without its key: %v, accepted", err)
		}
	})
}

func TestKeysThatMustNotBeThere(t *testing.T) {
	short, err := rsa.GenerateKey(rand.Reader, 1024)
	if err != nil {
		t.Fatal(err)
	}
	set := func(keys ...any) []byte {
		var s jose.JSONWebKeySet
		for _, key := range keys {
			s.Keys = append(s.Keys, jose.JSONWebKey{Key: key, KeyID: "k"})
		}
		content, err := json.Marshal(s)
		if err != nil {
			t.Fatal(err)
		}
		return content
	}
	issuer := accesstest.NewTokenIssuer(t, idp, "one")
	verify := tokens(t, issuer.JWKS())
	for name, jwks := range map[string][]byte{
		"a private key":  set(short),
		"a short key":    set(short.Public()),
		"a shared key":   set([]byte("planted-secret-planted-secret-planted")),
		"none":           set(),
		"no JSON":        []byte("planted"),
		"for encryption": []byte(`{"keys":[{"kty":"oct","use":"enc","k":"cGxhbnRlZA","kid":"x"}]}`),
	} {
		if err := verify.SetKeys(jwks); err == nil {
			t.Errorf("%s is taken", name)
		} else if strings.Contains(err.Error(), "planted") || strings.Contains(err.Error(), "cGxhbnRlZA") {
			t.Errorf("%s: %q tells a key", name, err)
		}
	}
	if _, err := verify.Caller(issuer.Sign(issuer.Claims(subject, audience))); err != nil {
		t.Errorf("what was there before is not in force: %v", err)
	}
}

// Keys that are not here yet are asked for, and callers may come again.
func TestMissingKeysAreAskedFor(t *testing.T) {
	missed := 0
	issuer, next := accesstest.NewTokenIssuer(t, idp, "one"), accesstest.NewTokenIssuer(t, idp, "two")
	verify := access.NewTokens(idp, []string{audience}, func() { missed++ })
	guard := access.NewGuard(verify, nil)
	_, err := guard.Identify(nil, []string{"bearer " + issuer.Sign(issuer.Claims(subject, audience))})
	var refused *access.Refused
	if !errors.As(err, &refused) || !refused.Temporary() || missed != 1 {
		t.Errorf("without keys: %v, asked for %d times", err, missed)
	}
	if err := verify.SetKeys(issuer.JWKS()); err != nil {
		t.Fatal(err)
	}
	_, err = guard.Identify(nil, []string{"bearer " + next.Sign(next.Claims(subject, audience))})
	if !errors.As(err, &refused) || refused.Temporary() || missed != 2 {
		t.Errorf("with another key: %v, asked for %d times", err, missed)
	}
}

func FuzzBearerToken(f *testing.F) {
	issuer := accesstest.NewTokenIssuer(f, idp, "one")
	verify := tokens(f, issuer.JWKS())
	good := issuer.Sign(issuer.Claims(subject, audience))
	f.Add(good)
	f.Add(accesstest.Unsigned(f, issuer.Claims(subject, audience)))
	f.Add(strings.Replace(good, ".", "..", 1))
	f.Add("eyJhbGciOiJFUzI1NiIsImtpZCI6Im9uZSJ9.e30.AAAA")
	f.Add("")
	f.Fuzz(func(t *testing.T, token string) {
		if caller, err := verify.Caller(token); err == nil && caller.Principal() != "jwt:"+subject {
			t.Errorf("%q is taken for one of %v", token, caller.Names())
		}
	})
}

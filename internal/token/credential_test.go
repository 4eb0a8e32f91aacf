package token_test

import (
	"encoding/hex"
	"math/rand/v2"
	"reflect"
	"slices"
	"strings"
	"testing"

	"smokeball.internal/tokenbroker/internal/secret"
	"smokeball.internal/tokenbroker/internal/token"
)

func TestScopesAreSortedAndEachThereOnce(t *testing.T) {
	for _, test := range []struct {
		name     string
		in, want []string
	}{
		{"none", nil, nil},
		{"an empty list is none", []string{}, nil},
		{"one", []string{"matters/read"}, []string{"matters/read"}},
		{"out of order", []string{"b", "c", "a"}, []string{"a", "b", "c"}},
		{"repeated", []string{"b", "a", "b", "a", "b"}, []string{"a", "b"}},
		{"case matters, RFC 6749 section 3.3", []string{"A", "a"}, []string{"A", "a"}},
	} {
		t.Run(test.name, func(t *testing.T) {
			before := slices.Clone(test.in)
			got := token.CanonicalScopes(test.in)
			if !reflect.DeepEqual(got, test.want) {
				t.Errorf("CanonicalScopes(%q) = %#v, want %#v", before, got, test.want)
			}
			if !slices.Equal(test.in, before) {
				t.Errorf("the caller's slice became %q", test.in)
			}
			if len(got) > 0 {
				got[0] = "changed"
				if !slices.Equal(test.in, before) {
					t.Error("the result shares the caller's slice")
				}
			}
			if got, want := token.ScopeParam(test.want), strings.Join(test.want, " "); got != want {
				t.Errorf("ScopeParam = %q, want %q", got, want)
			}
		})
	}
}

func TestDigestTellsEveryPartFromItsNeighbours(t *testing.T) {
	keys := []token.Key{
		{},
		{Endpoint: "ab", ClientID: "c"},
		{Endpoint: "a", ClientID: "bc"},
		{Endpoint: "abc"},
		{ClientID: "abc"},
		{SecretID: "abc"},
		{Scope: "abc"},
		{ClientID: "ab", SecretID: "c"},
		{ClientID: "a", SecretID: "bc"},
		{SecretID: "ab", Scope: "c"},
		{SecretID: "a", Scope: "bc"},
		{Endpoint: "a", ClientID: "b", SecretID: "c", Scope: "d"},
		{Endpoint: "d", ClientID: "c", SecretID: "b", Scope: "a"},
		{Endpoint: "a\x00\x00\x00\x00\x00\x00\x00\x01b"}, // the text a length prefix would have
		{Endpoint: "a", ClientID: "b"},
	}
	seen := map[string]token.Key{}
	for _, k := range keys {
		d := k.Digest()
		if raw, err := hex.DecodeString(d); err != nil || len(raw) != 32 {
			t.Errorf("Digest() = %q, want 64 hexadecimal digits", d)
		}
		if other, taken := seen[d]; taken {
			t.Errorf("%+v and %+v have the same digest", k, other)
		}
		seen[d] = k
	}
}

// Digests are the names of records that live longer than a process: one that changes orphans them, and a fleet in the
// middle of an upgrade would buy everything twice.
func TestDigestIsTheSameInEveryRelease(t *testing.T) {
	k := token.Key{Endpoint: "https://auth.smokeball.com/oauth2/token", ClientID: "acme", SecretID: "0123", Scope: "a b"}
	if got, want := k.Digest(), "b9f10e3d290599435f916d2d0bec9793732bdbc5a9406f47a5eb32deb06db2a0"; got != want {
		t.Errorf("Digest() = %s, want %s: if this is meant, change the version in it too", got, want)
	}
}

func TestKeyDependsOnTheSecretsNameAlone(t *testing.T) {
	c := token.Credential{
		Endpoint: "https://auth.smokeball.com/oauth2/token", ClientID: "acme", SecretID: "id-1",
		Secret: secret.New("planted-secret"), Scopes: []string{"a", "b"},
	}
	k := c.Key()
	if want := (token.Key{Endpoint: c.Endpoint, ClientID: "acme", SecretID: "id-1", Scope: "a b"}); k != want {
		t.Errorf("Key() = %+v, want %+v", k, want)
	}
	other := c
	other.Secret = secret.New("quite another")
	if other.Key() != k || other.Key().Digest() != k.Digest() {
		t.Error("the secret itself went into the key")
	}
	other.SecretID = "id-2"
	if other.Key().Digest() == k.Digest() {
		t.Error("a new secret has the key of the old one, so the old one's token would live on")
	}
}

func TestTokenIDNamesATokenWithoutShowingIt(t *testing.T) {
	const accessToken = "eyJhbGciOi.payload.signature"
	id := token.ID(secret.New(accessToken))
	// sha256sum of the text, its first half.
	if want := "98b38dcaa2e2028d2e565fe8fc382733"; id != want {
		t.Errorf("ID = %s, want %s", id, want)
	}
	if token.ID(secret.New(accessToken+"x")) == id {
		t.Error("two tokens have the same ID")
	}
}

func FuzzCanonicalScopes(f *testing.F) {
	f.Add("", uint64(0))
	f.Add("b a", uint64(1))
	f.Add("matters/read documents/write matters/read", uint64(2))
	f.Add("é \xff \x00  A a", uint64(3))
	f.Fuzz(func(t *testing.T, text string, seed uint64) {
		scopes := strings.Split(text, " ")
		canonical := token.CanonicalScopes(scopes)
		if again := token.CanonicalScopes(canonical); !slices.Equal(again, canonical) {
			t.Errorf("not idempotent: %q, then %q", canonical, again)
		}
		shuffled := slices.Concat(scopes, scopes[:len(scopes)/2]) // repeats some, too
		rand.New(rand.NewPCG(seed, 0)).Shuffle(len(shuffled), func(i, j int) {
			shuffled[i], shuffled[j] = shuffled[j], shuffled[i]
		})
		if got := token.CanonicalScopes(shuffled); !slices.Equal(got, canonical) {
			t.Errorf("depends on the order: %q and %q", got, canonical)
		}
		for _, s := range scopes {
			if !slices.Contains(canonical, s) {
				t.Errorf("%q was lost", s)
			}
		}
		for i := 1; i < len(canonical); i++ {
			if canonical[i-1] >= canonical[i] {
				t.Errorf("%q is not strictly rising", canonical)
			}
		}
	})
}

// The same text, cut at two sets of places, must be two different keys.
func FuzzDigestBoundaries(f *testing.F) {
	f.Add("abc", uint8(2), uint8(3), uint8(3), uint8(1), uint8(3), uint8(3))
	f.Add("https://auth.smokeball.comacmescope", uint8(26), uint8(30), uint8(30), uint8(26), uint8(28), uint8(30))
	f.Add("\x00\x00\x00\x00\x00\x00\x00\x01a", uint8(0), uint8(8), uint8(9), uint8(8), uint8(8), uint8(9))
	f.Fuzz(func(t *testing.T, text string, a, b, c, d, e, g uint8) {
		cut := func(places ...uint8) token.Key {
			ends := make([]int, len(places))
			for i, p := range places {
				ends[i] = int(p) % (len(text) + 1)
			}
			slices.Sort(ends)
			return token.Key{
				Endpoint: text[:ends[0]], ClientID: text[ends[0]:ends[1]],
				SecretID: text[ends[1]:ends[2]], Scope: text[ends[2]:],
			}
		}
		one, two := cut(a, b, c), cut(d, e, g)
		if same := one.Digest() == two.Digest(); same != (one == two) {
			t.Errorf("%+v and %+v: same digest %v", one, two, same)
		}
	})
}

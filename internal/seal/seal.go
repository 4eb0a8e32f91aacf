// Package seal encrypts what is kept at rest, with Tink. What is sealed opens
// only under the name it was sealed for, so that a record moved to another place
// is refused there.
package seal

import (
	"encoding/hex"
	"errors"
	"fmt"

	"github.com/tink-crypto/tink-go/v2/aead"
	"github.com/tink-crypto/tink-go/v2/keyset"
	"github.com/tink-crypto/tink-go/v2/prf"
	"github.com/tink-crypto/tink-go/v2/tink"

	"smokeball.internal/tokenbroker/internal/secret"
)

// ErrUnreadable says that the bytes were not sealed for this name, were changed, or were
// sealed with a key that this keyset does not have.
var ErrUnreadable = errors.New("sealed record cannot be opened")

// Keyset seals and opens, and gives secrets names. It is safe for concurrent
// use.
type Keyset struct {
	aead tink.AEAD
	prf  *prf.Set
}

// newKeyset makes the primitives of the two handles: AEAD keys, of which the
// primary seals and all open, and the one PRF key.
func newKeyset(sealing, naming *keyset.Handle) (*Keyset, error) {
	a, err := aead.New(sealing)
	if err != nil {
		return nil, fmt.Errorf("aead keys: %w", err)
	}
	p, err := prf.NewPRFSet(naming)
	if err != nil {
		return nil, fmt.Errorf("prf key: %w", err)
	}
	return &Keyset{a, p}, nil
}

// Seal encrypts plaintext for the place called name. What it returns differs
// each time.
func (k *Keyset) Seal(plaintext []byte, name string) ([]byte, error) {
	return k.aead.Encrypt(plaintext, []byte(name))
}

// Open decrypts what Seal made for name; else the error is ErrUnreadable.
func (k *Keyset) Open(sealed []byte, name string) ([]byte, error) {
	plaintext, err := k.aead.Decrypt(sealed, []byte(name))
	if err != nil {
		return nil, ErrUnreadable
	}
	return plaintext, nil
}

// Name returns 32 hexadecimal digits that stand for s: the same for the same
// text and keyset file, and of no use for guessing it without the keyset. It
// does not change when the keyset is rotated. No text has no name: "".
func (k *Keyset) Name(s secret.Text) (string, error) {
	if s.IsZero() {
		return "", nil
	}
	out, err := k.prf.ComputePrimaryPRF([]byte(s.Reveal()), 16)
	if err != nil {
		return "", fmt.Errorf("name a secret: %w", err)
	}
	return hex.EncodeToString(out), nil
}

// Package seal encrypts what is kept at rest, with Tink. What is sealed opens
// only under the name it was sealed for, so that a record moved to another place
// is refused there.
package seal

import (
	"encoding/hex"
	"errors"
	"fmt"
	"slices"
	"sync/atomic"
	"time"

	"smokeball.internal/tokenbroker/internal/secret"
)

// ErrUnreadable says that the bytes were not sealed for this name, were changed, or were
// sealed with a key that this keyset does not have.
var ErrUnreadable = errors.New("sealed record cannot be opened")

// Errors of Replace.
var (
	// ErrKeyMissing: what is sealed now could not be opened any more.
	ErrKeyMissing = errors.New("the other keyset lacks the key that seals now: what is stored could not be opened with it")
	// ErrOtherNames: every secret would have another name, and every token be bought
	// again. The other keyset is not a version of this one.
	ErrOtherNames = errors.New("the other keyset gives secrets other names: it was not made from this one")
)

// Keyset seals and opens, and gives secrets names. It is safe for concurrent
// use.
type Keyset struct{ keys atomic.Pointer[keys] }

// Seal encrypts plaintext for the place called name, with the key that seals
// now. What it returns differs each time.
func (k *Keyset) Seal(plaintext []byte, name string) ([]byte, error) {
	sealer, _ := k.keys.Load().seals(time.Now())
	return sealer.Encrypt(plaintext, []byte(name))
}

// Open decrypts what Seal made for name; else the error is ErrUnreadable. It
// tells if that is for lack of the key.
func (k *Keyset) Open(sealed []byte, name string) ([]byte, error) {
	keys := k.keys.Load()
	plaintext, err := keys.all.Decrypt(sealed, []byte(name))
	if err != nil {
		if id, ok := keyOf(sealed); ok && !slices.Contains(keys.ids, id) {
			return nil, fmt.Errorf("%w: there is no key %d in the keyset", ErrUnreadable, id)
		}
		return nil, ErrUnreadable
	}
	return plaintext, nil
}

// Current says whether sealed is marked as sealed with the key that seals now.
// Whether it opens is for Open to tell.
func (k *Keyset) Current(sealed []byte) bool {
	_, now := k.keys.Load().seals(time.Now())
	id, ok := keyOf(sealed)
	return ok && id == now
}

// Name returns 32 hexadecimal digits that stand for s: the same for the same
// text and keyset file, and of no use for guessing it without the keyset. It
// does not change when the keyset is rotated. No text has no name: "".
func (k *Keyset) Name(s secret.Text) (string, error) {
	if s.IsZero() {
		return "", nil
	}
	out, err := k.keys.Load().name(s.Reveal())
	if err != nil {
		return "", fmt.Errorf("name a secret: %w", err)
	}
	return hex.EncodeToString(out), nil
}

// Replace has k seal, open and give names with the keys of another keyset from
// now on, while it is in use. The other keyset must open what k seals now, and
// give the same names; else the error is ErrKeyMissing or ErrOtherNames, and k
// stays as it is. Older keys may be gone, and a key that does not seal yet: that
// nothing is sealed with them is for whoever removed them to know.
func (k *Keyset) Replace(with *Keyset) error {
	next := with.keys.Load()
	for {
		now := k.keys.Load()
		if err := now.mayBecome(next); err != nil {
			return err
		}
		if k.keys.CompareAndSwap(now, next) {
			return nil
		}
	}
}

// Status says which keys do what. There is nothing secret in it.
type Status struct {
	// Keys are the ids of the keys that open, in the order in which they were added.
	Keys []uint32
	// Seals is the id of the one that seals now.
	Seals uint32
	// Next is the id of the one that is to seal from Since on; 0: there is none.
	Next uint32
	// Since is when the newest key began to seal, or will. Zero: it is the first, or
	// those before it were pruned.
	Since time.Time
	// KMSKeyURI names the key that the keyset file is encrypted with; empty: it is not.
	KMSKeyURI string
}

// Status returns how things are now.
func (k *Keyset) Status() Status {
	keys := k.keys.Load()
	s := Status{Keys: slices.Clone(keys.ids), Since: keys.since, KMSKeyURI: keys.kmsKeyURI}
	if _, s.Seals = keys.seals(time.Now()); s.Seals != keys.newest {
		s.Next = keys.newest
	}
	return s
}

package seal

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"time"

	"github.com/tink-crypto/tink-go/v2/aead"
	"github.com/tink-crypto/tink-go/v2/core/cryptofmt"
	"github.com/tink-crypto/tink-go/v2/keyset"
	"github.com/tink-crypto/tink-go/v2/prf"
	"github.com/tink-crypto/tink-go/v2/tink"

	tinkpb "github.com/tink-crypto/tink-go/v2/proto/tink_go_proto"
)

// keys are what is made of the content of a keyset file. They do not change.
type keys struct {
	all       tink.AEAD // opens with every key, and seals with the newest
	newest    uint32
	before    tink.AEAD // seals with the key before the newest; nil: none is known
	previous  uint32
	since     time.Time // the newest seals from then on, and until then the one before
	ids       []uint32  // of those that open
	prf       *prf.Set
	kmsKeyURI string
}

// newKeys makes the primitives: AEAD keys, of which one seals and all open, and
// the one PRF key.
func newKeys(c *content) (*keys, error) {
	k := &keys{kmsKeyURI: c.kmsKeyURI}
	info := c.sealing.KeysetInfo()
	k.newest = info.GetPrimaryKeyId()
	for _, key := range info.GetKeyInfo() {
		if key.GetOutputPrefixType() != tinkpb.OutputPrefixType_TINK {
			return nil, errors.New("what an aead key seals does not say which key it was")
		}
		if key.GetStatus() == tinkpb.KeyStatusType_ENABLED {
			k.ids = append(k.ids, key.GetKeyId())
		}
	}
	var err error
	if k.all, err = aead.New(c.sealing); err != nil {
		return nil, fmt.Errorf("aead keys: %w", err)
	}
	if k.prf, err = prf.NewPRFSet(c.naming); err != nil {
		return nil, fmt.Errorf("prf key: %w", err)
	}
	if c.rotation == nil {
		return k, nil
	}
	k.previous, k.since = c.rotation.Previous, c.rotation.Effective
	earlier := keyset.NewManagerFromHandle(c.sealing)
	if err := earlier.SetPrimary(k.previous); err != nil {
		return nil, fmt.Errorf("the key before: %w", err)
	}
	handle, err := earlier.Handle()
	if err != nil {
		return nil, fmt.Errorf("the key before: %w", err)
	}
	if k.before, err = aead.New(handle); err != nil {
		return nil, fmt.Errorf("the key before: %w", err)
	}
	return k, nil
}

// seals returns what seals at a moment, and the id of its key.
func (k *keys) seals(at time.Time) (tink.AEAD, uint32) {
	if k.before != nil && at.Before(k.since) {
		return k.before, k.previous
	}
	return k.all, k.newest
}

func (k *keys) name(text string) ([]byte, error) { return k.prf.ComputePrimaryPRF([]byte(text), 16) }

// mayBecome tries whether next can take over from k. What it seals and names is
// kept nowhere.
func (k *keys) mayBecome(next *keys) error {
	const probe = "replace"
	name, err := k.name(probe)
	if err != nil {
		return err
	}
	other, err := next.name(probe)
	if err != nil {
		return err
	}
	if !bytes.Equal(name, other) {
		return ErrOtherNames
	}
	sealer, _ := k.seals(time.Now())
	sealed, err := sealer.Encrypt(nil, []byte(probe))
	if err != nil {
		return err
	}
	if _, err := next.all.Decrypt(sealed, []byte(probe)); err != nil {
		return ErrKeyMissing
	}
	return nil
}

// keyOf returns the id of the key that sealed is marked with, as Tink does it: a
// byte that says so, and the id.
func keyOf(sealed []byte) (id uint32, ok bool) {
	if len(sealed) < cryptofmt.TinkPrefixSize || sealed[0] != cryptofmt.TinkStartByte {
		return 0, false
	}
	return binary.BigEndian.Uint32(sealed[1:cryptofmt.TinkPrefixSize]), true
}

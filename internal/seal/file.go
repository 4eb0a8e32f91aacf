package seal

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"time"

	"github.com/tink-crypto/tink-go/v2/aead"
	"github.com/tink-crypto/tink-go/v2/keyset"
	"github.com/tink-crypto/tink-go/v2/prf"
)

// file is the form of a keyset file: two Tink keysets in Tink's JSON form, in the
// clear or, if a KMS is named, encrypted.
type file struct {
	// KMSKeyURI names the key that encrypts the two; empty: they are in the clear.
	KMSKeyURI string `json:"kms_key_uri,omitempty"`
	// Aead seals records. Rotation adds a key and makes it primary.
	Aead json.RawMessage `json:"aead"`
	// Prf names secrets. It stays as it is, since the names are part of the
	// keys that tokens are kept under.
	Prf json.RawMessage `json:"prf"`
	// Rotation is the last rotation; nil: there was none, or it is over for good.
	Rotation *rotation `json:"rotation,omitempty"`
}

// rotation says which key seals until the primary one does. It is not encrypted:
// whoever can write the file can put other keys in it.
type rotation struct {
	Previous  uint32    `json:"previous_key_id"`
	Effective time.Time `json:"effective_time"`
}

// content is what is in a keyset file.
type content struct {
	sealing, naming *keyset.Handle
	rotation        *rotation
	kmsKeyURI       string
}

// Load reads the keyset at path. Its errors say nothing of what is in the file.
// If the file is encrypted, a KMS is asked, for ten seconds at most.
func Load(ctx context.Context, path string) (*Keyset, error) {
	b, err := os.ReadFile(path)
	if err != nil {
		return nil, err
	}
	return Parse(ctx, path, b)
}

// Parse is Load for what was read from a file. name is what errors call it.
func Parse(ctx context.Context, name string, b []byte) (*Keyset, error) {
	_, k, err := parse(ctx, name, b)
	return k, err
}

// Ephemeral returns a fresh keyset that is kept nowhere.
func Ephemeral() (*Keyset, error) {
	c, err := fresh()
	if err != nil {
		return nil, err
	}
	return c.keyset()
}

func fresh() (*content, error) {
	sealing, err := keyset.NewHandle(aead.AES256GCMKeyTemplate())
	if err != nil {
		return nil, err
	}
	naming, err := keyset.NewHandle(prf.HMACSHA256PRFKeyTemplate())
	if err != nil {
		return nil, err
	}
	return &content{sealing: sealing, naming: naming}, nil
}

func (c *content) keyset() (*Keyset, error) {
	keys, err := newKeys(c)
	if err != nil {
		return nil, err
	}
	k := &Keyset{}
	k.keys.Store(keys)
	return k, nil
}

// parse returns what is in a file, and the keyset it makes, so that nobody builds
// on keys that cannot be used. Tink's errors are not passed on: they quote what
// they could not read.
func parse(ctx context.Context, name string, b []byte) (*content, *Keyset, error) {
	var f file
	if json.Unmarshal(b, &f) != nil || f.Aead == nil || f.Prf == nil {
		return nil, nil, fmt.Errorf("keyset %s: not a file made by \"tokenbroker keyset new\"", name)
	}
	c := &content{rotation: f.Rotation, kmsKeyURI: f.KMSKeyURI}
	ctx, cancel := context.WithTimeout(ctx, kmsTimeout)
	defer cancel()
	key, err := newKMSKey(ctx, f.KMSKeyURI)
	if err != nil {
		return nil, nil, fmt.Errorf("keyset %s: %w", name, err)
	}
	for _, part := range []struct {
		name   string
		json   json.RawMessage
		handle **keyset.Handle
	}{{"aead", f.Aead, &c.sealing}, {"prf", f.Prf, &c.naming}} {
		*part.handle, err = key.read(ctx, keyset.NewJSONReader(bytes.NewReader(part.json)))
		switch refused := new(KMSError); {
		case errors.As(err, &refused):
			return nil, nil, fmt.Errorf("keyset %s: its %q part cannot be decrypted: %w", name, part.name, refused)
		case err != nil:
			return nil, nil, fmt.Errorf("keyset %s: its %q part is damaged", name, part.name)
		}
	}
	k, err := c.keyset()
	if err != nil {
		return nil, nil, fmt.Errorf("keyset %s: its keys are not of the kinds that \"tokenbroker keyset new\" makes, or one is missing", name)
	}
	return c, k, nil
}

// encode returns the content of a file, encrypted if a KMS is named.
func (c *content) encode(ctx context.Context) ([]byte, error) {
	ctx, cancel := context.WithTimeout(ctx, kmsTimeout)
	defer cancel()
	key, err := newKMSKey(ctx, c.kmsKeyURI)
	if err != nil {
		return nil, err
	}
	f := file{KMSKeyURI: c.kmsKeyURI, Rotation: c.rotation}
	for _, part := range []struct {
		handle *keyset.Handle
		json   *json.RawMessage
	}{{c.sealing, &f.Aead}, {c.naming, &f.Prf}} {
		var b bytes.Buffer
		if err := key.write(ctx, part.handle, keyset.NewJSONWriter(&b)); err != nil {
			return nil, err
		}
		*part.json = b.Bytes()
	}
	b, err := json.MarshalIndent(f, "", "  ")
	return append(b, '\n'), err
}

package seal

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"

	"github.com/tink-crypto/tink-go/v2/aead"
	"github.com/tink-crypto/tink-go/v2/insecurecleartextkeyset"
	"github.com/tink-crypto/tink-go/v2/keyset"
	"github.com/tink-crypto/tink-go/v2/prf"
)

// file is the form of a keyset file: two Tink keysets in Tink's JSON form.
type file struct {
	// Aead seals records. Rotation adds a key and makes it primary.
	Aead json.RawMessage `json:"aead"`
	// Prf names secrets. It stays as it is, since the names are part of the
	// keys that tokens are kept under.
	Prf json.RawMessage `json:"prf"`
}

// Create writes a fresh keyset to path, readable by its owner only. It refuses
// to write over anything.
func Create(path string) error {
	sealing, naming, err := fresh()
	if err != nil {
		return err
	}
	content, err := encode(sealing, naming)
	if err != nil {
		return err
	}
	f, err := os.OpenFile(path, os.O_WRONLY|os.O_CREATE|os.O_EXCL, 0o600)
	if errors.Is(err, fs.ErrExist) {
		return fmt.Errorf("%s exists: a keyset is never written over, since what it sealed would be lost", path)
	}
	if err != nil {
		return err
	}
	if err := finish(f, content); err != nil {
		return err
	}
	return syncDir(path)
}

// Rotate adds a key to the keyset at path and makes it the one that seals. The
// keys before it stay and open what they sealed. The file is replaced at once or
// not at all; it keeps its mode and its owner. Two rotations at the same time are
// one too many: the key that one of them adds may be lost.
//
// Who has the file from before cannot open what is sealed after.
func Rotate(path string) error {
	path, err := filepath.EvalSymlinks(path) // The file is replaced, not the link to it.
	if err != nil {
		return err
	}
	info, err := os.Stat(path)
	if err != nil {
		return err
	}
	sealing, naming, _, err := read(path)
	if err != nil {
		return err
	}
	manager := keyset.NewManagerFromHandle(sealing)
	id, err := manager.Add(aead.AES256GCMKeyTemplate())
	if err != nil {
		return err
	}
	if err := manager.SetPrimary(id); err != nil {
		return err
	}
	if sealing, err = manager.Handle(); err != nil {
		return err
	}
	content, err := encode(sealing, naming)
	if err != nil {
		return err
	}
	f, err := os.CreateTemp(filepath.Dir(path), filepath.Base(path)+".new-*")
	if err != nil {
		return err
	}
	if err := errors.Join(f.Chmod(info.Mode().Perm()), keepOwner(f, info), finish(f, content)); err != nil {
		return err
	}
	if err := os.Rename(f.Name(), path); err != nil {
		return errors.Join(err, os.Remove(f.Name()))
	}
	return syncDir(path)
}

// Load reads the keyset at path. Its errors say nothing of what is in the file.
func Load(path string) (*Keyset, error) {
	_, _, k, err := read(path)
	return k, err
}

// Ephemeral returns a fresh keyset that is kept nowhere.
func Ephemeral() (*Keyset, error) {
	sealing, naming, err := fresh()
	if err != nil {
		return nil, err
	}
	return newKeyset(sealing, naming)
}

func fresh() (sealing, naming *keyset.Handle, err error) {
	if sealing, err = keyset.NewHandle(aead.AES256GCMKeyTemplate()); err != nil {
		return nil, nil, err
	}
	naming, err = keyset.NewHandle(prf.HMACSHA256PRFKeyTemplate())
	return sealing, naming, err
}

// read returns the two handles in the file at path and the keyset they make, so
// that Rotate does not build on keys that cannot be used. Tink's errors are not
// passed on: they quote what they could not read.
func read(path string) (sealing, naming *keyset.Handle, k *Keyset, err error) {
	content, err := os.ReadFile(path)
	if err != nil {
		return nil, nil, nil, err
	}
	var f file
	if json.Unmarshal(content, &f) != nil || f.Aead == nil || f.Prf == nil {
		return nil, nil, nil, fmt.Errorf("keyset %s: not a file made by \"tokenbroker keyset new\"", path)
	}
	for _, part := range []struct {
		name   string
		json   json.RawMessage
		handle **keyset.Handle
	}{{"aead", f.Aead, &sealing}, {"prf", f.Prf, &naming}} {
		*part.handle, err = insecurecleartextkeyset.Read(keyset.NewJSONReader(bytes.NewReader(part.json)))
		if err != nil {
			return nil, nil, nil, fmt.Errorf("keyset %s: its %q part is damaged", path, part.name)
		}
	}
	if k, err = newKeyset(sealing, naming); err != nil {
		return nil, nil, nil, fmt.Errorf("keyset %s: its keys are not of the kinds that \"tokenbroker keyset new\" makes", path)
	}
	return sealing, naming, k, nil
}

func encode(sealing, naming *keyset.Handle) ([]byte, error) {
	var a, p bytes.Buffer
	if err := insecurecleartextkeyset.Write(sealing, keyset.NewJSONWriter(&a)); err != nil {
		return nil, err
	}
	if err := insecurecleartextkeyset.Write(naming, keyset.NewJSONWriter(&p)); err != nil {
		return nil, err
	}
	return json.MarshalIndent(file{a.Bytes(), p.Bytes()}, "", "  ")
}

// finish writes content to f and closes it, or removes f. The content is durable
// then; the file's name is not before syncDir.
func finish(f *os.File, content []byte) error {
	_, err := f.Write(append(content, '\n'))
	err = errors.Join(err, f.Sync(), f.Close())
	if err != nil {
		return errors.Join(err, os.Remove(f.Name()))
	}
	return nil
}

func syncDir(path string) error {
	dir, err := os.Open(filepath.Dir(path))
	if err != nil {
		return err
	}
	return errors.Join(dir.Sync(), dir.Close())
}

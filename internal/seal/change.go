package seal

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"time"

	"github.com/tink-crypto/tink-go/v2/aead"
	"github.com/tink-crypto/tink-go/v2/keyset"
)

// Settle is how long the newest key must have been sealing before those before it
// are removed: the clocks of replicas that read the same file differ by less.
const Settle = 10 * time.Minute

// Create writes a fresh keyset to path, readable by its owner only, and encrypted
// with a key of a KMS unless kmsKeyURI is empty. It refuses to write over anything.
func Create(ctx context.Context, path, kmsKeyURI string) error {
	c, err := fresh()
	if err != nil {
		return err
	}
	c.kmsKeyURI = kmsKeyURI
	b, err := c.encode(ctx)
	if err != nil {
		return fmt.Errorf("keyset %s: %w", path, err)
	}
	f, err := os.OpenFile(path, os.O_WRONLY|os.O_CREATE|os.O_EXCL, 0o600)
	if errors.Is(err, fs.ErrExist) {
		return fmt.Errorf("%s exists: a keyset is never written over, since what it sealed would be lost", path)
	}
	if err != nil {
		return err
	}
	if err := finish(f, b); err != nil {
		return err
	}
	return syncDir(path)
}

// Rotate adds a key to the keyset at path, which seals once effectiveIn has
// passed. Until then the key before it seals, and whoever has the file opens what
// either sealed: so the file can be given to one replica after the other. A
// replica whose clock is behind seals with the key before for as much longer,
// and the others open that. Whoever has the file from before cannot open what the
// new key seals.
//
// It is refused while the key of the last rotation does not seal yet. It returns
// when the new key seals, to the second.
func Rotate(ctx context.Context, path string, effectiveIn time.Duration) (effective time.Time, err error) {
	if effectiveIn < 0 {
		return time.Time{}, errors.New("a key cannot seal from before it was made")
	}
	err = change(ctx, path, func(c *content, k *Keyset) error {
		if err := k.settled(0); err != nil {
			return err
		}
		manager := keyset.NewManagerFromHandle(c.sealing)
		id, err := manager.Add(aead.AES256GCMKeyTemplate())
		if err != nil {
			return err
		}
		if err := manager.SetPrimary(id); err != nil {
			return err
		}
		effective = time.Now().UTC().Add(effectiveIn).Truncate(time.Second)
		c.rotation = &rotation{k.Status().Seals, effective}
		c.sealing, err = manager.Handle()
		return err
	})
	return effective, err
}

// Prune removes every key from the keyset at path but the one that seals, and
// returns the ids of those that it removed. What they sealed cannot be opened any
// more, by whoever reads the file then: look is given the keyset as it still is,
// and nothing is removed if it returns an error.
//
// It is refused until the key has been sealing for as long as Settle says.
func Prune(ctx context.Context, path string, look func(*Keyset) error) (removed []uint32, err error) {
	err = change(ctx, path, func(c *content, k *Keyset) error {
		if err := k.settled(Settle); err != nil {
			return err
		}
		if c.sealing.Len() == 1 {
			return errUnchanged
		}
		if err := look(k); err != nil {
			return err
		}
		manager := keyset.NewManagerFromHandle(c.sealing)
		for _, key := range c.sealing.KeysetInfo().GetKeyInfo() {
			if id := key.GetKeyId(); id != k.Status().Seals {
				if err := manager.Delete(id); err != nil {
					return err
				}
				removed = append(removed, id)
			}
		}
		c.rotation = nil
		c.sealing, err = manager.Handle()
		return err
	})
	if err != nil {
		removed = nil
	}
	return removed, err
}

// Wrap encrypts the keyset at path with a key of a KMS, in place of another or of
// none. The keys stay the same: copies of the file as it was still open what is
// stored.
func Wrap(ctx context.Context, path, kmsKeyURI string) error {
	return change(ctx, path, func(c *content, _ *Keyset) error {
		c.kmsKeyURI = kmsKeyURI
		return nil
	})
}

// settled returns an error unless the newest key has been sealing for this long.
func (k *Keyset) settled(howLong time.Duration) error {
	s := k.Status()
	since := s.Since.UTC().Format(time.RFC3339)
	switch {
	case s.Next != 0:
		return fmt.Errorf("the last rotation is not in effect yet: its key seals from %s on", since)
	case time.Since(s.Since) < howLong:
		return fmt.Errorf("its newest key seals since %s only: replicas whose clocks are behind may still seal with the one before, so wait until %v have passed", since, howLong)
	}
	return nil
}

// errUnchanged is for change: the file stays as it is, and that is no error.
var errUnchanged = errors.New("unchanged")

// change has something changed in the keyset at path. The file is replaced at
// once or not at all; it keeps its mode and its owner. Of two changes at the same
// time the second is refused, where the system can tell (see lock).
func change(ctx context.Context, path string, do func(*content, *Keyset) error) error {
	path, err := filepath.EvalSymlinks(path) // The file is replaced, not the link to it.
	if err != nil {
		return err
	}
	unlock, err := lock(path)
	if err != nil {
		return err
	}
	defer unlock()
	info, err := os.Stat(path)
	if err != nil {
		return err
	}
	b, err := os.ReadFile(path)
	if err != nil {
		return err
	}
	c, k, err := parse(ctx, path, b)
	if err != nil {
		return err
	}
	switch err := do(c, k); {
	case errors.Is(err, errUnchanged):
		return nil
	case err != nil:
		return fmt.Errorf("keyset %s: %w", path, err)
	}
	if b, err = c.encode(ctx); err != nil {
		return fmt.Errorf("keyset %s: %w", path, err)
	}
	if _, _, err := parse(ctx, path, b); err != nil {
		return err // What cannot be read again does not replace what can.
	}
	return replace(path, info, b)
}

// replace puts a file in the place of another, of which info tells.
func replace(path string, info fs.FileInfo, b []byte) error {
	f, err := os.CreateTemp(filepath.Dir(path), filepath.Base(path)+".new-*")
	if err != nil {
		return err
	}
	if err := errors.Join(f.Chmod(info.Mode().Perm()), keepOwner(f, info), finish(f, b)); err != nil {
		return err
	}
	if err := os.Rename(f.Name(), path); err != nil {
		return errors.Join(err, os.Remove(f.Name()))
	}
	return syncDir(path)
}

// finish writes content to f and closes it, or removes f. The content is durable
// then; the file's name is not before syncDir.
func finish(f *os.File, content []byte) error {
	_, err := f.Write(content)
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

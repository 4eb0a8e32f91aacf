//go:build darwin || dragonfly || freebsd || linux || netbsd || openbsd

package seal

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"syscall"
)

// lock keeps others that do the same from changing the file at path, until the
// function that it returns is called or the process ends. It is the directory
// that is locked: the file is replaced, and who has locked the one before knows
// nothing of that.
func lock(path string) (unlock func(), err error) {
	dir, err := os.Open(filepath.Dir(path))
	if err != nil {
		return nil, err
	}
	if err := syscall.Flock(int(dir.Fd()), syscall.LOCK_EX|syscall.LOCK_NB); err != nil {
		_ = dir.Close()
		if errors.Is(err, syscall.EWOULDBLOCK) {
			return nil, fmt.Errorf("keyset %s: another command is changing it, or has locked its directory: try again when that is done", path)
		}
		return nil, fmt.Errorf("keyset %s: its directory cannot be locked: %w", path, err)
	}
	return func() { _ = dir.Close() }, nil
}

//go:build darwin || dragonfly || freebsd || linux || netbsd || openbsd

package seal

import (
	"errors"
	"fmt"
	"os"
	"syscall"
)

// lock opens the file at path and locks it for others that do the same, until it
// is closed or the process ends.
func lock(path string) (*os.File, error) {
	for {
		f, err := os.Open(path)
		if err != nil {
			return nil, err
		}
		if err := syscall.Flock(int(f.Fd()), syscall.LOCK_EX|syscall.LOCK_NB); err != nil {
			_ = f.Close()
			if errors.Is(err, syscall.EWOULDBLOCK) {
				return nil, fmt.Errorf("keyset %s: another command is changing it: try again when that is done", path)
			}
			return nil, fmt.Errorf("keyset %s: cannot be locked: %w", path, err)
		}
		opened, err := f.Stat()
		if err != nil {
			_ = f.Close()
			return nil, err
		}
		if there, err := os.Stat(path); err == nil && os.SameFile(opened, there) {
			return f, nil
		}
		// Somebody has replaced it between the opening and the lock.
		_ = f.Close()
	}
}

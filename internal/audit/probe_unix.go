//go:build unix

package audit

import (
	"fmt"

	"golang.org/x/sys/unix"
)

// mayWrite returns an error if this user may not make files in a directory.
func mayWrite(path string) error {
	if err := unix.Access(path, unix.W_OK|unix.X_OK); err != nil {
		return fmt.Errorf("make files in %s: %w", path, err)
	}
	return nil
}

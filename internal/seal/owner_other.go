//go:build !unix

package seal

import (
	"io/fs"
	"os"
)

// keepOwner does nothing where files have no owner of this kind.
func keepOwner(*os.File, fs.FileInfo) error { return nil }

// WorldReadable is not known where modes do not say it.
func WorldReadable(string) (bool, error) { return false, nil }

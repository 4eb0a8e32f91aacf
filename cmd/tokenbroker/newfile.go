package main

import (
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
)

// writeNew has write fill the file at path, readable by its owner only. The file
// is there, durable and whole, or not at all; what was there before is never
// written over.
func writeNew(path string, write func(io.Writer) error) error {
	exists := fmt.Errorf("%s exists, and is not written over", path)
	if _, err := os.Lstat(path); err == nil {
		return exists // Before the work is done; Link looks again.
	}
	dir := filepath.Dir(path)
	f, err := os.CreateTemp(dir, filepath.Base(path)+".new-*")
	if err != nil {
		return err
	}
	defer func() { _ = os.Remove(f.Name()) }()
	if err := write(f); err != nil {
		return errors.Join(err, f.Close())
	}
	if err := errors.Join(f.Sync(), f.Close()); err != nil {
		return err
	}
	// Unlike a rename, it does not replace.
	if err := os.Link(f.Name(), path); errors.Is(err, fs.ErrExist) {
		return exists
	} else if err != nil {
		return err
	}
	d, err := os.Open(dir)
	if err != nil {
		return err
	}
	return errors.Join(d.Sync(), d.Close())
}

package audit

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"os"
	"path/filepath"
)

var errLocked = errors.New("another process writes to it, and each needs a file of its own")

// file is a sink. It holds the lock of the file that it writes to.
type file struct {
	path   string
	logger *slog.Logger
	open   *os.File
	info   fs.FileInfo // says which file is open
	stream             // into it
	cut    bool        // it does not end with a newline
	lost   error       // not nil: what of it is on disk is not known
}

// openFile opens the file at path and reads how it ends.
func openFile(path string, logger *slog.Logger) (*file, ending, error) {
	f := &file{path: path, logger: logger}
	if err := f.reopen(); err != nil {
		return nil, ending{}, err
	}
	end, err := readEnd(f.open, f.info.Size())
	if err != nil {
		return nil, ending{}, errors.Join(fmt.Errorf("%s: %w", path, err), f.open.Close())
	}
	return f, end, nil
}

// write appends lines. After an error the file ends with the last whole line that
// need not be written again, if that can be had.
func (f *file) write(lines []byte, sync bool) (int, error) {
	size, err := f.follow()
	if err != nil {
		return 0, err
	}
	if f.cut {
		if _, err := f.open.WriteString("\n"); err != nil {
			return 0, err
		}
		f.cut = false
		size++
	}
	size -= int64(f.part)
	whole, err := f.stream.write(lines, false)
	written := err == nil
	if written && sync {
		if err = f.lost; err == nil {
			err = f.open.Sync()
		}
	}
	switch {
	case err == nil:
		return whole, nil
	case written:
		whole = 0 // After a failed sync, another may succeed without these.
	}
	if f.open.Truncate(size+int64(whole)) == nil {
		f.part = 0
		return whole, err
	}
	if written {
		f.lost, whole = err, len(lines)
	}
	return whole, err
}

// follow has the file open that is at the path now, which is another one after a
// rotation, and returns its size.
func (f *file) follow() (int64, error) {
	info, err := os.Stat(f.path)
	switch {
	case err == nil && os.SameFile(info, f.info):
		return info.Size(), nil
	case err != nil && !errors.Is(err, fs.ErrNotExist):
		return 0, err
	}
	if err := f.reopen(); err != nil {
		return 0, err
	}
	f.logger.InfoContext(context.Background(), "audit file was rotated", "file", f.path)
	return f.info.Size(), nil
}

// reopen opens and locks the file at the path in place of the one that is open. On
// an error that one stays.
func (f *file) reopen() (err error) {
	opened, err := os.OpenFile(f.path, os.O_RDWR|os.O_CREATE|os.O_APPEND, 0o600)
	if err != nil {
		return err
	}
	defer func() {
		if err != nil {
			err = errors.Join(err, opened.Close())
		}
	}()
	info, err := opened.Stat()
	if err != nil {
		return err
	}
	if !info.Mode().IsRegular() {
		return fmt.Errorf("%s is no regular file", f.path)
	}
	if err := lock(opened); err != nil {
		return fmt.Errorf("%s: %w", f.path, err)
	}
	// What the process before has written while it had the lock is there now.
	if info, err = opened.Stat(); err != nil {
		return err
	}
	last := []byte{'\n'}
	if size := info.Size(); size > 0 {
		if _, err := opened.ReadAt(last, size-1); err != nil {
			return err
		}
	}
	if err := syncDir(filepath.Dir(f.path)); err != nil {
		return err
	}
	if f.open != nil {
		_ = f.close() // What had to be on disk is there already.
	}
	f.open, f.info, f.cut, f.lost, f.stream = opened, info, last[0] != '\n', nil, stream{to: opened}
	return nil
}

func (f *file) close() error { return errors.Join(f.open.Sync(), f.open.Close()) }

// syncDir makes it durable which files are in a directory.
func syncDir(path string) error {
	d, err := os.Open(path)
	if err != nil {
		return err
	}
	return errors.Join(d.Sync(), d.Close())
}

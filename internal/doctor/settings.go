package doctor

import (
	"context"
	"errors"
	"io/fs"
	"os"
	"os/user"
	"path/filepath"
)

// settings tells what is wrong with the settings themselves.
func (e *examination) settings(_ context.Context, r *report) {
	const mend = `"tokenbroker serve --help" says what there is.`
	for _, err := range e.Refused {
		r.problem(mend, "%v", err)
	}
	for _, err := range e.Settings.Problems() {
		r.problem(mend, "%v", err)
	}
	if !r.quiet() {
		return
	}
	from := "flags and variables alone"
	if e.Settings.Config != "" {
		from = string(e.Settings.Config) + ", variables and flags"
	}
	r.ok("they are understood: %s", from)
}

// files tells whether the files can be read by those, and only those, who should.
func (e *examination) files(_ context.Context, r *report) {
	named, err := e.Settings.Files()
	if err != nil {
		r.skip("which files are named is not known: %v", err)
		return
	}
	for _, f := range named {
		info, err := readable(f.Path)
		switch {
		case errors.Is(err, fs.ErrNotExist):
			r.problem("Put the file there, or correct the setting.", "--%s: there is no file %s", f.Setting, f.Path)
			continue
		case errors.Is(err, fs.ErrPermission):
			r.problem("Give it to the server's user or group: chgrp GROUP "+f.Path+" && chmod 640 "+f.Path, "--%s: %s may not read %s", f.Setting, me(), f.Path)
			continue
		case err != nil:
			r.problem("Put a file there, or correct the setting.", "--%s: %v", f.Setting, err)
			continue
		}
		switch mode := info.Mode().Perm(); {
		case f.Secret && mode&0o004 != 0:
			r.problem("chmod 600 "+f.Path+" (or 640, with a group of the server's)",
				"--%s: every user of this machine may read %s (mode %04o), and it is secret", f.Setting, f.Path, mode)
		case mode&0o002 != 0:
			r.problem("chmod o-w "+f.Path, "--%s: every user of this machine may change %s (mode %04o)", f.Setting, f.Path, mode)
		}
	}
	if r.quiet() {
		r.ok("all that are named (%d) can be read by %s, and the secret ones not by everybody", len(named), me())
	}
}

// readable returns what is at path if it is a file that can be read.
func readable(path string) (fs.FileInfo, error) {
	f, err := os.Open(filepath.Clean(path))
	if err != nil {
		return nil, err
	}
	defer func() { _ = f.Close() }()
	info, err := f.Stat()
	if err == nil && info.IsDir() {
		err = &fs.PathError{Op: "read", Path: path, Err: errors.New("it is a directory")}
	}
	return info, err
}

// me names who runs this: it may be another than who runs the server.
func me() string {
	u, err := user.Current()
	if err != nil {
		return "this user"
	}
	return "the user " + u.Username
}

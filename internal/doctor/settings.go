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

// settingFile is a file that a setting names.
type settingFile struct {
	setting, path string
	secret        bool // whoever can read it has a secret
}

// namedFiles returns the files that the settings name.
func (e *examination) namedFiles() []settingFile {
	s := e.Settings
	files := []settingFile{
		{"--config", string(s.Config), false},
		{"--keyset-file", s.KeysetFile, true},
		{"--redis-password-file", s.RedisPasswordFile, true},
		{"--redis-sentinel-password-file", s.RedisSentinelPasswordFile, true},
		{"--tls-cert-file", s.TLSCertFile, false},
		{"--tls-key-file", s.TLSKeyFile, true},
		{"--client-ca-file", s.ClientCAFile, false},
		{"--access-file", s.AccessFile, false},
		{"--jwt-keys-ca-file", s.JWTKeysCA, false},
	}
	if s.JWTKeysURL() == "" {
		files = append(files, settingFile{"--jwt-keys", s.JWTKeys, false})
	}
	return files
}

// files tells whether the files can be read by those, and only those, who should.
func (e *examination) files(_ context.Context, r *report) {
	count := 0
	for _, f := range e.namedFiles() {
		if f.path == "" {
			continue
		}
		count++
		info, err := readable(f.path)
		switch {
		case errors.Is(err, fs.ErrNotExist):
			r.problem("Put the file there, or correct the setting.", "%s: there is no file %s", f.setting, f.path)
			continue
		case errors.Is(err, fs.ErrPermission):
			r.problem("Give it to the server's user or group: chgrp GROUP "+f.path+" && chmod 640 "+f.path, "%s: %s may not read %s", f.setting, me(), f.path)
			continue
		case err != nil:
			r.problem("Put a file there, or correct the setting.", "%s: %v", f.setting, err)
			continue
		}
		switch mode := info.Mode().Perm(); {
		case f.secret && mode&0o004 != 0:
			r.problem("chmod 600 "+f.path+" (or 640, with a group of the server's)",
				"%s: every user of this machine may read %s (mode %04o), and it is secret", f.setting, f.path, mode)
		case mode&0o002 != 0:
			r.problem("chmod o-w "+f.path, "%s: every user of this machine may change %s (mode %04o)", f.setting, f.path, mode)
		}
	}
	if r.quiet() {
		r.ok("%d files can be read by %s, and the secret ones not by everybody", count, me())
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

package audit

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"net"
	"os"
	"path/filepath"
)

// Probe returns why records could not be written to a sink now, as far as that can
// be seen without writing any; nil, if they could. A file that is not there is not
// made.
func Probe(ctx context.Context, s string) error {
	t, err := parseSink(s)
	if err != nil {
		return err
	}
	switch t.kind {
	case sinkFile:
		return probeFile(t.path)
	case sinkSyslog:
		return probeSyslog(ctx, t)
	default:
		return nil
	}
}

func probeFile(path string) error {
	f, err := os.OpenFile(path, os.O_RDWR|os.O_APPEND, 0)
	if errors.Is(err, fs.ErrNotExist) {
		return probeDir(filepath.Dir(path))
	}
	if err != nil {
		return err
	}
	info, err := f.Stat()
	if err == nil && !info.Mode().IsRegular() {
		err = fmt.Errorf("%s is no regular file", path)
	}
	return errors.Join(err, f.Close())
}

func probeDir(path string) error {
	info, err := os.Stat(path)
	switch {
	case err != nil:
		return err
	case !info.IsDir():
		return fmt.Errorf("%s is no directory", path)
	}
	return mayWrite(path)
}

// probeSyslog connects, as far as the network has connections.
func probeSyslog(ctx context.Context, t target) error {
	if t.network != "" {
		return probeDial(ctx, t.network, t.address)
	}
	for _, path := range []string{"/dev/log", "/var/run/syslog", "/var/run/log"} { // Where log/syslog looks.
		for _, network := range []string{"unixgram", "unix"} {
			if probeDial(ctx, network, path) == nil {
				return nil
			}
		}
	}
	return errors.New("there is no syslog on this machine")
}

func probeDial(ctx context.Context, network, address string) error {
	conn, err := new(net.Dialer).DialContext(ctx, network, address)
	if err != nil {
		return err
	}
	return conn.Close()
}

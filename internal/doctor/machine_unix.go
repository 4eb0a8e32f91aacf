//go:build unix

package doctor

import "golang.org/x/sys/unix"

// openFiles returns how many files a process may have open, which Go raises to the
// hard limit when it starts.
func openFiles() (limit uint64, known bool) {
	var l unix.Rlimit
	if unix.Getrlimit(unix.RLIMIT_NOFILE, &l) != nil {
		return 0, false
	}
	return uint64(l.Max), true //nolint:unconvert // On some systems it is signed.
}

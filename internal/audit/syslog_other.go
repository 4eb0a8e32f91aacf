//go:build windows || plan9

package audit

import "errors"

func newSyslog(string, string) (sink, error) {
	return nil, errors.New("there is no syslog on this system")
}

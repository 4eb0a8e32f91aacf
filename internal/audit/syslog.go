//go:build !windows && !plan9

package audit

import (
	"bytes"
	"log/syslog"
)

const (
	syslogPriority = syslog.LOG_AUTHPRIV | syslog.LOG_INFO
	syslogTag      = "tokenbroker-audit"
)

// syslogSink sends each line as a message. What the network or the receiver loses is
// missing from the chain. After a broken connection a message may come twice.
type syslogSink struct {
	network, address string
	connection       *syslog.Writer // nil: not connected yet. It connects again by itself.
}

func newSyslog(network, address string) (sink, error) {
	return &syslogSink{network: network, address: address}, nil
}

func (s *syslogSink) write(lines []byte, _ bool) (n int, err error) {
	if s.connection == nil {
		if s.connection, err = syslog.Dial(s.network, s.address, syslogPriority, syslogTag); err != nil {
			return 0, err
		}
	}
	for line := range bytes.Lines(lines) {
		if err := s.connection.Info(string(line)); err != nil {
			return n, err
		}
		n += len(line)
	}
	return n, nil
}

func (s *syslogSink) close() error {
	if s.connection == nil {
		return nil
	}
	return s.connection.Close()
}

package audit

import (
	"bytes"
	"errors"
	"io"
	"net"
	"strconv"
	"strings"
)

// target is a sink as it is named in a setting.
type target struct {
	kind    sinkKind
	path    string // of a file
	network string // of syslog; empty: this machine's
	address string
}

type sinkKind int

const (
	sinkNone sinkKind = iota
	sinkStdout
	sinkFile
	sinkSyslog
)

var errSink = errors.New("the audit sink must be stdout, none, file:PATH, syslog, syslog:udp://HOST:PORT or syslog:tcp://HOST:PORT")

// ValidateSink returns an error, in words for who has set it, unless s is one of:
//
//	stdout                 standard output
//	file:PATH              a file
//	syslog                 syslog of this machine
//	syslog:udp://HOST:PORT syslog elsewhere
//	syslog:tcp://HOST:PORT
//	none                   nothing, for development
func ValidateSink(s string) error {
	_, err := parseSink(s)
	return err
}

func parseSink(s string) (target, error) {
	name, rest, more := strings.Cut(s, ":")
	switch {
	case s == "none":
		return target{kind: sinkNone}, nil
	case s == "stdout":
		return target{kind: sinkStdout}, nil
	case name == "file" && rest != "":
		return target{kind: sinkFile, path: rest}, nil
	case s == "syslog":
		return target{kind: sinkSyslog}, nil
	case name == "syslog" && more:
		network, address, _ := strings.Cut(rest, "://")
		host, port, err := net.SplitHostPort(address)
		number, notNumber := strconv.ParseUint(port, 10, 16)
		if err == nil && notNumber == nil && number > 0 && host != "" && !strings.ContainsAny(host, "@/") && (network == "udp" || network == "tcp") {
			return target{kind: sinkSyslog, network: network, address: address}, nil
		}
	}
	return target{}, errSink
}

// stream is a sink of bytes. What a write left unfinished is gone on with by the
// next, so that no line is broken.
type stream struct {
	to   io.Writer
	part int // how much of the first line of the next call is written
}

func (s *stream) write(lines []byte, _ bool) (int, error) {
	if len(lines) == 0 {
		return 0, nil
	}
	rest := lines[s.part:]
	n, err := s.to.Write(rest)
	if n = min(max(n, 0), len(rest)); n < len(rest) && err == nil {
		err = io.ErrShortWrite
	}
	n += s.part
	whole := bytes.LastIndexByte(lines[:n], '\n') + 1
	s.part = n - whole
	return whole, err
}

func (s *stream) close() error { return nil }

//go:build !windows && !plan9

package audit_test

import (
	"errors"
	"io"
	"net"
	"regexp"
	"strings"
	"testing"
	"time"

	"smokeball.internal/tokenbroker/internal/audit"
)

func TestSyslogIsSentALineAtATime(t *testing.T) {
	t.Parallel()
	receiver, err := net.ListenPacket("udp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = receiver.Close() }()
	l := run(t, audit.Config{Sink: "syslog:udp://" + receiver.LocalAddr().String()})
	for range 20 {
		_ = l.Decision(decision())
	}
	l.change(t, "tenants/acme")
	l.stop()
	var text strings.Builder
	message := make([]byte, 8192)
	for range 23 {
		_ = receiver.SetReadDeadline(time.Now().Add(5 * time.Second))
		n, _, err := receiver.ReadFrom(message)
		if err != nil {
			t.Fatal(err)
		}
		// Authentication, private: facility 10; informational: severity 6.
		if form := regexp.MustCompile(`^<86>[^{]* tokenbroker-audit\[[0-9]+\]: \{"chain":[^\n]*\}\n$`); !form.Match(message[:n]) {
			t.Errorf("message %q", message[:n])
		}
		text.Write(message[:n])
	}
	if report := wantSound(t, text.String()); report.Records != 23 || report.Prefixed != 23 || !report.Writers[0].Stopped {
		t.Errorf("%+v", report)
	}
}

func TestSyslogIsConnectedToWhenItIsThere(t *testing.T) {
	t.Parallel()
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	address := listener.Addr().String()
	_ = listener.Close()
	l := run(t, audit.Config{Sink: "syslog:tcp://" + address})
	if err := l.Change(t.Context(), audit.Record{Tenant: "tenants/early"}); !errors.Is(err, audit.ErrUnavailable) {
		t.Errorf("without a receiver: %v", err)
	}
	if listener, err = net.Listen("tcp", address); err != nil {
		t.Skip(err) // Somebody else has the port now.
	}
	defer func() { _ = listener.Close() }()
	l.change(t, "tenants/late")
	l.stop()
	conn, err := listener.Accept()
	if err != nil {
		t.Fatal(err)
	}
	text, err := io.ReadAll(conn)
	if err != nil {
		t.Fatal(err)
	}
	if report := wantSound(t, string(text)); report.Records != 4 || !report.Writers[0].Stopped {
		t.Errorf("%+v", report)
	}
}

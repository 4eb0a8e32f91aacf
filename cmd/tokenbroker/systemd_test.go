package main_test

import (
	"net"
	"path/filepath"
	"testing"
	"time"

	"smokeball.internal/tokenbroker/internal/redisstore/redistest"
)

// systemd waits for READY=1, and shows the rest.
func TestSystemdIsTold(t *testing.T) {
	t.Parallel()
	path := filepath.Join(t.TempDir(), "notify")
	socket, err := net.ListenUnixgram("unixgram", &net.UnixAddr{Name: path, Net: "unixgram"})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = socket.Close() })
	told := func() string {
		t.Helper()
		_ = socket.SetReadDeadline(time.Now().Add(20 * time.Second))
		buffer := make([]byte, 1024)
		n, err := socket.Read(buffer)
		if err != nil {
			t.Fatal(err)
		}
		return string(buffer[:n])
	}
	redis := redistest.Start(t)
	redis.Pause()
	p := startProgram(t, binary, []string{"NOTIFY_SOCKET=" + path}, serveArgs(redis.URL(), keysetFile(t), startIssuer(t))...)
	const waits = "STATUS=not ready: Redis does not serve"
	if got := told(); got != waits {
		t.Errorf("while Redis is away, systemd hears %q", got)
	}
	redis.Resume()
	got := told()
	for got == waits {
		got = told()
	}
	if got != "READY=1\nSTATUS=ready" {
		t.Errorf("then systemd hears %q", got)
	}
	if code := p.terminate(); code != 0 {
		t.Errorf("exit code %d", code)
	}
	if got := told(); got != "STOPPING=1\nSTATUS=shutting down" {
		t.Errorf("at the end systemd hears %q", got)
	}
}

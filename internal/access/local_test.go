package access_test

import (
	"bufio"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"testing"

	"smokeball.internal/tokenbroker/internal/access"
)

// A proxy that passes bytes on says nothing of it, and whoever is behind it can ask
// for localhost: but the connection has not come to a loopback address, as that of
// somebody who has asked for one has. So mesh proxies connect to a pod's own address,
// from 127.0.0.6.
func TestAConnectionThatIsPassedOnIsNotLocal(t *testing.T) {
	here := &net.TCPAddr{IP: net.IPv4(127, 0, 0, 1), Port: 9091}
	for _, test := range []struct {
		at   net.Addr
		want bool
	}{
		{here, true},
		{&net.TCPAddr{IP: net.IPv6loopback, Port: 9091}, true},
		{&net.TCPAddr{IP: net.IPv4(10, 1, 2, 3), Port: 9091}, false},
		{&net.TCPAddr{IP: net.ParseIP("2001:db8::1"), Port: 9091}, false},
	} {
		var got bool
		server := httptest.NewUnstartedServer(http.HandlerFunc(func(_ http.ResponseWriter, r *http.Request) { got = access.Local(r) }))
		server.Listener = elsewhere{server.Listener, test.at}
		server.Start()
		ask(t, server, "HTTP/1.1")
		server.Close()
		if got != test.want {
			t.Errorf("at %v: local is %t", test.at, got)
		}
	}
}

// nginx, as it comes, sets none of the headers of a proxy, and asks for the address
// that it was given. It speaks HTTP/1.0, which nobody else does.
func TestARequestOfAnOldVersionIsNotLocal(t *testing.T) {
	var got bool
	server := httptest.NewServer(http.HandlerFunc(func(_ http.ResponseWriter, r *http.Request) { got = access.Local(r) }))
	defer server.Close()
	if ask(t, server, "HTTP/1.1"); !got {
		t.Error("somebody on this machine is not local")
	}
	if ask(t, server, "HTTP/1.0"); got {
		t.Error("a proxy that speaks HTTP/1.0 is taken for somebody on this machine")
	}
}

// elsewhere is a listener whose connections have come to another address.
type elsewhere struct {
	net.Listener
	at net.Addr
}

func (l elsewhere) Accept() (net.Conn, error) {
	conn, err := l.Listener.Accept()
	return arrived{conn, l.at}, err
}

type arrived struct {
	net.Conn
	at net.Addr
}

func (c arrived) LocalAddr() net.Addr { return c.at }

// ask sends a request for localhost, and waits for the answer.
func ask(t *testing.T, server *httptest.Server, version string) {
	t.Helper()
	conn, err := net.Dial("tcp", server.Listener.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = conn.Close() }()
	_, _ = fmt.Fprintf(conn, "GET / %s\r\nHost: localhost\r\nConnection: close\r\n\r\n", version)
	resp, err := http.ReadResponse(bufio.NewReader(conn), nil)
	if err != nil {
		t.Fatal(err)
	}
	_, _ = io.Copy(io.Discard, resp.Body)
	_ = resp.Body.Close()
}

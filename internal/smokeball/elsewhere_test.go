package smokeball_test

import (
	"bufio"
	"bytes"
	"context"
	"crypto/tls"
	"encoding/base64"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"net/url"
	"strings"
	"sync"
	"testing"
	"time"

	"smokeball.internal/tokenbroker/internal/smokeball"
	"smokeball.internal/tokenbroker/internal/token"
)

// Wherever an answer points to, neither the secret nor a request goes there: not to another host, not to the same one
// over plain HTTP, not to another path.
func TestAnswerLeadsNowhere(t *testing.T) {
	other := answers(sold(accessToken))
	plain := httptest.NewServer(other)
	t.Cleanup(plain.Close)
	encrypted := secure(t, other, nil, true)
	for _, status := range []int{200, 201, 300, 301, 302, 303, 304, 305, 307, 308, 401, 407, 426} {
		for _, elsewhere := range []string{plain.URL, encrypted.URL, "/elsewhere", "//" + strings.TrimPrefix(encrypted.URL, "https://")} {
			t.Run(fmt.Sprint(status, " ", strings.SplitAfter(elsewhere, ":")[0]), func(t *testing.T) {
				s := answers(says(status, `{"error":"weird"}`, "Location", elsewhere, "Content-Location", elsewhere, "Refresh", "0; url="+elsewhere,
					"Alt-Svc", `h2="`+strings.TrimPrefix(encrypted.URL, "https://")+`"`, "Upgrade", "TLS/1.0, HTTP/1.1", "Link", "<"+elsewhere+">; rel=preload",
					"Www-Authenticate", `Basic realm="x"`, "Proxy-Authenticate", `Basic realm="x"`, "Connection", "close"))
				// Both are trusted: it is not their certificates that keep the issuer from going there.
				server := secure(t, s, nil, false)
				i := issuer(t, server)
				i.Transport().TLSClientConfig.RootCAs.AddCert(encrypted.Certificate())
				tok, err := i.Exchange(t.Context(), at(server))
				wantFailure(t, tok, err, token.Malformed)
				if status == http.StatusOK {
					wantRequests(t, s, 3) // With an error that nobody knows: it is asked again, at the same place.
				} else {
					wantRequests(t, s, 1)
				}
				for _, r := range s.requests() {
					if r.path != "/oauth2/token" {
						t.Errorf("%s was asked for", r.path)
					}
				}
			})
		}
	}
	wantRequests(t, other, 0)
}

// recorder is a proxy that keeps what it is sent, and does what it likes with CONNECT.
type recorder struct {
	url  *url.URL
	mu   sync.Mutex
	seen bytes.Buffer
}

func (p *recorder) Write(b []byte) (int, error) {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.seen.Write(b)
}

// wantNoSecret fails if the proxy has seen a secret, or has seen nothing.
func (p *recorder) wantNoSecret(t *testing.T) {
	t.Helper()
	p.mu.Lock()
	defer p.mu.Unlock()
	seen := p.seen.String()
	if !strings.HasPrefix(seen, "CONNECT 127.0.0.1:") {
		t.Fatalf("the proxy was sent %.40q: it was not asked", seen)
	}
	for _, secret := range []string{clientSecret, base64.StdEncoding.EncodeToString([]byte(clientID + ":" + clientSecret)), clientID, "Authorization: Basic"} {
		if strings.Contains(seen, secret) {
			t.Errorf("the proxy was sent %q", secret)
		}
	}
}

func startProxy(t *testing.T, answer func(conn net.Conn, sent io.Reader, to string)) *recorder {
	t.Helper()
	l, err := new(net.ListenConfig).Listen(t.Context(), "tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = l.Close() })
	p := &recorder{url: &url.URL{Scheme: "http", Host: l.Addr().String()}}
	go func() {
		for {
			conn, err := l.Accept()
			if err != nil {
				return
			}
			go func() {
				defer func() { _ = conn.Close() }()
				sent := bufio.NewReader(io.TeeReader(conn, p))
				if r, err := http.ReadRequest(sent); err == nil {
					answer(conn, sent, r.Host)
				}
			}()
		}
	}()
	return p
}

// established lets the client believe that it speaks to whom it asked for.
func established(w io.Writer) {
	_, _ = io.WriteString(w, "HTTP/1.1 200 Connection established\r\n\r\n")
}

func TestProxyIsSentNoSecret(t *testing.T) {
	stranger, _ := certified(t, nil)
	says := func(text string) func(net.Conn, io.Reader, string) {
		return func(conn net.Conn, _ io.Reader, _ string) { _, _ = io.WriteString(conn, text) }
	}
	for name, test := range map[string]struct {
		answer func(conn net.Conn, sent io.Reader, to string)
		said   string // "" if a token comes through
	}{
		"honest": {func(conn net.Conn, sent io.Reader, to string) {
			there, err := new(net.Dialer).DialContext(t.Context(), "tcp", to)
			if err != nil {
				return
			}
			defer func() { _ = there.Close() }()
			established(conn)
			go func() { _, _ = io.Copy(there, sent) }()
			_, _ = io.Copy(conn, there)
		}, ""},
		"in the issuer's place": {func(conn net.Conn, sent io.Reader, _ string) {
			established(conn)
			// What comes after the handshake, deciphered, would be kept.
			inside := tls.Server(readFrom{conn, sent}, &tls.Config{Certificates: []tls.Certificate{stranger}})
			_, _ = io.Copy(inside, inside)
		}, "certificate that does not verify"},
		"without TLS behind it": {func(conn net.Conn, sent io.Reader, _ string) {
			established(conn)
			_, _ = sent.Read(make([]byte, 1)) // The handshake has begun.
			_, _ = io.WriteString(conn, "HTTP/1.1 200 OK\r\nContent-Length: 7\r\n\r\nplanted")
			_, _ = io.Copy(io.Discard, sent)
		}, "could not be reached"},
		"that wants a password": {says("HTTP/1.1 407 planted\r\nProxy-Authenticate: Basic realm=\"planted\"\r\nContent-Length: 0\r\n\r\n"), "could not be reached"},
		"that redirects":        {says("HTTP/1.1 307 planted\r\nLocation: http://evil.example/planted\r\nContent-Length: 0\r\n\r\n"), "could not be reached"},
		"that does not speak":   {says("planted\r\n\r\n"), "could not be reached"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			s := answers(sold(accessToken))
			server := secure(t, s, nil, false)
			i := issuer(t, server)
			proxy := startProxy(t, test.answer)
			i.Transport().Proxy = http.ProxyURL(proxy.url)
			tok, err := i.Exchange(t.Context(), at(server))
			proxy.wantNoSecret(t)
			if test.said == "" {
				if err != nil {
					t.Errorf("Exchange: %v", err)
				}
				wantRequests(t, s, 1)
				return
			}
			wantSaid(t, wantFailure(t, tok, err, token.Unavailable), test.said)
			wantNothingPlanted(t, err)
			wantRequests(t, s, 0)
		})
	}
}

// readFrom is a connection of which something was read already.
type readFrom struct {
	net.Conn
	r io.Reader
}

func (c readFrom) Read(p []byte) (int, error) { return c.r.Read(p) }

func TestHandshakeThatHangsIsGivenUp(t *testing.T) {
	bubble(t, answers(sold(accessToken)), func(t *testing.T, n *network) {
		connections := 0
		n.issuer.Transport().DialContext = func(context.Context, string, string) (net.Conn, error) {
			connections++
			here, there := net.Pipe()
			go func() { _, _ = io.Copy(io.Discard, there) }()
			return here, nil
		}
		c := credential()
		c.Endpoint = "https://auth.example/oauth2/token"
		begun := time.Now()
		tok, err := n.issuer.Exchange(t.Context(), c)
		wantSaid(t, wantFailure(t, tok, err, token.Unavailable), "did not answer in time")
		if took := time.Since(begun); took > smokeball.ExchangeTimeout || connections != 3 {
			t.Errorf("it took %v and %d connections, want three within %v", took, connections, smokeball.ExchangeTimeout)
		}
	})
}

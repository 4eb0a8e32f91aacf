package smokeball_test

import (
	"bufio"
	"bytes"
	"compress/gzip"
	"context"
	"crypto/tls"
	"fmt"
	"io"
	"net"
	"net/http"
	"runtime"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"smokeball.internal/tokenbroker/internal/smokeball"
	"smokeball.internal/tokenbroker/internal/token"
)

// hostile is an issuer with a good certificate and bad manners, on a socket. It counts how often it was sent the secret.
type hostile struct {
	issuer  *smokeball.Issuer
	at      token.Credential
	secrets atomic.Int32
	read    atomic.Int64 // bytes that the issuer under test took from the network
}

// meter has the issuer under test count what it takes from the network.
func (h *hostile) meter() {
	h.issuer.Transport().DialContext = func(ctx context.Context, network, address string) (net.Conn, error) {
		c, err := new(net.Dialer).DialContext(ctx, network, address)
		return &metered{c, &h.read}, err
	}
}

// wantCheap fails unless an exchange fails with class, and costs little.
func (h *hostile) wantCheap(t *testing.T, class token.Class) {
	t.Helper()
	// 256 KiB of body, in chunks of one byte six times as much, and what lies in buffers by then. Of the memory, some is
	// the server's.
	const mostRead, mostMemory, mostTime = 2 << 20, 32 << 20, smokeball.ExchangeTimeout / 2
	var before, after runtime.MemStats
	runtime.ReadMemStats(&before)
	begun := time.Now()
	tok, err := h.issuer.Exchange(t.Context(), h.at)
	took := time.Since(begun)
	runtime.ReadMemStats(&after)
	wantFailure(t, tok, err, class)
	time.Sleep(50 * time.Millisecond) // What is read after the exchange is over counts too.
	read, memory := h.read.Load(), after.TotalAlloc-before.TotalAlloc
	t.Logf("%v: %d KiB read, %d KiB allocated, %v", err, read>>10, memory>>10, took.Round(time.Millisecond))
	if read > mostRead || memory > mostMemory || took > mostTime {
		t.Errorf("want at most %d KiB read, %d KiB allocated, %v", mostRead>>10, mostMemory>>10, mostTime)
	}
}

// startHostile reads a request on each connection and leaves it to do.
func startHostile(t *testing.T, do func(io.Writer)) *hostile {
	t.Helper()
	certificate, roots := certified(t, nil)
	l, err := tls.Listen("tcp", "127.0.0.1:0", &tls.Config{Certificates: []tls.Certificate{certificate}})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = l.Close() })
	h := &hostile{issuer: issuer(t, nil), at: credential()}
	h.at.Endpoint = "https://" + l.Addr().String() + "/oauth2/token"
	h.issuer.Transport().TLSClientConfig.RootCAs = roots
	h.meter()
	go func() {
		for {
			conn, err := l.Accept()
			if err != nil {
				return
			}
			go func() {
				defer func() { _ = conn.Close() }()
				r, err := http.ReadRequest(bufio.NewReader(conn))
				if err != nil {
					return
				}
				if _, secret, _ := r.BasicAuth(); secret == clientSecret {
					h.secrets.Add(1)
				}
				do(conn)
			}()
		}
	}()
	return h
}

// metered counts what is read from a connection.
type metered struct {
	net.Conn
	read *atomic.Int64
}

func (m *metered) Read(p []byte) (int, error) {
	n, err := m.Conn.Read(p)
	m.read.Add(int64(n))
	return n, err
}

// endless writes begin, and then again until nobody takes it any more.
func endless(begin, again string) func(io.Writer) {
	if len(again) < 1<<10 {
		again = strings.Repeat(again, 1<<10)
	}
	return func(w io.Writer) {
		_, err := io.WriteString(w, begin)
		for err == nil {
			_, err = io.WriteString(w, again)
		}
	}
}

func TestHostileAnswerCostsLittleTimeAndMemory(t *testing.T) {
	const (
		ok      = "HTTP/1.1 200 OK\r\nContent-Type: application/json\r\n"
		chunked = ok + "Transfer-Encoding: chunked\r\n\r\n"
	)
	var bomb bytes.Buffer
	z := gzip.NewWriter(&bomb)
	if _, err := io.CopyN(z, zeros{}, 16<<20); err != nil {
		t.Fatal(err)
	}
	for _, test := range []struct {
		name  string
		do    func(io.Writer)
		class token.Class
		times int32 // how often the secret is sent
	}{
		{"a body without end", endless(ok+"\r\n", "x"), token.Malformed, 1},
		{"a body of an exabyte", endless(ok+"Content-Length: 1152921504606846976\r\n\r\n", "x"), token.Malformed, 1},
		{"a token, and spaces without end", endless(ok+"\r\n"+`{"access_token":"x","expires_in":3600,"token_type":"Bearer"}`, " "), token.Malformed, 1},
		{"chunks without end", endless(chunked, "400\r\n"+strings.Repeat("x", 0x400)+"\r\n"), token.Malformed, 1},
		{"chunks of one byte without end", endless(chunked, "1\r\nx\r\n"), token.Malformed, 1},
		{"a chunk's extension without end", endless(chunked+"1;", "x"), token.Unavailable, 3},
		{"a trailer without end", endless(chunked+"1\r\nx\r\n0\r\n", "X: y\r\n"), token.Unavailable, 3},
		{"gzip that unpacks to 16 MiB, again and again", endless(ok+"Content-Encoding: gzip\r\n\r\n", bomb.String()), token.Malformed, 1},
		{"JSON without end of depth", endless(ok+"\r\n", "["), token.Malformed, 1},
		{"JSON of great depth", func(w io.Writer) {
			_, _ = io.WriteString(w, ok+"Content-Length: 200000\r\n\r\n"+strings.Repeat("[", 200_000))
		}, token.Malformed, 3},
		{"a status without end", endless("HTTP/1.1 200 ", "x"), token.Unavailable, 3},
		{"a header without end", endless(ok+"X: ", "x"), token.Unavailable, 3},
		{"headers without end", endless(ok, "X: y\r\n"), token.Unavailable, 3},
		{"answers to come, without end", endless("", "HTTP/1.1 103 Early Hints\r\n\r\n"), token.Unavailable, 3},
		{"another protocol", endless("HTTP/1.1 101 Switching Protocols\r\nConnection: upgrade\r\nUpgrade: x\r\n\r\n", "x"), token.Malformed, 1},
	} {
		t.Run(test.name, func(t *testing.T) {
			h := startHostile(t, test.do)
			h.wantCheap(t, test.class)
			if secrets := h.secrets.Load(); secrets != test.times {
				t.Errorf("the secret was sent %d times, want %d", secrets, test.times)
			}
		})
	}
}

func TestHostileAnswerInHTTP2CostsLittleTimeAndMemory(t *testing.T) {
	page := make([]byte, 32<<10)
	for name, test := range map[string]struct {
		do    http.HandlerFunc
		class token.Class
		times int
	}{
		"a body without end": {func(w http.ResponseWriter, _ *http.Request) {
			for {
				if _, err := w.Write(page); err != nil {
					return
				}
			}
		}, token.Malformed, 1},
		"headers of 200 KiB": {func(w http.ResponseWriter, _ *http.Request) {
			for n := range 200 {
				w.Header().Set(fmt.Sprint("X-", n), strings.Repeat("y", 1000))
			}
		}, token.Unavailable, 3},
	} {
		t.Run(name, func(t *testing.T) {
			s := answers(test.do)
			server := secure(t, s, nil, true)
			h := &hostile{issuer: issuer(t, server), at: at(server)}
			h.meter()
			h.wantCheap(t, test.class)
			wantRequests(t, s, test.times)
		})
	}
}

// zeros is what packs best.
type zeros struct{}

func (zeros) Read(p []byte) (int, error) { clear(p); return len(p), nil }

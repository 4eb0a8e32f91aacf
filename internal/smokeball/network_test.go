package smokeball_test

import (
	"context"
	"encoding/base64"
	"errors"
	"io"
	"log"
	"net"
	"net/http"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"smokeball.internal/tokenbroker/internal/secret"
	"smokeball.internal/tokenbroker/internal/smokeball"
	"smokeball.internal/tokenbroker/internal/token"
)

const (
	endpoint     = "http://auth.example/us/production/oauth2/token"
	clientID     = "acme-client"
	clientSecret = "Planted+Secret%2F=x"
	accessToken  = "planted-access-token"
)

func credential(scopes ...string) token.Credential {
	return token.Credential{
		Endpoint: endpoint, ClientID: clientID, SecretID: "id", Secret: secret.New(clientSecret), Scopes: scopes,
	}
}

// network is a network in memory. Waiting on it does not keep a bubble's clock from advancing, as waiting on a real
// socket would, so the issuer can be tested with its real transport in virtual time.
type network struct {
	t       *testing.T
	issuer  *smokeball.Issuer
	mu      sync.Mutex
	servers map[string]*wire
}

// bubble runs a test of an issuer in virtual time. handler answers at auth.example; any other host cannot be reached
// until it is served too.
func bubble(t *testing.T, handler http.Handler, test func(t *testing.T, n *network)) {
	t.Helper()
	synctest.Test(t, func(t *testing.T) {
		n := &network{t: t, issuer: smokeball.New(nil), servers: map[string]*wire{}}
		transport := n.issuer.Transport()
		transport.Proxy, transport.DialContext = nil, n.dial
		t.Cleanup(transport.CloseIdleConnections)
		n.serve("auth.example:80", handler)
		test(t, n)
	})
}

func (n *network) serve(address string, handler http.Handler) {
	w := &wire{conns: make(chan net.Conn), closed: make(chan struct{})}
	n.mu.Lock()
	n.servers[address] = w
	n.mu.Unlock()
	server := &http.Server{Handler: handler, ErrorLog: log.New(io.Discard, "", 0)}
	go func() { _ = server.Serve(w) }()
	n.t.Cleanup(func() { _ = server.Close() })
}

func (n *network) dial(ctx context.Context, _, address string) (net.Conn, error) {
	n.mu.Lock()
	w := n.servers[address]
	n.mu.Unlock()
	if w == nil {
		return nil, errors.New("no route to " + address)
	}
	here, there := net.Pipe()
	select {
	case w.conns <- there:
		return here, nil
	case <-w.closed:
		return nil, net.ErrClosed
	case <-ctx.Done():
		return nil, ctx.Err()
	}
}

// wire is the listener of one server.
type wire struct {
	conns  chan net.Conn
	closed chan struct{}
	once   sync.Once
}

func (w *wire) Accept() (net.Conn, error) {
	select {
	case c := <-w.conns:
		return c, nil
	case <-w.closed:
		return nil, net.ErrClosed
	}
}

func (w *wire) Close() error {
	w.once.Do(func() { close(w.closed) })
	return nil
}

func (w *wire) Addr() net.Addr { return &net.UnixAddr{Name: "memory", Net: "unix"} }

// request is what arrived at a script.
type request struct {
	at                 time.Time
	method, host, path string
	header             http.Header
	body               string
}

// script is a server that gives one answer after the other, the last one for ever, and remembers what it was asked.
type script struct {
	answers []http.HandlerFunc
	mu      sync.Mutex
	asked   []request
}

func answers(a ...http.HandlerFunc) *script { return &script{answers: a} }

func (s *script) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	// Only a server that has read the body notices a client that leaves. What is missing of it fails the test.
	body, _ := io.ReadAll(r.Body)
	s.mu.Lock()
	s.asked = append(s.asked, request{time.Now(), r.Method, r.Host, r.RequestURI, r.Header.Clone(), string(body)})
	answer := s.answers[min(len(s.asked), len(s.answers))-1]
	s.mu.Unlock()
	answer(w, r)
}

func (s *script) requests() []request {
	s.mu.Lock()
	defer s.mu.Unlock()
	return append([]request(nil), s.asked...)
}

// says answers with a status, a body and pairs of header name and value; "-" takes the header away.
func says(status int, body string, header ...string) http.HandlerFunc {
	return func(w http.ResponseWriter, _ *http.Request) {
		w.Header().Set("Content-Type", "application/json;charset=UTF-8")
		for i := 0; i < len(header); i += 2 {
			w.Header()[header[i]] = []string{header[i+1]}
			if header[i+1] == "-" {
				w.Header()[header[i]] = nil
			}
		}
		w.WriteHeader(status)
		_, _ = io.WriteString(w, body)
	}
}

// raw answers with bytes that net/http would not write, and closes the connection.
func raw(text string) http.HandlerFunc {
	return func(w http.ResponseWriter, _ *http.Request) {
		conn, _, err := http.NewResponseController(w).Hijack()
		if err != nil {
			panic(err)
		}
		_, _ = io.WriteString(conn, text)
		_ = conn.Close()
	}
}

// after answers later; a client that leaves meanwhile is let go.
func after(d time.Duration, then http.HandlerFunc) http.HandlerFunc {
	return func(w http.ResponseWriter, r *http.Request) {
		select {
		case <-time.After(d):
			then(w, r)
		case <-r.Context().Done():
		}
	}
}

func hangs(_ http.ResponseWriter, r *http.Request) { <-r.Context().Done() }

// sold is a token response as Smokeball documents it.
func sold(accessToken string) http.HandlerFunc {
	return says(http.StatusOK, `{"access_token":"`+accessToken+`","expires_in":3600,"token_type":"Bearer"}`)
}

// jwt is a token with these claims, signed by nobody.
func jwt(claims string) string {
	return "e30." + base64.RawURLEncoding.EncodeToString([]byte(claims)) + ".c2ln"
}

func (n *network) exchange(scopes ...string) (*token.Token, error) {
	return n.issuer.Exchange(n.t.Context(), credential(scopes...))
}

// token exchanges and fails the test if that brings none.
func (n *network) token(scopes ...string) *token.Token {
	n.t.Helper()
	tok, err := n.exchange(scopes...)
	if err != nil {
		n.t.Fatalf("Exchange: %v", err)
	}
	return tok
}

// failure exchanges and fails the test if that does not fail with class.
func (n *network) failure(class token.Class) token.Failure {
	n.t.Helper()
	tok, err := n.exchange()
	return wantFailure(n.t, tok, err, class)
}

func wantFailure(t *testing.T, tok *token.Token, err error, class token.Class) token.Failure {
	t.Helper()
	var f *token.Failure
	if !errors.As(err, &f) || tok != nil {
		t.Fatalf("Exchange = %v, %v, want a *token.Failure", tok, err)
	}
	if f.Class != class {
		t.Fatalf("the failure is %v, want %s", f, class)
	}
	return *f
}

func wantSaid(t *testing.T, f token.Failure, words string) {
	t.Helper()
	if !strings.Contains(f.Error(), words) {
		t.Errorf("the error is %q, want %q in it", f.Error(), words)
	}
}

func wantRequests(t *testing.T, s *script, want int) {
	t.Helper()
	if got := len(s.requests()); got != want {
		t.Errorf("%d requests were made, want %d", got, want)
	}
}

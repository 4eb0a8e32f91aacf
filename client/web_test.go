package client_test

import (
	"context"
	"errors"
	"io"
	"log"
	"net"
	"net/http"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"

	"google.golang.org/grpc/test/bufconn"

	"smokeball.internal/tokenbroker/client"
)

const (
	api     = "https://api.smokeball.com"
	account = api + "/ACCOUNT"
	storage = "https://storage.example"
)

// web is HTTP servers that are reached in memory. They are asked with net/http, which
// takes the connection to those with https for one with TLS.
type web struct {
	t     *testing.T
	base  *http.Transport
	mu    sync.Mutex
	sites map[string]*site // :: HOST:PORT → its server
	dials int
}

// site is a server, and what it was asked.
type site struct {
	listener *bufconn.Listener
	mu       sync.Mutex
	asked    []asked
}

type asked struct {
	method, host, uri, authorization, body string
	apiKey                                 []string
}

func newWeb(t *testing.T) *web {
	w := &web{t: t, sites: map[string]*site{}}
	w.base = &http.Transport{DialContext: w.dial, DialTLSContext: w.dial}
	t.Cleanup(w.base.CloseIdleConnections)
	return w
}

// serve serves a site at HOST:PORT. handler nil: it answers 200.
func (w *web) serve(address string, handler http.HandlerFunc) *site {
	if handler == nil {
		handler = func(http.ResponseWriter, *http.Request) {}
	}
	s := &site{listener: bufconn.Listen(64 << 10)}
	server := &http.Server{ErrorLog: log.New(io.Discard, "", 0), Handler: http.HandlerFunc(func(rw http.ResponseWriter, r *http.Request) {
		body, _ := io.ReadAll(r.Body)
		s.mu.Lock()
		s.asked = append(s.asked, asked{r.Method, r.Host, r.RequestURI, strings.Join(r.Header.Values("Authorization"), ", "), string(body), r.Header.Values("X-Api-Key")})
		s.mu.Unlock()
		handler(rw, r)
	})}
	went := make(chan struct{})
	go func() {
		defer close(went)
		_ = server.Serve(s.listener)
	}()
	w.t.Cleanup(func() {
		_ = server.Close()
		<-went
	})
	w.mu.Lock()
	defer w.mu.Unlock()
	w.sites[address] = s
	return s
}

func (w *web) dial(ctx context.Context, _, address string) (net.Conn, error) {
	w.mu.Lock()
	w.dials++
	s := w.sites[address]
	w.mu.Unlock()
	if s == nil {
		return nil, errors.New("nobody is there")
	}
	return s.listener.DialContext(ctx)
}

// all returns what the site was asked.
func (s *site) all() []asked {
	s.mu.Lock()
	defer s.mu.Unlock()
	return slices.Clone(s.asked)
}

// one returns what the site was asked, if that was one thing.
func (s *site) one(t *testing.T) asked {
	t.Helper()
	all := s.all()
	if len(all) != 1 {
		t.Fatalf("the site was asked %v, want one thing", all)
	}
	return all[0]
}

// source has tokens as a *client.TokenSource has them.
type source struct {
	wait    func(ctx context.Context) error // Get waits for it first; nil: it does not
	refuses error                           // what Replace says, if there is an error

	mu       sync.Mutex
	tokens   []*client.Token // the first is held; Replace takes it away
	replaced []string        // what Replace was asked
}

func newSource(ids ...string) *source {
	s := &source{}
	for _, id := range ids {
		s.tokens = append(s.tokens, &client.Token{ID: id, AccessToken: id + "-token", APIBaseURL: account, APIKey: "key"})
	}
	return s
}

func (s *source) Get(ctx context.Context) (*client.Token, error) {
	if s.wait != nil {
		if err := s.wait(ctx); err != nil {
			return nil, err
		}
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.tokens[0], nil
}

func (s *source) Replace(_ context.Context, rejectedID string) (*client.Token, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.replaced = append(s.replaced, rejectedID)
	if s.refuses != nil {
		return nil, s.refuses
	}
	if s.tokens[0].ID == rejectedID && len(s.tokens) > 1 {
		s.tokens = s.tokens[1:]
	}
	return s.tokens[0], nil
}

func (s *source) replacements() []string {
	s.mu.Lock()
	defer s.mu.Unlock()
	return slices.Clone(s.replaced)
}

// transport is a client.Transport.
type transport struct {
	source *source
	base   http.RoundTripper
}

func (t transport) RoundTrip(req *http.Request) (*http.Response, error) {
	return client.RoundTrip(t.source, t.base, req)
}

// body is a request's body. Nobody knows that it can be had again.
type body struct {
	io.Reader
	closed atomic.Int32
}

func newBody(content string) *body { return &body{Reader: strings.NewReader(content)} }

func (b *body) Close() error {
	b.closed.Add(1)
	return nil
}

// request returns a request with a body, or without if that is nil.
func request(t *testing.T, method, url string, content io.Reader) *http.Request {
	t.Helper()
	req, err := http.NewRequestWithContext(t.Context(), method, url, content)
	if err != nil {
		t.Fatal(err)
	}
	return req
}

// read returns what an answer says, and closes it.
func read(t *testing.T, resp *http.Response) string {
	t.Helper()
	content, err := io.ReadAll(resp.Body)
	if err != nil {
		t.Errorf("the answer's body: %v", err)
	}
	_ = resp.Body.Close()
	return string(content)
}

// answers answers with one status after the other, and for ever with the last. The
// body says which.
func answers(statuses ...int) http.HandlerFunc {
	var n atomic.Int32
	return func(w http.ResponseWriter, _ *http.Request) {
		i := int(n.Add(1)) - 1
		w.WriteHeader(statuses[min(i, len(statuses)-1)])
		_, _ = io.WriteString(w, "answer "+string(rune('1'+i)))
	}
}

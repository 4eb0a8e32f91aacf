package statuspage_test

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"slices"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"smokeball.internal/tokenbroker/internal/access"
	"smokeball.internal/tokenbroker/internal/access/accesstest"
	"smokeball.internal/tokenbroker/internal/audit"
	"smokeball.internal/tokenbroker/internal/broker"
	"smokeball.internal/tokenbroker/internal/statuspage"
	"smokeball.internal/tokenbroker/internal/tenant"
	"smokeball.internal/tokenbroker/internal/token"
)

const (
	acmeViewer = "spiffe://test.example/acme-viewer"
	reader     = "spiffe://test.example/reader"
	nobody     = "spiffe://test.example/nobody"
)

// rules let some see some.
const rules = `rules:
- name: all
  principals: [jwt:oncall, jwt:hasty]
  roles: [tenant.viewer]
  tenants: ["*"]
- name: acme
  principals: ["` + acmeViewer + `"]
  roles: [tenant.viewer]
  tenants: [acme-one]
- name: by label
  principals: ["jwt:team"]
  roles: [tenant.viewer]
  labels: {team: globex}
- name: tokens
  principals: ["` + reader + `"]
  roles: [token.reader]
  tenants: ["*"]
limits:
- principals: [jwt:hasty]
  calls_per_second: 1
`

// street is a page with its doors: plain text and TLS.
type street struct {
	*house
	authority *accesstest.Authority
	tokens    *accesstest.TokenIssuer
	log       *audit.Log
	records   func() string
	server    *httptest.Server // with TLS
	from      string           // the address of whoever comes, if it is not the true one
}

func newStreet(t *testing.T) *street {
	t.Helper()
	tokens, verifier := newIDP(t)
	s := &street{authority: accesstest.NewAuthority(t), tokens: tokens}
	s.log, s.records = auditFile(t)
	certificates := &access.Certificates{}
	server := s.authority.Issue("server", nil)
	if err := errors.Join(certificates.SetServer(server.PEM, server.KeyPEM), certificates.SetAuthorities(s.authority.PEM())); err != nil {
		t.Fatal(err)
	}
	s.house = newHouse(t, func(c *statuspage.Config, h *house) {
		c.Guard, c.Certificates, c.Audit = guardOf(t, verifier, h.broker, rules), certificates, s.log
	})
	s.register(t, "acme-one", "acme-two", "globex-one", "globex-two")
	s.server = httptest.NewUnstartedServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if s.from != "" {
			r.RemoteAddr = s.from
		}
		s.page.ServeHTTP(w, r)
	}))
	s.server.Config.ErrorLog = slog.NewLogLogger(slog.DiscardHandler, slog.LevelError)
	s.server.Listener = tls.NewListener(s.server.Listener, certificates.OptionalConfig())
	s.server.Start()
	t.Cleanup(s.server.Close)
	return s
}

// newIDP returns who issues bearer tokens, and what the page knows them by.
func newIDP(t *testing.T) (*accesstest.TokenIssuer, *access.Tokens) {
	t.Helper()
	tokens := accesstest.NewTokenIssuer(t, "https://idp.example", "key")
	verifier := access.NewTokens("https://idp.example", []string{"tokenbroker"}, nil)
	if err := verifier.SetKeys(tokens.JWKS()); err != nil {
		t.Fatal(err)
	}
	return tokens, verifier
}

// bearer returns a token of somebody.
func (s *street) bearer(subject string) string {
	return "Bearer " + s.tokens.Sign(s.tokens.Claims(subject, "tokenbroker"))
}

// visit asks for the page over TLS, as the holder of a certificate (empty: none)
// and of a token (the same).
func (s *street) visit(t *testing.T, spiffe, authorization string) answer {
	t.Helper()
	config := &tls.Config{RootCAs: s.authority.Pool(), MinVersion: tls.VersionTLS13}
	if spiffe != "" {
		config.Certificates = []tls.Certificate{s.authority.Issue("client", accesstest.SPIFFE(spiffe)).TLS}
	}
	client := &http.Client{Transport: &http.Transport{TLSClientConfig: config, DisableKeepAlives: true}}
	req, err := http.NewRequestWithContext(t.Context(), http.MethodGet, "https://"+s.server.Listener.Addr().String()+"/status", nil)
	if err != nil {
		t.Fatal(err)
	}
	if authorization != "" {
		req.Header.Set("Authorization", authorization)
	}
	resp, err := client.Do(req)
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = resp.Body.Close() }()
	var body strings.Builder
	if err := resp.Write(&body); err != nil {
		t.Fatal(err)
	}
	return answer{resp.StatusCode, resp.Header, body.String()}
}

// Without proof only who is on this machine, and has asked for it, sees the page.
func TestWhoIsOnThisMachine(t *testing.T) {
	h := newHouse(t, nil)
	for _, test := range []struct {
		peer, host string
		header     string
		want       int
	}{
		{"127.0.0.1:5", "127.0.0.1:9091", "", 200},
		{"127.8.8.8:5", "localhost:9091", "", 200},
		{"[::1]:5", "[::1]:9091", "", 200},
		{"[::ffff:127.0.0.1]:5", "LOCALHOST", "", 200},
		{"127.0.0.1:5", "[::1]", "", 200},
		{"192.0.2.7:5", "127.0.0.1:9091", "", 403},
		{"[2001:db8::1]:5", "localhost", "", 403},
		{"", "localhost", "", 403},
		{"@", "localhost", "", 403},
		// A name that is another's leads here.
		{"127.0.0.1:5", "rebound.example:9091", "", 403},
		{"127.0.0.1:5", "localhost.rebound.example", "", 403},
		{"127.0.0.1:5", "127.0.0.1.rebound.example:9091", "", 403},
		{"127.0.0.1:5", "10.0.0.1:9091", "", 403},
		{"127.0.0.1:5", "", "", 403},
		// A proxy on this machine passes on what others ask.
		{"127.0.0.1:5", "localhost", "X-Forwarded-For", 403},
		{"127.0.0.1:5", "localhost", "x-forwarded-host", 403},
		{"127.0.0.1:5", "localhost", "Forwarded", 403},
		{"127.0.0.1:5", "localhost", "Via", 403},
		{"127.0.0.1:5", "localhost", "X-Real-IP", 403},
		// Nobody is known here, so nobody can prove to be somebody.
		{"127.0.0.1:5", "localhost", "Authorization", 403},
		{"192.0.2.7:5", "localhost", "Authorization", 403},
	} {
		r := request(t, "/status")
		r.RemoteAddr, r.Host = test.peer, test.host
		if test.header != "" {
			r.Header.Set(test.header, "127.0.0.1")
		}
		got := serve(h.page, r)
		if got.status != test.want || got.status != 200 && strings.Contains(got.body, "<") {
			t.Errorf("%+v: %d %s", test, got.status, got.body)
		}
	}
}

func TestWhoSeesWhichTenants(t *testing.T) {
	s := newStreet(t)
	for _, from := range []string{"", "192.0.2.7:50123"} { // It is all the same with a proof.
		s.from = from
		for _, test := range []struct {
			spiffe, bearer string
			status         int
			want           []string
		}{
			{"", "oncall", 200, []string{"acme-one", "acme-two", "globex-one", "globex-two"}},
			{"", "team", 200, []string{"globex-one", "globex-two"}},
			{acmeViewer, "", 200, []string{"acme-one"}},
			{acmeViewer, "team", 200, []string{"globex-one", "globex-two"}}, // The certificate is a proxy's.
			{reader, "", 403, nil},
			{nobody, "", 403, nil},
			{"", "nobody", 403, nil},
			{reader, "nobody", 403, nil},
		} {
			header := ""
			if test.bearer != "" {
				header = s.bearer(test.bearer)
			}
			got := s.visit(t, test.spiffe, header)
			if seen := ids(got.body, "tenants"); got.status != test.status || !slices.Equal(seen, test.want) {
				t.Errorf("%+v from %q: %d %q", test, from, got.status, seen)
			}
			for _, id := range []string{"acme-one", "acme-two", "globex-one", "globex-two"} {
				if strings.Contains(got.body, id) && !slices.Contains(test.want, id) {
					t.Errorf("%+v: %s is on the page", test, id)
				}
			}
			// How many there are is told to those who see all by being here.
			if strings.Contains(got.body, "123,456") {
				t.Errorf("%+v: all are counted", test)
			}
		}
	}
}

// Troubles are the tenants' too.
func TestWhoSeesWhichTroubles(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		tokens, verifier := newIDP(t)
		h := newHouse(t, func(c *statuspage.Config, h *house) { c.Guard = guardOf(t, verifier, h.broker, rules) })
		h.register(t, "acme-one", "acme-two", "globex-one", "globex-two")
		synctest.Wait()
		h.Issuer.Answer = func(token.Credential) *token.Failure {
			return &token.Failure{Class: token.CredentialsRejected, Message: "no"}
		}
		for _, id := range []string{"acme-one", "acme-two", "globex-one"} {
			if _, err := h.broker.Get(t.Context(), id, nil, 0); err == nil {
				t.Fatalf("%s has a token", id)
			}
		}
		visit := func() string {
			r := request(t, "/status")
			r.Header.Set("Authorization", "Bearer "+tokens.Sign(tokens.Claims("team", "tokenbroker")))
			return serve(h.page, r).body
		}
		wants(t, visit(), `In trouble <span class="count">1</span>`, ">globex-one<", ">globex-two<", "not:acme")
		time.Sleep(time.Second) // So that it does not come too often.
		// While Redis is away, what is in memory is seen by the same rules.
		h.redis.away.Store(true)
		h.Store.SetAway(true)
		page := visit()
		wants(t, page, "not:acme")
		if seen := ids(page, "tenants"); !slices.Equal(seen, []string{"globex-one"}) {
			t.Errorf("in memory: %q", seen)
		}
	})
}

// brief is a registry that is gone after the first answer.
type brief struct {
	broker.Records
	asked int
}

func (b *brief) ListTenants(ctx context.Context, after string, limit int) ([]*tenant.Tenant, string, error) {
	if b.asked++; b.asked > 1 {
		return nil, "", errAway
	}
	return b.Records.ListTenants(ctx, after, limit)
}

// A list is of Redis or of memory, and not of both.
func TestRedisGoesAwayInTheMiddleOfAList(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		tokens, verifier := newIDP(t)
		h := newHouse(t, func(c *statuspage.Config, h *house) {
			c.Guard, c.Registry = guardOf(t, verifier, h.broker, rules), broker.NewRegistry(h.broker, &brief{Records: h.Store})
		})
		h.register(t, "globex-one", "globex-two")
		for n := range 60 {
			h.register(t, fmt.Sprintf("hooli-%d", n)) // Which the viewer does not see.
		}
		h.get(t, "globex-two")
		r := request(t, "/status")
		r.Header.Set("Authorization", "Bearer "+tokens.Sign(tokens.Claims("team", "tokenbroker")))
		page := serve(h.page, r).body
		wants(t, page, "Redis is out of reach. These are", "not:rel=\"next\"")
		if seen := ids(page, "tenants"); !slices.Equal(seen, []string{"globex-two"}) {
			t.Errorf("in memory: %q", seen)
		}
	})
}

func TestProofsThatAreNone(t *testing.T) {
	s := newStreet(t)
	for header, want := range map[string]string{
		"":                     "Show who you are",
		"Bearer nonsense":      "What you show is not accepted: the bearer token is not a signed JSON web token",
		"Basic b25jYWxsOng=":   "What you show is not accepted: the Authorization header is not one bearer token",
		s.bearer("oncall")[1:]: "What you show is not accepted",
		"Bearer " + accesstest.Unsigned(t, s.tokens.Claims("oncall", "tokenbroker")):                                          "What you show is not accepted",
		"Bearer " + s.tokens.Sign(s.tokens.Claims("oncall", "another")):                                                       "meant for another audience",
		"Bearer " + accesstest.NewTokenIssuer(t, "https://idp.example", "key").Sign(s.tokens.Claims("oncall", "tokenbroker")): "not signed by a key of the issuer",
	} {
		s.from = "192.0.2.7:50123"
		if header != "" {
			s.from = "" // On this machine a bad proof is not as good as none.
		}
		got := s.visit(t, "", header)
		if got.status != http.StatusUnauthorized || !strings.Contains(got.body, want) || got.header.Get("WWW-Authenticate") != "Bearer" {
			t.Errorf("%.40s: %d %s", header, got.status, got.body)
		}
	}
	// A certificate of another authority does not get as far as here.
	config := &tls.Config{RootCAs: s.authority.Pool(), MinVersion: tls.VersionTLS13,
		Certificates: []tls.Certificate{accesstest.NewAuthority(t).Issue("client", accesstest.SPIFFE(acmeViewer)).TLS}}
	client := &http.Client{Transport: &http.Transport{TLSClientConfig: config}}
	if resp, err := client.Get("https://" + s.server.Listener.Addr().String() + "/status"); err == nil {
		_ = resp.Body.Close()
		t.Errorf("status %d with another's certificate", resp.StatusCode)
	}
}

// A token does not belong on a wire that others can read.
func TestATokenIsNotTakenInPlainText(t *testing.T) {
	s := newStreet(t)
	r := request(t, "/status")
	r.Header.Set("Authorization", s.bearer("team"))
	if got := serve(s.page, r); got.status != 200 || len(ids(got.body, "tenants")) != 2 {
		t.Errorf("within this machine: %d %s", got.status, got.body)
	}
	r.RemoteAddr = "192.0.2.7:50123"
	if got := serve(s.page, r); got.status != http.StatusForbidden || !strings.Contains(got.body, "--ops-tls") {
		t.Errorf("from another: %d %s", got.status, got.body)
	}
	r.Header.Del("Authorization")
	if got := serve(s.page, r); got.status != http.StatusForbidden || !strings.Contains(got.body, "--ops-tls") {
		t.Errorf("from another, without a token: %d %s", got.status, got.body)
	}
}

func TestWhoComesTooOftenIsToldSo(t *testing.T) {
	s := newStreet(t)
	if got := s.visit(t, "", s.bearer("hasty")); got.status != 200 {
		t.Fatalf("%d %s", got.status, got.body)
	}
	got := s.visit(t, "", s.bearer("hasty"))
	if got.status != http.StatusTooManyRequests || got.header.Get("Retry-After") != "1" {
		t.Errorf("%d %v", got.status, got.header)
	}
	if got := s.visit(t, "", s.bearer("oncall")); got.status != 200 {
		t.Errorf("another: %d %s", got.status, got.body)
	}
}

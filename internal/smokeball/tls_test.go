package smokeball_test

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"io"
	"log"
	"net"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"

	"smokeball.internal/tokenbroker/internal/smokeball"
	"smokeball.internal/tokenbroker/internal/token"
)

// secure serves s over TLS on loopback, in real time: a failure takes the issuer's two waits, under a second.
func secure(t *testing.T, s *script, config *tls.Config, http2 bool) *httptest.Server {
	t.Helper()
	server := httptest.NewUnstartedServer(s)
	server.TLS, server.EnableHTTP2 = config, http2
	server.Config.ErrorLog = log.New(io.Discard, "", 0)
	server.StartTLS()
	t.Cleanup(server.Close)
	return server
}

func issuer(t *testing.T, trusted *httptest.Server) *smokeball.Issuer {
	t.Helper()
	i := smokeball.New(nil)
	transport := i.Transport()
	transport.Proxy = nil
	if trusted != nil {
		transport.TLSClientConfig.RootCAs = x509.NewCertPool()
		transport.TLSClientConfig.RootCAs.AddCert(trusted.Certificate())
	}
	t.Cleanup(transport.CloseIdleConnections)
	return i
}

func at(server *httptest.Server) token.Credential {
	c := credential()
	c.Endpoint = server.URL + "/oauth2/token"
	return c
}

func TestTLSBefore12IsRefused(t *testing.T) {
	for name, test := range map[string]struct {
		version uint16
		good    bool
	}{
		"TLS 1.0": {tls.VersionTLS10, false},
		"TLS 1.1": {tls.VersionTLS11, false},
		"TLS 1.2": {tls.VersionTLS12, true}, // shows that it is the version that is refused
		"TLS 1.3": {tls.VersionTLS13, true},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			s := answers(sold(accessToken))
			server := secure(t, s, &tls.Config{MinVersion: test.version, MaxVersion: test.version}, false)
			tok, err := issuer(t, server).Exchange(t.Context(), at(server))
			if test.good {
				if err != nil {
					t.Errorf("Exchange: %v", err)
				}
				return
			}
			wantSaid(t, wantFailure(t, tok, err, token.Unavailable), "could not be reached")
			wantRequests(t, s, 0)
		})
	}
}

func TestCertificateThatDoesNotVerifyIsSaidInWords(t *testing.T) {
	for _, name := range []string{"unknown authority", "another name"} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			s := answers(sold(accessToken))
			server := secure(t, s, nil, false)
			i, c := issuer(t, nil), at(server)
			if name == "another name" {
				i = issuer(t, server)
				c.Endpoint = "https://auth.smokeball.test/oauth2/token"
				i.Transport().DialContext = func(ctx context.Context, network, _ string) (net.Conn, error) {
					return new(net.Dialer).DialContext(ctx, network, server.Listener.Addr().String())
				}
			}
			tok, err := i.Exchange(t.Context(), c)
			f := wantFailure(t, tok, err, token.Unavailable)
			wantSaid(t, f, "has a TLS certificate that does not verify")
			wantSaid(t, f, strings.TrimSuffix(strings.TrimPrefix(c.Endpoint, "https://"), "/oauth2/token"))
			wantRequests(t, s, 0)
		})
	}
}

func TestHTTP2IsSpokenWhereTheIssuerDoes(t *testing.T) {
	t.Parallel()
	protocol := make(chan string, 1)
	s := answers(func(w http.ResponseWriter, r *http.Request) {
		protocol <- r.Proto
		sold(accessToken)(w, r)
	})
	server := secure(t, s, nil, true)
	if _, err := issuer(t, server).Exchange(t.Context(), at(server)); err != nil {
		t.Fatal(err)
	}
	if got := <-protocol; got != "HTTP/2.0" {
		t.Errorf("the issuer was asked in %s", got)
	}
}

func TestHostWithoutAnAddressIsSaidInWords(t *testing.T) {
	bubble(t, answers(sold(accessToken)), func(t *testing.T, n *network) {
		n.issuer.Transport().DialContext = func(context.Context, string, string) (net.Conn, error) {
			return nil, &net.OpError{Op: "dial", Err: &net.DNSError{Err: "no such host", Name: "auth.example", IsNotFound: true}}
		}
		wantSaid(t, n.failure(token.Unavailable), "auth.example has no address: DNS look-up failed")
	})
}

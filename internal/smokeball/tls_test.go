package smokeball_test

import (
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"io"
	"log"
	"math/big"
	"net"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"time"

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

// certified returns a certificate for 127.0.0.1 with change made to it (nil: none), and who it is good for: whoever
// trusts the authority that signed it.
func certified(t *testing.T, change func(*x509.Certificate)) (tls.Certificate, *x509.CertPool) {
	t.Helper()
	key := func() *ecdsa.PrivateKey {
		k, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
		if err != nil {
			t.Fatal(err)
		}
		return k
	}
	authority := &x509.Certificate{
		SerialNumber: big.NewInt(1), Subject: pkix.Name{CommonName: "test authority"},
		NotBefore: time.Now().Add(-48 * time.Hour), NotAfter: time.Now().Add(48 * time.Hour),
		IsCA: true, BasicConstraintsValid: true, KeyUsage: x509.KeyUsageCertSign,
	}
	leaf := &x509.Certificate{
		SerialNumber: big.NewInt(2), Subject: pkix.Name{CommonName: "127.0.0.1"}, IPAddresses: []net.IP{net.IPv4(127, 0, 0, 1)},
		NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().Add(time.Hour),
		KeyUsage: x509.KeyUsageDigitalSignature, ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth},
	}
	if change != nil {
		change(leaf)
	}
	authorityKey, leafKey := key(), key()
	signed := func(c *x509.Certificate, k *ecdsa.PrivateKey) []byte {
		der, err := x509.CreateCertificate(rand.Reader, c, authority, k.Public(), authorityKey)
		if err != nil {
			t.Fatal(err)
		}
		return der
	}
	root, err := x509.ParseCertificate(signed(authority, authorityKey))
	if err != nil {
		t.Fatal(err)
	}
	roots := x509.NewCertPool()
	roots.AddCert(root)
	return tls.Certificate{Certificate: [][]byte{signed(leaf, leafKey)}, PrivateKey: leafKey}, roots
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
	for name, change := range map[string]func(*x509.Certificate){
		"good":            nil, // shows that it is the certificate that is refused
		"of nobody known": nil,
		"of another host": func(c *x509.Certificate) { c.IPAddresses = []net.IP{net.IPv4(127, 0, 0, 2)} },
		"of a name alone": func(c *x509.Certificate) { c.IPAddresses = nil },
		"expired":         func(c *x509.Certificate) { c.NotAfter = time.Now().Add(-time.Minute) },
		"not valid yet":   func(c *x509.Certificate) { c.NotBefore = time.Now().Add(time.Minute) },
		"of a client":     func(c *x509.Certificate) { c.ExtKeyUsage = []x509.ExtKeyUsage{x509.ExtKeyUsageClientAuth} },
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			certificate, roots := certified(t, change)
			s := answers(sold(accessToken))
			server := secure(t, s, &tls.Config{Certificates: []tls.Certificate{certificate}}, false)
			i, c := issuer(t, nil), at(server)
			if name != "of nobody known" {
				i.Transport().TLSClientConfig.RootCAs = roots
			}
			tok, err := i.Exchange(t.Context(), c)
			if name == "good" {
				if err != nil {
					t.Errorf("Exchange: %v", err)
				}
				return
			}
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

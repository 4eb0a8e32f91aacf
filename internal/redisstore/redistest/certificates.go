package redistest

import (
	"crypto/tls"
	"crypto/x509"
	neturl "net/url"
	"os"
	"path/filepath"
	"testing"

	"smokeball.internal/tokenbroker/internal/access/accesstest"
)

// certificates are the files of a private authority and of one certificate that
// servers and clients share, for 127.0.0.1 and no name, good for an hour.
type certificates struct{ ca, cert, key string }

func newCertificates(t testing.TB) *certificates {
	t.Helper()
	dir := t.TempDir()
	c := &certificates{filepath.Join(dir, "ca.pem"), filepath.Join(dir, "cert.pem"), filepath.Join(dir, "key.pem")}
	authority := accesstest.NewAuthority(t)
	leaf := authority.Issue("redis", nil)
	for path, content := range map[string][]byte{c.ca: authority.PEM(), c.cert: leaf.PEM, c.key: leaf.KeyPEM} {
		if err := os.WriteFile(path, content, 0o600); err != nil {
			t.Fatal(err)
		}
	}
	return c
}

// query returns the files as the parameters of a store's URL.
func (c *certificates) query() string {
	return neturl.Values{"ca_file": {c.ca}, "cert_file": {c.cert}, "key_file": {c.key}}.Encode()
}

// client returns what a client needs to speak to a server with these.
func (c *certificates) client(t testing.TB) *tls.Config {
	pair, err := tls.LoadX509KeyPair(c.cert, c.key)
	if err != nil {
		t.Fatal(err)
	}
	authority, err := os.ReadFile(c.ca)
	if err != nil {
		t.Fatal(err)
	}
	roots := x509.NewCertPool()
	roots.AppendCertsFromPEM(authority)
	return &tls.Config{MinVersion: tls.VersionTLS12, RootCAs: roots, Certificates: []tls.Certificate{pair}}
}

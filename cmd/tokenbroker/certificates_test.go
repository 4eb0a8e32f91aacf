package main_test

import (
	"crypto/x509"
	"os"
	"path/filepath"
	"testing"

	"smokeball.internal/tokenbroker/internal/access/accesstest"
)

// writeCertificates writes a certificate authority (ca.pem), and a certificate
// of its own with key for the server and for a caller (server.pem, caller.pem),
// valid for an hour.
func writeCertificates(t *testing.T, dir string) {
	t.Helper()
	authority := accesstest.NewAuthority(t)
	files := map[string][]byte{"ca.pem": authority.PEM()}
	for _, name := range []string{"server", "caller"} {
		certificate := authority.Issue(name, func(c *x509.Certificate) { c.DNSNames = []string{"localhost"} })
		files[name+".pem"], files[name+"-key.pem"] = certificate.PEM, certificate.KeyPEM
	}
	for name, content := range files {
		if err := os.WriteFile(filepath.Join(dir, name), content, 0o600); err != nil {
			t.Fatal(err)
		}
	}
}

package redistest

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"math/big"
	"net"
	neturl "net/url"
	"os"
	"path/filepath"
	"testing"
	"time"
)

// certificates are the files of a private authority and of one certificate that
// servers and clients share, for 127.0.0.1 and no name, good for an hour.
type certificates struct{ ca, cert, key string }

func newCertificates(t testing.TB) *certificates {
	t.Helper()
	dir := t.TempDir()
	c := &certificates{filepath.Join(dir, "ca.pem"), filepath.Join(dir, "cert.pem"), filepath.Join(dir, "key.pem")}
	authority := &x509.Certificate{
		SerialNumber: big.NewInt(1), Subject: pkix.Name{CommonName: "test authority"},
		NotBefore: time.Now().Add(-time.Minute), NotAfter: time.Now().Add(time.Hour),
		IsCA: true, BasicConstraintsValid: true, KeyUsage: x509.KeyUsageCertSign,
	}
	leaf := &x509.Certificate{
		SerialNumber: big.NewInt(2), Subject: pkix.Name{CommonName: "redis"},
		NotBefore: authority.NotBefore, NotAfter: authority.NotAfter,
		IPAddresses: []net.IP{net.IPv4(127, 0, 0, 1)},
		KeyUsage:    x509.KeyUsageDigitalSignature,
		ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth, x509.ExtKeyUsageClientAuth},
	}
	authorityKey, leafKey := newKey(t), newKey(t)
	writePEM(t, c.ca, "CERTIFICATE")(x509.CreateCertificate(rand.Reader, authority, authority, authorityKey.Public(), authorityKey))
	writePEM(t, c.cert, "CERTIFICATE")(x509.CreateCertificate(rand.Reader, leaf, authority, leafKey.Public(), authorityKey))
	writePEM(t, c.key, "PRIVATE KEY")(x509.MarshalPKCS8PrivateKey(leafKey))
	return c
}

func newKey(t testing.TB) *ecdsa.PrivateKey {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	return key
}

func writePEM(t testing.TB, path, kind string) func(der []byte, err error) {
	return func(der []byte, err error) {
		t.Helper()
		if err == nil {
			err = os.WriteFile(path, pem.EncodeToMemory(&pem.Block{Type: kind, Bytes: der}), 0o600)
		}
		if err != nil {
			t.Fatal(err)
		}
	}
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

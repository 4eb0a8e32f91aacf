package config_test

import (
	"bytes"
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"errors"
	"log/slog"
	"math/big"
	"net"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"smokeball.internal/tokenbroker/internal/config"
	"smokeball.internal/tokenbroker/internal/secret"
)

func TestInsecure(t *testing.T) {
	for addr, fine := range map[string]bool{
		"127.0.0.1:9090": true, "127.8.8.8:9090": true, "[::1]:9090": true, "localhost:9090": true,
		"0.0.0.0:9090": false, "[::]:9090": false, ":9090": false, "broker.example:9090": false, "localhost.example:9090": false,
		"192.168.0.1:9090": false, "127.0.0.1.example:9090": false,
	} {
		t.Run(addr, func(t *testing.T) {
			_, err := parse(t, "", nil, append(enough, "--grpc-addr="+addr)...)
			if fine && err != nil {
				t.Error(err)
			}
			if !fine {
				wantRefused(t, err, "--insecure", "--grpc-addr")
			}
		})
	}
}

func TestAddressesHaveAPort(t *testing.T) {
	for _, flag := range []string{"--grpc-addr", "--ops-addr"} {
		for _, addr := range []string{"", "127.0.0.1", "127.0.0.1:", "9090", "[::1]"} {
			_, err := parse(t, "", nil, append(enough, flag+"="+addr)...)
			wantRefused(t, err, flag, "HOST:PORT")
		}
	}
}

func TestTLSFilesGoTogether(t *testing.T) {
	const cert, key, ca = "--tls-cert-file=c", "--tls-key-file=k", "--client-ca-file=a"
	for name, args := range map[string][]string{
		"none":                       {},
		"no certificate":             {key, ca},
		"no key":                     {cert, ca},
		"no authorities":             {cert, key},
		"insecure and all":           {cert, key, ca, "--insecure"},
		"insecure and a certificate": {cert, "--insecure"},
		"insecure and authorities":   {ca, "--insecure"},
	} {
		t.Run(name, func(t *testing.T) {
			_, err := parse(t, "", nil, append(args, "--keyset-file=k")...)
			wantRefused(t, err, "insecure")
		})
	}
	if _, err := parse(t, "", nil, cert, key, ca, "--keyset-file=k", "--grpc-addr=0.0.0.0:9090"); err != nil {
		t.Errorf("all three: %v", err)
	}
}

// authority signs certificates.
type authority struct {
	certificate *x509.Certificate
	key         *ecdsa.PrivateKey
}

func newAuthority(t *testing.T) authority {
	t.Helper()
	a := authority{&x509.Certificate{Subject: pkix.Name{CommonName: "authority"}, IsCA: true, BasicConstraintsValid: true,
		KeyUsage: x509.KeyUsageCertSign}, nil}
	_, a.key = a.sign(t, a.certificate)
	return a
}

// sign completes and signs template; an authority without a key signs itself.
func (a authority) sign(t *testing.T, template *x509.Certificate) (der []byte, key *ecdsa.PrivateKey) {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	template.SerialNumber = big.NewInt(time.Now().UnixNano())
	template.NotBefore, template.NotAfter = time.Now().Add(-time.Hour), time.Now().Add(time.Hour)
	signer := a.key
	if signer == nil {
		signer = key
	}
	der, err = x509.CreateCertificate(rand.Reader, template, a.certificate, &key.PublicKey, signer)
	if err != nil {
		t.Fatal(err)
	}
	if a.key == nil {
		a.certificate.Raw, a.certificate.PublicKey = der, &key.PublicKey
	}
	return der, key
}

// issue returns a certificate for what usage says.
func (a authority) issue(t *testing.T, usage x509.ExtKeyUsage) tls.Certificate {
	t.Helper()
	der, key := a.sign(t, &x509.Certificate{Subject: pkix.Name{CommonName: "leaf"}, DNSNames: []string{"broker"},
		KeyUsage: x509.KeyUsageDigitalSignature, ExtKeyUsage: []x509.ExtKeyUsage{usage}})
	return tls.Certificate{Certificate: [][]byte{der}, PrivateKey: key}
}

func (a authority) pem() string {
	return string(pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: a.certificate.Raw}))
}

// files writes a server's certificate and key, and the callers' authorities.
func files(t *testing.T, server, callers authority) *config.Serve {
	t.Helper()
	certificate := server.issue(t, x509.ExtKeyUsageServerAuth)
	key, err := x509.MarshalPKCS8PrivateKey(certificate.PrivateKey)
	if err != nil {
		t.Fatal(err)
	}
	return &config.Serve{
		TLSCertFile:  write(t, "cert.pem", string(pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: certificate.Certificate[0]}))),
		TLSKeyFile:   write(t, "key.pem", string(pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: key}))),
		ClientCAFile: write(t, "ca.pem", callers.pem()),
	}
}

func TestTLS(t *testing.T) {
	ours, callers, strangers := newAuthority(t), newAuthority(t), newAuthority(t)
	server, err := files(t, ours, callers).TLS()
	if err != nil {
		t.Fatal(err)
	}
	for _, test := range []struct {
		name        string
		certificate []tls.Certificate
		version     uint16 // the caller's highest
		works       bool
	}{
		{"a caller", []tls.Certificate{callers.issue(t, x509.ExtKeyUsageClientAuth)}, tls.VersionTLS13, true},
		{"a stranger", []tls.Certificate{strangers.issue(t, x509.ExtKeyUsageClientAuth)}, tls.VersionTLS13, false},
		{"one of the server's authority", []tls.Certificate{ours.issue(t, x509.ExtKeyUsageClientAuth)}, tls.VersionTLS13, false},
		{"a certificate for servers", []tls.Certificate{callers.issue(t, x509.ExtKeyUsageServerAuth)}, tls.VersionTLS13, false},
		{"nobody", nil, tls.VersionTLS13, false},
		{"a caller of yesterday", []tls.Certificate{callers.issue(t, x509.ExtKeyUsageClientAuth)}, tls.VersionTLS12, false},
	} {
		t.Run(test.name, func(t *testing.T) {
			roots := x509.NewCertPool()
			roots.AppendCertsFromPEM([]byte(ours.pem()))
			err := shakeHands(t, server, &tls.Config{RootCAs: roots, ServerName: "broker", Certificates: test.certificate,
				MinVersion: tls.VersionTLS12, MaxVersion: test.version})
			if test.works != (err == nil) {
				t.Errorf("server: %v", err)
			}
		})
	}
}

// shakeHands returns the server's word on the handshake: with TLS 1.3 the client
// is done before it is refused.
func shakeHands(t *testing.T, server, client *tls.Config) error {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), 10*time.Second)
	defer cancel()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = l.Close() }()
	went := make(chan struct{})
	go func() {
		defer close(went)
		dialer := tls.Dialer{Config: client}
		if conn, err := dialer.DialContext(ctx, "tcp", l.Addr().String()); err == nil {
			_, _ = conn.Read(make([]byte, 1)) // Until the server closes.
			_ = conn.Close()
		}
	}()
	conn, err := l.Accept()
	if err != nil {
		t.Fatal(err)
	}
	err = tls.Server(conn, server).HandshakeContext(ctx)
	_ = conn.Close()
	<-went
	return err
}

func TestBadTLSFiles(t *testing.T) {
	a := newAuthority(t)
	for name, spoil := range map[string]func(*config.Serve){
		"no certificate file":   func(c *config.Serve) { c.TLSCertFile = filepath.Join(t.TempDir(), "missing") },
		"no key file":           func(c *config.Serve) { c.TLSKeyFile = filepath.Join(t.TempDir(), "missing") },
		"no authorities file":   func(c *config.Serve) { c.ClientCAFile = filepath.Join(t.TempDir(), "missing") },
		"a key of another":      func(c *config.Serve) { c.TLSKeyFile = files(t, a, a).TLSKeyFile },
		"authorities of nobody": func(c *config.Serve) { c.ClientCAFile = write(t, "ca.pem", "nobody") },
		"a key as authority":    func(c *config.Serve) { c.ClientCAFile = c.TLSKeyFile },
	} {
		t.Run(name, func(t *testing.T) {
			c := files(t, a, a)
			spoil(c)
			if got, err := c.TLS(); err == nil || got != nil {
				t.Errorf("got %v, %v", got, err)
			} else if strings.Contains(err.Error(), "PRIVATE KEY") {
				t.Errorf("%q tells the key", err)
			}
		})
	}
	if got, err := (&config.Serve{Insecure: true}).TLS(); got != nil || err != nil {
		t.Errorf("insecure: %v, %v", got, err)
	}
}

func TestRedisPasswords(t *testing.T) {
	for name, read := range map[string]func(file string) (secret.Text, error){
		"redis": func(file string) (secret.Text, error) {
			return (&config.Redis{RedisPasswordFile: file}).RedisPassword()
		},
		"sentinels": func(file string) (secret.Text, error) {
			return (&config.Redis{RedisSentinelPasswordFile: file}).RedisSentinelPassword()
		},
	} {
		for content, want := range map[string]string{"p\n": "p", "p": "p", "p\r\n": "p", "p q\n\n": "p q", " p": " p", "": "", "\n": "", "\r\n": ""} {
			got, err := read(write(t, "password", content))
			if got.Reveal() != want || (err == nil) != (want != "") {
				t.Errorf("%s: %q: got %q, %v", name, content, got.Reveal(), err)
			}
		}
		if _, err := read(filepath.Join(t.TempDir(), "missing")); err == nil {
			t.Errorf("%s: a file that is missing: no error", name)
		}
		if got, err := read(""); !got.IsZero() || err != nil {
			t.Errorf("%s: no file: %v, %v", name, got, err)
		}
	}
}

func TestLogger(t *testing.T) {
	levels := []slog.Level{slog.LevelDebug, slog.LevelInfo, slog.LevelWarn, slog.LevelError}
	for i, name := range []string{"debug", "info", "warn", "error"} {
		var out bytes.Buffer
		log := (&config.Serve{LogLevel: name, LogFormat: "json"}).Logger(&out)
		for _, level := range levels {
			log.Log(t.Context(), level, "said", "error", errors.New("why"))
		}
		if got, want := strings.Count(out.String(), `"msg":"said"`), len(levels)-i; got != want {
			t.Errorf("%s: %d records, want %d:\n%s", name, got, want, out.String())
		}
	}
	var out bytes.Buffer
	(&config.Serve{LogLevel: "info", LogFormat: "text"}).Logger(&out).Info("said")
	if !strings.Contains(out.String(), "msg=said") {
		t.Errorf("text: %s", out.String())
	}
}

package access

import (
	"crypto/tls"
	"crypto/x509"
	"encoding/pem"
	"errors"
	"fmt"
	"sync/atomic"
	"time"
)

// Certificates is the server's certificate and the authorities of its callers, both of which can be
// replaced while they are used. The zero Certificates has none of either.
type Certificates struct {
	server atomic.Pointer[tls.Certificate]
	trust  atomic.Pointer[trust]
	// Optional says that callers may come without a certificate, since they may have
	// a token.
	Optional bool
	// MinVersion is the lowest version of TLS; 0: TLS 1.3.
	MinVersion uint16
}

// trust is a set of authorities. Each has a number of its own.
type trust struct {
	number uint64
	roots  *x509.CertPool
	ends   time.Time // the first of them to
}

// SetServer sets the server's certificate chain and key, PEM. Connections that
// are there stay as they are. The error tells nothing of the key.
func (c *Certificates) SetServer(certificate, key []byte) error {
	pair, err := tls.X509KeyPair(certificate, key)
	if err != nil {
		return fmt.Errorf("certificate and key: %w", err)
	}
	c.server.Store(&pair)
	return nil
}

// SetAuthorities sets the authorities of callers, PEM. A caller that is connected
// by the word of one that is not among them any more is refused from then on.
func (c *Certificates) SetAuthorities(bundle []byte) error {
	next := &trust{number: 1, roots: x509.NewCertPool()}
	found := 0
	for block, rest := pem.Decode(bundle); block != nil; block, rest = pem.Decode(rest) {
		if block.Type != "CERTIFICATE" {
			return fmt.Errorf("the bundle has a %s in it, and may have certificates only", block.Type)
		}
		authority, err := x509.ParseCertificate(block.Bytes)
		if err != nil {
			return fmt.Errorf("certificate %d of the bundle: %w", found+1, err)
		}
		next.roots.AddCert(authority)
		next.ends = earlier(next.ends, authority.NotAfter)
		found++
	}
	if found == 0 {
		return errors.New("there is no PEM certificate in the bundle")
	}
	if before := c.trust.Load(); before != nil {
		next.number = before.number + 1
	}
	c.trust.Store(next)
	return nil
}

// Ends returns when the first certificate ends of those in force: of the server's
// chain, and of the authorities of callers, of which others may still be good. A zero
// time means that there are none.
func (c *Certificates) Ends() (server, authorities time.Time) {
	if pair := c.server.Load(); pair != nil {
		for _, der := range pair.Certificate {
			if certificate, err := x509.ParseCertificate(der); err == nil { // Of the server's own it was seen.
				server = earlier(server, certificate.NotAfter)
			}
		}
	}
	if trust := c.trust.Load(); trust != nil {
		authorities = trust.ends
	}
	return server, authorities
}

// earlier returns the earlier of two times, of which a zero one is none.
func earlier(a, b time.Time) time.Time {
	if a.IsZero() || b.Before(a) {
		return b
	}
	return a
}

// Config returns the configuration of a server that uses what is set when a
// client comes. There are no session tickets: a session that is resumed would
// be the word of an authority that may be gone.
func (c *Certificates) Config() *tls.Config { return c.config(c.Optional) }

// OptionalConfig is Config where clients may come without a certificate, whatever
// Optional says. One that they show must be good.
func (c *Certificates) OptionalConfig() *tls.Config { return c.config(true) }

func (c *Certificates) config(optional bool) *tls.Config {
	base := &tls.Config{MinVersion: c.MinVersion, SessionTicketsDisabled: true}
	if base.MinVersion == 0 {
		base.MinVersion = tls.VersionTLS13
	}
	base.GetConfigForClient = func(*tls.ClientHelloInfo) (*tls.Config, error) {
		server, trust := c.server.Load(), c.trust.Load()
		if server == nil {
			return nil, errors.New("the server has no certificate")
		}
		config := &tls.Config{MinVersion: base.MinVersion, SessionTicketsDisabled: true, Certificates: []tls.Certificate{*server}}
		switch {
		case trust == nil:
			config.ClientAuth = tls.NoClientCert
		case optional:
			config.ClientAuth, config.ClientCAs = tls.VerifyClientCertIfGiven, trust.roots
		default:
			config.ClientAuth, config.ClientCAs = tls.RequireAndVerifyClientCert, trust.roots
		}
		return config, nil
	}
	return base
}

// Caller returns who a connection's certificates stand for; nil without any.
func (c *Certificates) Caller(state tls.ConnectionState) (*Caller, error) {
	if len(state.VerifiedChains) == 0 {
		return nil, nil
	}
	caller, err := fromCertificate(state.VerifiedChains[0])
	if err != nil {
		return nil, err
	}
	caller.stands = c.stands
	return caller, nil // Not vouched for yet: trust may have changed during the handshake.
}

var errDistrusted = errors.New("the certificate is not, or not any more, of an authority that is trusted here")

// stands says whether the caller's certificate is one that would be accepted now.
func (c *Certificates) stands(caller *Caller) error {
	trust := c.trust.Load()
	switch {
	case trust == nil:
		return errDistrusted
	case caller.vouched.Load() == trust.number:
		return nil
	}
	intermediates := x509.NewCertPool()
	for _, certificate := range caller.chain[1:] {
		intermediates.AddCert(certificate)
	}
	_, err := caller.chain[0].Verify(x509.VerifyOptions{
		Roots: trust.roots, Intermediates: intermediates, CurrentTime: time.Now(), KeyUsages: []x509.ExtKeyUsage{x509.ExtKeyUsageClientAuth},
	})
	if err != nil {
		return errDistrusted
	}
	caller.vouched.Store(trust.number)
	return nil
}

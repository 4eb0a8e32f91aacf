package access_test

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/asn1"
	"net"
	"slices"
	"strings"
	"testing"
	"time"

	"smokeball.internal/tokenbroker/internal/access"
	"smokeball.internal/tokenbroker/internal/access/accesstest"
)

func certificates(t *testing.T, server, callers *accesstest.Authority) *access.Certificates {
	t.Helper()
	c := &access.Certificates{}
	own := server.Issue("broker", nil)
	if err := c.SetServer(own.PEM, own.KeyPEM); err != nil {
		t.Fatal(err)
	}
	if err := c.SetAuthorities(callers.PEM()); err != nil {
		t.Fatal(err)
	}
	return c
}

// shakeHands returns the server's word on the handshake: with TLS 1.3 the client
// is done before it is refused.
func shakeHands(t *testing.T, server, client *tls.Config) (tls.ConnectionState, error) {
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
	secured := tls.Server(conn, server)
	err = secured.HandshakeContext(ctx)
	_ = conn.Close()
	<-went
	return secured.ConnectionState(), err
}

func TestWhoGetsAConnection(t *testing.T) {
	ours, callers, strangers := accesstest.NewAuthority(t), accesstest.NewAuthority(t), accesstest.NewAuthority(t)
	usage := func(usage x509.ExtKeyUsage) func(*x509.Certificate) {
		return func(c *x509.Certificate) { c.ExtKeyUsage = []x509.ExtKeyUsage{usage} }
	}
	caller := callers.Issue("caller", usage(x509.ExtKeyUsageClientAuth))
	for _, test := range []struct {
		name                      string
		certificate               *accesstest.Certificate
		version                   uint16 // the caller's highest
		works, optional, allow1_2 bool
	}{
		{name: "a caller", certificate: &caller, works: true},
		{name: "a stranger", certificate: new(strangers.Issue("caller", nil))},
		{name: "one of the server's authority", certificate: new(ours.Issue("caller", nil))},
		{name: "a certificate for servers", certificate: new(callers.Issue("caller", usage(x509.ExtKeyUsageServerAuth)))},
		{name: "nobody"},
		{name: "nobody, who may have a token", optional: true, works: true},
		{name: "a stranger, who may have a token", certificate: new(strangers.Issue("caller", nil)), optional: true},
		{name: "yesterday's certificate", certificate: new(callers.Issue("caller", func(c *x509.Certificate) { c.NotAfter = time.Now().Add(-time.Second) }))},
		{name: "tomorrow's certificate", certificate: new(callers.Issue("caller", func(c *x509.Certificate) { c.NotBefore = time.Now().Add(time.Minute) }))},
		{name: "TLS 1.2", certificate: &caller, version: tls.VersionTLS12},
		{name: "TLS 1.2 where it is allowed", certificate: &caller, version: tls.VersionTLS12, allow1_2: true, works: true},
	} {
		t.Run(test.name, func(t *testing.T) {
			c := certificates(t, ours, callers)
			c.Optional = test.optional
			if test.allow1_2 {
				c.MinVersion = tls.VersionTLS12
			}
			client := &tls.Config{RootCAs: ours.Pool(), ServerName: "127.0.0.1", MinVersion: tls.VersionTLS12, MaxVersion: test.version}
			if test.certificate != nil {
				client.Certificates = []tls.Certificate{test.certificate.TLS}
			}
			state, err := shakeHands(t, c.Config(), client)
			if test.works != (err == nil) {
				t.Fatalf("server: %v", err)
			}
			if who, err := c.Caller(state); test.works && (err != nil || (who == nil) != (test.certificate == nil)) {
				t.Errorf("got %v, %v", who, err)
			}
		})
	}
}

func TestNamesOfACertificate(t *testing.T) {
	a := accesstest.NewAuthority(t)
	c := certificates(t, a, a)
	const id, other = "spiffe://prod.example/ns/billing/sa/invoicer", "spiffe://prod.example/ns/billing/sa/other"
	for name, test := range map[string]struct {
		change func(*x509.Certificate)
		want   []string // nil: refused
	}{
		"all": {func(x *x509.Certificate) { accesstest.SPIFFE(id)(x); x.DNSNames = []string{"Billing.internal", "b"} },
			[]string{id, "dns:billing.internal", "dns:b", "subject:CN=caller"}},
		"a subject":        {nil, []string{"subject:CN=caller"}},
		"a longer subject": {func(x *x509.Certificate) { x.Subject.Organization = []string{"Acme, Inc."} }, []string{`subject:CN=caller,O=Acme\, Inc.`}},
		"two common names": {func(x *x509.Certificate) {
			name := func(s string) pkix.AttributeTypeAndValue {
				return pkix.AttributeTypeAndValue{Type: asn1.ObjectIdentifier{2, 5, 4, 3}, Value: s}
			}
			x.Subject = pkix.Name{ExtraNames: []pkix.AttributeTypeAndValue{name("mallory"), name("administrator")}}
		}, []string{"subject:CN=administrator,CN=mallory"}},
		"a DNS name alone":     {func(x *x509.Certificate) { x.Subject, x.DNSNames = pkix.Name{}, []string{"billing"} }, []string{"dns:billing"}},
		"none":                 {func(x *x509.Certificate) { x.Subject = pkix.Name{} }, nil},
		"two SPIFFE IDs":       {accesstest.SPIFFE(id, other), nil},
		"a SPIFFE ID and more": {accesstest.SPIFFE(id, "https://example.com/"), nil},
		"more, and an ID":      {accesstest.SPIFFE("https://example.com/", id), nil},
		"no SPIFFE ID":         {accesstest.SPIFFE("spiffe://"), nil},
		"another URI":          {accesstest.SPIFFE("https://example.com/"), []string{"subject:CN=caller"}},
		"too many names": {func(x *x509.Certificate) {
			for range 101 {
				x.DNSNames = append(x.DNSNames, "a.example")
			}
		}, nil},
	} {
		t.Run(name, func(t *testing.T) {
			caller := a.Issue("caller", test.change)
			state, err := shakeHands(t, c.Config(), &tls.Config{RootCAs: a.Pool(), ServerName: "127.0.0.1", Certificates: []tls.Certificate{caller.TLS}})
			if err != nil {
				t.Fatal(err)
			}
			who, err := c.Caller(state)
			switch {
			case test.want == nil && err == nil:
				t.Errorf("not refused: %v", who.Names())
			case test.want != nil && (err != nil || !slices.Equal(who.Names(), test.want)):
				t.Errorf("got %v, %v, want %v", who, err, test.want)
			}
		})
	}
}

func TestFilesThatAreNoneAreRefused(t *testing.T) {
	a := accesstest.NewAuthority(t)
	one, two := a.Issue("one", nil), a.Issue("two", nil)
	c := certificates(t, a, a)
	for name, err := range map[string]error{
		"a key of another":      c.SetServer(one.PEM, two.KeyPEM),
		"no certificate":        c.SetServer(nil, one.KeyPEM),
		"no key":                c.SetServer(one.PEM, nil),
		"authorities of nobody": c.SetAuthorities([]byte("nobody")),
		"a key as authority":    c.SetAuthorities(one.KeyPEM),
		"a key among them":      c.SetAuthorities(slices.Concat(a.PEM(), one.KeyPEM)),
		"a damaged one":         c.SetAuthorities([]byte("-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n")),
	} {
		if err == nil {
			t.Errorf("%s is taken", name)
		} else if strings.Contains(err.Error(), "PRIVATE KEY-----") {
			t.Errorf("%s: %q tells the key", name, err)
		}
	}
	// What was there before is in force.
	_, err := shakeHands(t, c.Config(), &tls.Config{RootCAs: a.Pool(), ServerName: "127.0.0.1", Certificates: []tls.Certificate{one.TLS}})
	if err != nil {
		t.Error(err)
	}
}

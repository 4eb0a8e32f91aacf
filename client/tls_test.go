package client_test

import (
	"crypto/tls"
	"crypto/x509"
	"path/filepath"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/credentials"

	"smokeball.internal/tokenbroker/client"
	"smokeball.internal/tokenbroker/internal/access/accesstest"
)

// serverTLS is TLS as the broker has it: a certificate of authority for 127.0.0.1, and callers
// that have one of callers; nil: nobody has to have one.
func serverTLS(authority, callers *accesstest.Authority, change func(*x509.Certificate)) *tls.Config {
	config := &tls.Config{Certificates: []tls.Certificate{authority.Issue("broker", change).TLS}, MinVersion: tls.VersionTLS12}
	if callers != nil {
		config.ClientAuth, config.ClientCAs = tls.RequireAndVerifyClientCert, callers.Pool()
	}
	return config
}

func TestTLS(t *testing.T) {
	t.Parallel()
	a, callers := accesstest.NewAuthority(t), accesstest.NewAuthority(t)
	own := newFiles(t, a, callers.Issue("billing", nil))
	token := write(t, filepath.Join(t.TempDir(), "token"), []byte("e30.e30.x\n"))
	certificate := callers.Issue("billing", nil).TLS
	for name, test := range map[string]struct {
		callers       *accesstest.Authority
		options       []client.Option
		authorization string
	}{
		"an authority":                     {nil, []client.Option{client.WithTLS(own.ca)}, ""},
		"a token":                          {nil, []client.Option{client.WithTLS(own.ca), client.WithJWTFile(token)}, "Bearer e30.e30.x"},
		"a certificate":                    {callers, []client.Option{client.WithMTLS(own.ca, own.cert, own.key)}, ""},
		"a configuration":                  {callers, []client.Option{client.WithTLSConfig(&tls.Config{RootCAs: a.Pool(), Certificates: []tls.Certificate{certificate}})}, ""},
		"a configuration, and a token":     {callers, []client.Option{client.WithTLSConfig(&tls.Config{RootCAs: a.Pool(), Certificates: []tls.Certificate{certificate}}), client.WithJWTFile(token)}, "Bearer e30.e30.x"},
		"a configuration that has its way": {nil, []client.Option{client.WithTLSConfig(&tls.Config{InsecureSkipVerify: true, VerifyConnection: func(tls.ConnectionState) error { return nil }})}, ""},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			r := newStandIn()
			wantToken(t, newClient(t, r.listen(t, serverTLS(a, test.callers, nil)), test.options...))
			if got := r.last(t, "authorization"); got != test.authorization {
				t.Errorf("the call had the authorization %q, want %q", got, test.authorization)
			}
			state := r.lastTLS(t)
			if state.Version != tls.VersionTLS13 {
				t.Errorf("the connection is %s", tls.VersionName(state.Version))
			}
			if test.callers != nil && state.PeerCertificates[0].Subject.CommonName != "billing" {
				t.Errorf("the client was %v", state.PeerCertificates[0].Subject)
			}
		})
	}
}

func TestBrokerThatIsNotTheBroker(t *testing.T) {
	t.Parallel()
	a, callers, strangers := accesstest.NewAuthority(t), accesstest.NewAuthority(t), accesstest.NewAuthority(t)
	own := newFiles(t, a, callers.Issue("billing", nil))
	old := serverTLS(a, nil, nil)
	old.MaxVersion = tls.VersionTLS12
	for name, test := range map[string]struct {
		server  *tls.Config
		options []client.Option
		want    string
	}{
		"of another authority":            {serverTLS(strangers, nil, nil), []client.Option{client.WithTLS(own.ca)}, "unknown authority"},
		"of another authority, with mTLS": {serverTLS(strangers, callers, nil), []client.Option{client.WithMTLS(own.ca, own.cert, own.key)}, "unknown authority"},
		"of no authority of the system":   {serverTLS(a, nil, nil), nil, "unknown authority"},
		"the same, by name":               {serverTLS(a, nil, nil), []client.Option{client.WithTLS("")}, "unknown authority"},
		"another host": {serverTLS(a, nil, func(c *x509.Certificate) { c.IPAddresses, c.DNSNames = nil, []string{"broker.internal"} }),
			[]client.Option{client.WithTLS(own.ca)}, "127.0.0.1"},
		"TLS 1.2": {old, []client.Option{client.WithTLS(own.ca)}, "protocol version"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			r := newStandIn()
			c := newClient(t, r.listen(t, test.server), test.options...)
			if said := wantCode(t, c, codes.Unavailable); !strings.Contains(said, test.want) {
				t.Errorf("the error is %q, want %q in it", said, test.want)
			}
			if r.calls() > 0 {
				t.Error("the call came")
			}
		})
	}
}

func TestBrokerByAnotherName(t *testing.T) {
	t.Parallel()
	a, r := accesstest.NewAuthority(t), newStandIn()
	own := newFiles(t, a, a.Issue("billing", nil))
	address := r.listen(t, serverTLS(a, nil, func(c *x509.Certificate) { c.IPAddresses, c.DNSNames = nil, []string{"broker.internal"} }))
	wantToken(t, newClient(t, address, client.WithTLS(own.ca), client.WithDialOptions(grpc.WithAuthority("broker.internal"))))
}

func TestFilesAreReadForEachConnection(t *testing.T) {
	t.Parallel()
	before, after := accesstest.NewAuthority(t), accesstest.NewAuthority(t)
	own := newFiles(t, before, before.Issue("before", nil))
	first, second := newStandIn(), newStandIn()
	// The two are one broker whose certificate was replaced: a client of the one cannot stay with it.
	dialer := &switching{address: first.listen(t, serverTLS(before, before, nil))}
	c := newClient(t, "127.0.0.1:9090", client.WithMTLS(own.ca, own.cert, own.key), client.WithDialOptions(grpc.WithContextDialer(dialer.dial)))
	wantToken(t, c)
	if who := first.lastTLS(t).PeerCertificates[0].Subject.CommonName; who != "before" {
		t.Errorf("the client was %q", who)
	}

	next := after.Issue("after", nil)
	address := second.listen(t, serverTLS(after, after, nil))
	write(t, own.cert, next.PEM) // Its key is not there yet.
	dialer.change(address)
	if said := wantCode(t, c, codes.Unavailable); !strings.Contains(said, "certificate and key") {
		t.Errorf("between the two files: %s", said)
	}
	write(t, own.key, next.KeyPEM)
	write(t, own.ca, after.PEM())
	eventually(t, "the client is there again", func() bool { _, err := call(t, c); return err == nil })
	if who := second.lastTLS(t).PeerCertificates[0].Subject.CommonName; who != "after" {
		t.Errorf("then the client was %q", who)
	}
}

// The broker refuses calls on a connection whose certificate has ended.
func TestConnectionEndsWithItsCertificate(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		a, n, r := accesstest.NewAuthority(t), &network{}, newStandIn()
		lasts := func(d time.Duration) func(*x509.Certificate) {
			return func(c *x509.Certificate) { c.NotAfter = time.Now().Add(d) }
		}
		own := newFiles(t, a, a.Issue("first", lasts(10*time.Minute)))
		n.join(t, "localhost:1", r, grpc.Creds(credentials.NewTLS(serverTLS(a, a, func(c *x509.Certificate) { c.DNSNames = []string{"localhost"} }))))
		c := newClient(t, "passthrough:///localhost:1", client.WithMTLS(own.ca, own.cert, own.key), client.WithDialOptions(grpc.WithContextDialer(n.dial)))
		wantToken(t, c)
		next := a.Issue("second", lasts(20*time.Minute))
		write(t, own.cert, next.PEM)
		write(t, own.key, next.KeyPEM)
		for _, test := range []struct {
			after time.Duration
			who   string
			dials int
		}{{9 * time.Minute, "first", 1}, {2 * time.Minute, "second", 2}, {8 * time.Minute, "second", 2}} {
			time.Sleep(test.after)
			wantToken(t, c)
			if who := r.lastTLS(t).PeerCertificates[0].Subject.CommonName; who != test.who || n.dialed() != test.dials {
				t.Errorf("the client is %q, on connection %d, want %q, on %d", who, n.dialed(), test.who, test.dials)
			}
		}
		// Nobody brought a third.
		time.Sleep(2 * time.Minute)
		if said := wantCode(t, c, codes.Unavailable); !strings.Contains(said, "the client's certificate has expired") {
			t.Errorf("with a certificate that has ended: %s", said)
		}
	})
}

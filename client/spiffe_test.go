package client_test

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"encoding/pem"
	"net"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/spiffe/go-spiffe/v2/proto/spiffe/workload"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"smokeball.internal/tokenbroker/client"
	"smokeball.internal/tokenbroker/internal/access/accesstest"
)

const (
	brokerID  = "spiffe://prod.example/broker"
	billingID = "spiffe://prod.example/billing"
)

// workloadAPI is a SPIFFE agent.
type workloadAPI struct {
	workload.UnimplementedSpiffeWorkloadAPIServer
	mu      sync.Mutex
	current *workload.X509SVIDResponse // nil: this process is nobody to it
	changed chan struct{}              // closed at the next change
}

// newWorkloadAPI starts an agent where this process looks for one.
func newWorkloadAPI(t *testing.T) *workloadAPI {
	t.Helper()
	socket := filepath.Join(t.TempDir(), "agent.sock")
	l, err := net.Listen("unix", socket)
	if err != nil {
		t.Fatal(err)
	}
	a := &workloadAPI{changed: make(chan struct{})}
	server := grpc.NewServer()
	workload.RegisterSpiffeWorkloadAPIServer(server, a)
	went := make(chan struct{})
	go func() {
		defer close(went)
		_ = server.Serve(l)
	}()
	t.Cleanup(func() {
		server.Stop()
		<-went
	})
	t.Setenv("SPIFFE_ENDPOINT_SOCKET", "unix://"+socket)
	return a
}

// gives gives this process an identity, and the authority of all others.
func (a *workloadAPI) gives(t *testing.T, authority *accesstest.Authority, id string) {
	t.Helper()
	own := authority.Issue("own", accesstest.SPIFFE(id))
	key, _ := pem.Decode(own.KeyPEM)
	bundle, _ := pem.Decode(authority.PEM())
	a.mu.Lock()
	defer a.mu.Unlock()
	a.current = &workload.X509SVIDResponse{Svids: []*workload.X509SVID{{
		SpiffeId: id, X509Svid: own.TLS.Certificate[0], X509SvidKey: key.Bytes, Bundle: bundle.Bytes,
	}}}
	close(a.changed)
	a.changed = make(chan struct{})
}

func (a *workloadAPI) FetchX509SVID(_ *workload.X509SVIDRequest, stream grpc.ServerStreamingServer[workload.X509SVIDResponse]) error {
	for {
		a.mu.Lock()
		current, changed := a.current, a.changed
		a.mu.Unlock()
		if current == nil {
			return status.Error(codes.PermissionDenied, "no identity issued")
		}
		if err := stream.Send(current); err != nil {
			return err
		}
		select {
		case <-changed:
		case <-stream.Context().Done():
			return nil
		}
	}
}

func ofBroker(c *x509.Certificate) {
	c.IPAddresses = nil // The ID is what counts.
	accesstest.SPIFFE(brokerID)(c)
}

func TestSPIFFE(t *testing.T) {
	before, after := accesstest.NewAuthority(t), accesstest.NewAuthority(t)
	agent := newWorkloadAPI(t)
	agent.gives(t, before, billingID)
	first, second := newStandIn(), newStandIn()
	dialer := &switching{address: first.listen(t, serverTLS(before, before, ofBroker))}

	ctx, cancel := context.WithCancel(t.Context())
	c, err := client.New(ctx, "passthrough:///broker.internal:9090", client.WithSPIFFE(brokerID), client.WithDialOptions(grpc.WithContextDialer(dialer.dial)))
	if err != nil {
		t.Fatal(err)
	}
	cancel() // It was for New.
	defer func() {
		if err := c.Close(); err != nil {
			t.Errorf("Close: %v", err)
		}
	}()
	wantToken(t, c)
	state := first.lastTLS(t)
	if id := state.PeerCertificates[0].URIs[0].String(); id != billingID || state.Version != tls.VersionTLS13 {
		t.Errorf("the client was %s, with %s", id, tls.VersionName(state.Version))
	}

	// Another authority for all, and another identity.
	agent.gives(t, after, billingID+"/new")
	dialer.change(second.listen(t, serverTLS(after, after, ofBroker)))
	eventually(t, "the client is there again", func() bool { _, err := call(t, c); return err == nil })
	if id := second.lastTLS(t).PeerCertificates[0].URIs[0].String(); id != billingID+"/new" {
		t.Errorf("then the client was %s", id)
	}
}

func TestSPIFFEBrokerThatIsNotTheBroker(t *testing.T) {
	a := accesstest.NewAuthority(t)
	agent := newWorkloadAPI(t)
	agent.gives(t, a, billingID)
	for name, server := range map[string]*tls.Config{
		"another ID":                serverTLS(a, nil, accesstest.SPIFFE("spiffe://prod.example/mallory")),
		"no ID, but the right host": serverTLS(a, nil, nil),
		"of another authority":      serverTLS(accesstest.NewAuthority(t), nil, ofBroker),
	} {
		t.Run(name, func(t *testing.T) {
			r := newStandIn()
			wantCode(t, newClient(t, r.listen(t, server), client.WithSPIFFE(brokerID)), codes.Unavailable)
			if r.calls() > 0 {
				t.Error("the call came")
			}
		})
	}
}

func TestSPIFFEWithoutAnIdentity(t *testing.T) {
	newWorkloadAPI(t)
	ctx, cancel := context.WithTimeout(t.Context(), 100*time.Millisecond)
	defer cancel()
	c, err := client.New(ctx, "broker.internal:9090", client.WithSPIFFE(brokerID))
	if err == nil {
		_ = c.Close()
	}
	if err == nil || !strings.Contains(err.Error(), "WithSPIFFE: the identity of this process") || ctx.Err() == nil {
		t.Errorf("New: %v", err)
	}
	for _, address := range []string{"", "agent.sock"} {
		t.Setenv("SPIFFE_ENDPOINT_SOCKET", address)
		if c, err := client.New(t.Context(), "broker.internal:9090", client.WithSPIFFE(brokerID)); err == nil {
			t.Errorf("New has no error with %q", address)
			_ = c.Close()
		}
	}
}

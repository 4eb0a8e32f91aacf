package client_test

import (
	"context"
	"crypto/tls"
	"net"
	"os"
	"path/filepath"
	"sync"
	"testing"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/credentials"
	"google.golang.org/grpc/health"
	healthpb "google.golang.org/grpc/health/grpc_health_v1"
	"google.golang.org/grpc/keepalive"
	"google.golang.org/grpc/metadata"
	"google.golang.org/grpc/peer"
	"google.golang.org/grpc/resolver"
	"google.golang.org/grpc/resolver/manual"
	"google.golang.org/grpc/status"
	"google.golang.org/grpc/test/bufconn"

	"smokeball.internal/tokenbroker/client"
	pb "smokeball.internal/tokenbroker/gen/tokenbroker/v1"
	"smokeball.internal/tokenbroker/internal/access/accesstest"
)

// standIn is a gRPC server that answers as a broker does, and notes who asked.
type standIn struct {
	pb.UnimplementedTokenServiceServer
	health *health.Server

	mu      sync.Mutex
	answer  func(ctx context.Context) error // nil: a token
	headers []metadata.MD                   // of the calls that came
	tls     []tls.ConnectionState           // the same, as far as there was any
}

func newStandIn() *standIn {
	r := &standIn{health: health.NewServer()}
	r.setServing(true)
	return r
}

func (r *standIn) setServing(serving bool) {
	state := healthpb.HealthCheckResponse_NOT_SERVING
	if serving {
		state = healthpb.HealthCheckResponse_SERVING
	}
	r.health.SetServingStatus("tokenbroker.v1.TokenService", state)
}

// answers sets what calls are answered with from now on.
func (r *standIn) answers(answer func(context.Context) error) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.answer = answer
}

func (r *standIn) GetToken(ctx context.Context, _ *pb.GetTokenRequest) (*pb.GetTokenResponse, error) {
	header, _ := metadata.FromIncomingContext(ctx)
	r.mu.Lock()
	r.headers = append(r.headers, header)
	if from, ok := peer.FromContext(ctx); ok {
		if info, ok := from.AuthInfo.(credentials.TLSInfo); ok {
			r.tls = append(r.tls, info.State)
		}
	}
	answer := r.answer
	r.mu.Unlock()
	if answer != nil {
		if err := answer(ctx); err != nil {
			return nil, err
		}
	}
	return &pb.GetTokenResponse{Token: &pb.Token{AccessToken: "token"}}, nil
}

// calls returns how many calls came.
func (r *standIn) calls() int {
	r.mu.Lock()
	defer r.mu.Unlock()
	return len(r.headers)
}

// forget forgets the calls that came.
func (r *standIn) forget() {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.headers = nil
}

// last returns a header of the last call.
func (r *standIn) last(t *testing.T, header string) string {
	t.Helper()
	r.mu.Lock()
	defer r.mu.Unlock()
	if len(r.headers) == 0 {
		t.Fatal("no call came")
	}
	values := r.headers[len(r.headers)-1].Get(header)
	if len(values) == 0 {
		return ""
	}
	return values[0]
}

// lastTLS returns the connection of the last call.
func (r *standIn) lastTLS(t *testing.T) tls.ConnectionState {
	t.Helper()
	r.mu.Lock()
	defer r.mu.Unlock()
	if len(r.tls) == 0 {
		t.Fatal("no call came over TLS")
	}
	return r.tls[len(r.tls)-1]
}

// serve serves the replica, which is as patient as a broker, on l until the test ends, or stop is called.
func (r *standIn) serve(t *testing.T, l net.Listener, options ...grpc.ServerOption) (stop func()) {
	server := grpc.NewServer(append(options, grpc.KeepaliveEnforcementPolicy(keepalive.EnforcementPolicy{MinTime: 10 * time.Second, PermitWithoutStream: true}))...)
	pb.RegisterTokenServiceServer(server, r)
	healthpb.RegisterHealthServer(server, r.health)
	went := make(chan struct{})
	go func() {
		defer close(went)
		_ = server.Serve(l)
	}()
	stop = sync.OnceFunc(func() {
		r.health.Shutdown()
		server.Stop()
		<-went
	})
	t.Cleanup(stop)
	return stop
}

// listen serves the replica on a port, with TLS unless config is nil.
func (r *standIn) listen(t *testing.T, config *tls.Config) (address string) {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	var options []grpc.ServerOption
	if config != nil {
		options = append(options, grpc.Creds(credentials.NewTLS(config)))
	}
	r.serve(t, l, options...)
	return l.Addr().String()
}

// network is replicas that are reached in memory, by name: virtual time goes on while
// they are waited for.
type network struct {
	mu    sync.Mutex
	wires map[string]*bufconn.Listener
	dials int
	conns []*wire
}

// join serves a replica under a name.
func (n *network) join(t *testing.T, name string, r *standIn, options ...grpc.ServerOption) (leave func()) {
	l := bufconn.Listen(64 << 10)
	stop := r.serve(t, l, options...)
	n.mu.Lock()
	defer n.mu.Unlock()
	if n.wires == nil {
		n.wires = map[string]*bufconn.Listener{}
	}
	n.wires[name] = l
	return func() {
		n.mu.Lock()
		delete(n.wires, name)
		n.mu.Unlock()
		stop()
	}
}

func (n *network) dial(ctx context.Context, name string) (net.Conn, error) {
	n.mu.Lock()
	n.dials++
	l := n.wires[name]
	n.mu.Unlock()
	if l == nil {
		return nil, &net.OpError{Op: "dial", Net: "memory", Err: os.ErrNotExist}
	}
	conn, err := l.DialContext(ctx)
	if err != nil {
		return nil, err
	}
	w := &wire{Conn: conn}
	n.mu.Lock()
	defer n.mu.Unlock()
	n.conns = append(n.conns, w)
	return w, nil
}

func (n *network) dialed() int {
	n.mu.Lock()
	defer n.mu.Unlock()
	return n.dials
}

// cut has what is sent on the connections that there are get lost.
func (n *network) cut() {
	n.mu.Lock()
	defer n.mu.Unlock()
	for _, w := range n.conns {
		w.mu.Lock()
		w.dead = true
		w.mu.Unlock()
	}
}

// wire is a connection in memory. It says that it is one to a Unix socket, which does
// not leave the machine either.
type wire struct {
	net.Conn
	mu   sync.Mutex
	dead bool
}

func (*wire) RemoteAddr() net.Addr { return &net.UnixAddr{Name: "memory", Net: "unix"} }

func (w *wire) Write(p []byte) (int, error) {
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.dead {
		return len(p), nil
	}
	return w.Conn.Write(p)
}

// client returns a client of the replica "localhost:1".
func (n *network) client(t *testing.T, options ...client.Option) *client.Client {
	t.Helper()
	return newClient(t, "passthrough:///localhost:1", append(options, client.WithInsecure(), client.WithDialOptions(grpc.WithContextDialer(n.dial)))...)
}

// clientOf returns a client of several replicas.
func (n *network) clientOf(t *testing.T, names ...string) *client.Client {
	t.Helper()
	state := resolver.State{}
	for _, name := range names {
		state.Addresses = append(state.Addresses, resolver.Address{Addr: name})
	}
	replicas := manual.NewBuilderWithScheme("replicas")
	replicas.InitialState(state)
	return newClient(t, "replicas:///broker", client.WithInsecure(), client.WithDialOptions(grpc.WithContextDialer(n.dial), grpc.WithResolvers(replicas)))
}

// newClient returns a client that is closed when the test ends.
func newClient(t *testing.T, target string, options ...client.Option) *client.Client {
	t.Helper()
	c, err := client.New(t.Context(), target, options...)
	if err != nil {
		t.Fatalf("New: %v", err)
	}
	t.Cleanup(func() {
		if err := c.Close(); err != nil {
			t.Errorf("Close: %v", err)
		}
	})
	return c
}

// wantToken fails the test if a call brings no token.
func wantToken(t *testing.T, c *client.Client) {
	t.Helper()
	if token, err := call(t, c); err != nil || token.GetAccessToken() != "token" {
		t.Fatalf("GetToken = %v, %v", token, err)
	}
}

// wantCode fails the test if a call does not end with code. It returns what the
// error says.
func wantCode(t *testing.T, c *client.Client, code codes.Code) string {
	t.Helper()
	_, err := call(t, c)
	if status.Code(err) != code {
		t.Fatalf("the call ended with %v, want %v", err, code)
	}
	return err.Error()
}

func call(t *testing.T, c *client.Client) (*pb.Token, error) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), 10*time.Second)
	defer cancel()
	return c.GetToken(ctx)
}

// write writes a file as one does whose readers shall never see half of it.
func write(t *testing.T, path string, content []byte) string {
	t.Helper()
	if err := os.WriteFile(path+".new", content, 0o600); err != nil {
		t.Fatal(err)
	}
	if err := os.Rename(path+".new", path); err != nil {
		t.Fatal(err)
	}
	return path
}

// files are the files of a client with TLS.
type files struct{ ca, cert, key string }

func newFiles(t *testing.T, authority *accesstest.Authority, own accesstest.Certificate) files {
	t.Helper()
	dir := t.TempDir()
	return files{
		write(t, filepath.Join(dir, "ca.pem"), authority.PEM()),
		write(t, filepath.Join(dir, "tls.crt"), own.PEM),
		write(t, filepath.Join(dir, "tls.key"), own.KeyPEM),
	}
}

// switching dials one address, whatever it is asked for.
type switching struct {
	mu      sync.Mutex
	address string
	conns   []net.Conn
}

func (s *switching) dial(ctx context.Context, _ string) (net.Conn, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	conn, err := new(net.Dialer).DialContext(ctx, "tcp", s.address)
	if err == nil {
		s.conns = append(s.conns, conn)
	}
	return conn, err
}

// change dials another address from now on, and breaks the connections to the one
// before.
func (s *switching) change(address string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.address = address
	for _, conn := range s.conns {
		_ = conn.Close()
	}
	s.conns = nil
}

// eventually waits for something that happens in real time.
func eventually(t *testing.T, what string, is func() bool) {
	t.Helper()
	for end := time.Now().Add(10 * time.Second); !is(); time.Sleep(10 * time.Millisecond) {
		if time.Now().After(end) {
			t.Fatalf("not within 10 s: %s", what)
		}
	}
}

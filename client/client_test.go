package client_test

import (
	"context"
	"crypto/tls"
	"net"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"smokeball.internal/tokenbroker/client"
	"smokeball.internal/tokenbroker/internal/access/accesstest"
)

func TestPlainTextOnThisMachine(t *testing.T) {
	t.Parallel()
	r := newStandIn()
	_, port, _ := net.SplitHostPort(r.listen(t, nil))
	socket := filepath.Join(t.TempDir(), "broker.sock")
	l, err := net.Listen("unix", socket)
	if err != nil {
		t.Fatal(err)
	}
	r.serve(t, l)
	for _, target := range []string{
		"127.0.0.1:" + port, "localhost:" + port, "LocalHost:" + port, "dns:127.0.0.1:" + port, "dns:///localhost:" + port,
		"passthrough:///127.0.0.1:" + port, "unix:" + socket, "unix://" + socket,
	} {
		t.Run(target, func(t *testing.T) {
			wantToken(t, newClient(t, target, client.WithInsecure()))
			if agent := r.last(t, "user-agent"); !strings.HasPrefix(agent, "tokenbroker-client ") {
				t.Errorf("the user agent is %q", agent)
			}
		})
	}
}

func TestWhatCannotWorkIsAnErrorOfNew(t *testing.T) {
	t.Parallel()
	a := accesstest.NewAuthority(t)
	own, other := newFiles(t, a, a.Issue("own", nil)), newFiles(t, a, a.Issue("other", nil))
	dir := t.TempDir()
	gone := filepath.Join(dir, "gone")
	file := func(name, content string) string { return write(t, filepath.Join(dir, name), []byte(content)) }
	for name, test := range map[string]struct {
		target  string
		options []client.Option
		want    string
	}{
		"no target":                {"", nil, "there is no target"},
		"no port":                  {"broker.internal", nil, "HOST:PORT"},
		"an empty port":            {"broker.internal:", nil, "HOST:PORT"},
		"no host":                  {":9090", nil, "HOST:PORT"},
		"no port, with a scheme":   {"dns:///broker.internal", nil, "HOST:PORT"},
		"a web address":            {"https://broker.internal:9090", nil, `no resolver for "https"`},
		"a web address, traced":    {"https://broker.internal:9090", []client.Option{client.WithOpenTelemetry()}, `no resolver for "https"`},
		"two ports":                {"broker.internal:9090:1", nil, "HOST:PORT"},
		"no authorities":           {"", []client.Option{client.WithTLS(gone)}, "WithTLS: authorities: open"},
		"authorities of nobody":    {"", []client.Option{client.WithTLS(own.key)}, "WithTLS: authorities: there is no PEM certificate in " + own.key},
		"no certificate":           {"", []client.Option{client.WithMTLS(own.ca, gone, own.key)}, "WithMTLS: certificate and key: open"},
		"no key":                   {"", []client.Option{client.WithMTLS(own.ca, own.cert, gone)}, "WithMTLS: certificate and key: open"},
		"nothing":                  {"", []client.Option{client.WithMTLS("", "", "")}, "WithMTLS: certificate and key: open"},
		"a key of another":         {"", []client.Option{client.WithMTLS(own.ca, own.cert, other.key)}, "WithMTLS: certificate and key: tls: private key does not match"},
		"no configuration":         {"", []client.Option{client.WithTLSConfig(nil)}, "WithTLSConfig: there is no configuration"},
		"a blind configuration":    {"", []client.Option{client.WithTLSConfig(&tls.Config{InsecureSkipVerify: true})}, "verifies no certificate"},
		"no SPIFFE ID":             {"", []client.Option{client.WithSPIFFE("broker")}, `WithSPIFFE: the broker's SPIFFE ID "broker"`},
		"two ways to connect":      {"", []client.Option{client.WithTLS(""), client.WithInsecure()}, "WithTLS and WithInsecure are two ways to connect"},
		"mTLS and SPIFFE":          {"", []client.Option{client.WithSPIFFE("spiffe://a/b"), client.WithMTLS(own.ca, own.cert, own.key)}, "WithSPIFFE and WithMTLS are two ways"},
		"one way twice":            {"", []client.Option{client.WithTLS(own.ca), client.WithTLS(other.ca)}, "WithTLS and WithTLS are two ways"},
		"mTLS and a token":         {"", []client.Option{client.WithMTLS(own.ca, own.cert, own.key), client.WithJWTFile(file("a", "e30.e30.x"))}, "WithMTLS and WithJWTFile are two ways to say who"},
		"SPIFFE and a token":       {"", []client.Option{client.WithSPIFFE("spiffe://a/b"), client.WithJWTFile(file("a", "e30.e30.x"))}, "WithSPIFFE and WithJWTFile are two ways to say who"},
		"two tokens":               {"", []client.Option{client.WithJWTFile(file("a", "e30.e30.x")), client.WithJWTFile(file("b", "e30.e30.y"))}, "WithJWTFile is there twice"},
		"no token":                 {"", []client.Option{client.WithJWTFile(gone)}, "WithJWTFile: open"},
		"a directory as token":     {"", []client.Option{client.WithJWTFile(dir)}, "WithJWTFile: read"},
		"an empty token":           {"", []client.Option{client.WithJWTFile(file("empty", " \n"))}, "WithJWTFile: " + filepath.Join(dir, "empty") + " is empty"},
		"two lines":                {"", []client.Option{client.WithJWTFile(file("two", "Planted\nPlanted"))}, "has more in it than a token"},
		"not ASCII":                {"", []client.Option{client.WithJWTFile(file("not", "Plantéd"))}, "has more in it than a token"},
		"a long token":             {"", []client.Option{client.WithJWTFile(file("long", strings.Repeat("P", 16<<10+1)))}, "has more than 16384 bytes"},
		"plain text to elsewhere":  {"broker.internal:9090", []client.Option{client.WithInsecure()}, "WithInsecure is for this machine only"},
		"plain text to an address": {"10.0.0.1:9090", []client.Option{client.WithInsecure()}, "WithInsecure is for this machine only"},
		"plain text and a scheme":  {"dns://8.8.8.8/localhost.example:9090", []client.Option{client.WithInsecure()}, "WithInsecure is for this machine only"},
		"plain text, past DNS":     {"passthrough:///10.0.0.1:9090", []client.Option{client.WithInsecure()}, "WithInsecure is for this machine only"},
		"a token in plain text":    {"10.0.0.1:9090", []client.Option{client.WithJWTFile(file("a", "e30.e30.x")), client.WithInsecure()}, "WithInsecure is for this machine only"},
	} {
		t.Run(name, func(t *testing.T) {
			target := test.target
			if len(test.options) > 0 && target == "" {
				target = "broker.internal:9090"
			}
			c, err := client.New(t.Context(), target, test.options...)
			if err == nil {
				_ = c.Close()
				t.Fatal("New has no error")
			}
			if !strings.Contains(err.Error(), test.want) || strings.Contains(err.Error(), "Plant") || strings.Contains(err.Error(), "PRIVATE") {
				t.Errorf("the error is %q, want %q in it", err, test.want)
			}
		})
	}
}

// An option that is there on a condition is often nil without it.
func TestNoOptionIsNoOption(t *testing.T) {
	t.Parallel()
	r := newStandIn()
	wantToken(t, newClient(t, r.listen(t, nil), nil, client.WithInsecure(), nil))
}

func TestNewDoesNotWaitForTheBroker(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		n := &network{}
		began := time.Now()
		ctx, cancel := context.WithCancel(t.Context())
		c, err := client.New(ctx, "passthrough:///localhost:1", client.WithInsecure(), client.WithDialOptions(grpc.WithContextDialer(n.dial)))
		if err != nil {
			t.Fatal(err)
		}
		defer func() { _ = c.Close() }()
		if d := time.Since(began); d != 0 || n.dialed() != 0 {
			t.Errorf("New took %v and dialed %d times", d, n.dialed())
		}
		cancel() // It was for New.
		n.join(t, "localhost:1", newStandIn())
		wantToken(t, c)
	})
}

func TestClosedClient(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		n := &network{}
		n.join(t, "localhost:1", newStandIn())
		ctx, cancel := context.WithCancel(t.Context())
		c, err := client.New(ctx, "passthrough:///localhost:1", client.WithInsecure(), client.WithDialOptions(grpc.WithContextDialer(n.dial)))
		if err != nil {
			t.Fatal(err)
		}
		cancel() // It was for New.
		var ended, afterThat time.Duration
		began := time.Now()
		c.Run(func(ctx context.Context) {
			<-ctx.Done()
			ended = time.Since(began)
			time.Sleep(time.Second)
			if _, err := call(t, c); err != nil { // The connection is there until the last has gone.
				t.Error(err)
			}
			afterThat = time.Since(began)
		})
		time.Sleep(time.Minute)
		var closing sync.WaitGroup
		for range 3 {
			closing.Go(func() {
				if err := c.Close(); err != nil {
					t.Errorf("Close: %v", err)
				}
				if d := time.Since(began); d != time.Minute+time.Second {
					t.Errorf("Close returned after %v", d)
				}
			})
		}
		closing.Wait()
		if ended != time.Minute || afterThat != time.Minute+time.Second {
			t.Errorf("what was running heard of it after %v, and ended after %v", ended, afterThat)
		}
		wantCode(t, c, codes.Canceled)
	})
}

// The name was fine, and where it leads is not this machine.
func TestPlainTextLeadsNowhereElse(t *testing.T) {
	t.Parallel()
	r := newStandIn()
	address := r.listen(t, nil)
	token := write(t, filepath.Join(t.TempDir(), "token"), []byte("Planted"))
	elsewhere := grpc.WithContextDialer(func(ctx context.Context, _ string) (net.Conn, error) {
		conn, err := new(net.Dialer).DialContext(ctx, "tcp", address)
		return abroad{conn}, err
	})
	c := newClient(t, "localhost:9090", client.WithInsecure(), client.WithJWTFile(token), client.WithDialOptions(elsewhere))
	said := wantCode(t, c, codes.Unavailable)
	if !strings.Contains(said, "non-local address") || r.calls() > 0 {
		t.Errorf("%d calls came, and the error is %q", r.calls(), said)
	}
}

type abroad struct{ net.Conn }

func (abroad) RemoteAddr() net.Addr { return &net.TCPAddr{IP: net.IPv4(10, 0, 0, 1), Port: 9090} }

func TestReplicaThatIsNotServingGetsNoCalls(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		n, a, b := &network{}, newStandIn(), newStandIn()
		n.join(t, "a", a)
		n.join(t, "b", b)
		c := n.clientOf(t, "a", "b")
		calls := func() (ofA, ofB int) {
			t.Helper()
			synctest.Wait() // until both are connected, and have said how they are
			beforeA, beforeB := a.calls(), b.calls()
			for range 10 {
				wantToken(t, c)
			}
			return a.calls() - beforeA, b.calls() - beforeB
		}
		wantToken(t, c)
		if ofA, ofB := calls(); ofA != 5 || ofB != 5 {
			t.Errorf("%d and %d calls, want 5 each", ofA, ofB)
		}
		a.setServing(false)
		if ofA, ofB := calls(); ofA != 0 || ofB != 10 {
			t.Errorf("%d and %d calls while the first is not serving", ofA, ofB)
		}
		a.setServing(true)
		if ofA, ofB := calls(); ofA != 5 || ofB != 5 {
			t.Errorf("%d and %d calls when the first is serving again", ofA, ofB)
		}
	})
}

// Nobody serves: callers hear of it at once, after the pauses of a retry.
func TestCallsDoNotWaitForAReplica(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		n := &network{}
		c := n.client(t)
		began := time.Now()
		wantCode(t, c, codes.Unavailable)
		if d := time.Since(began); d > 2*time.Second {
			t.Errorf("it took %v to hear that there is no broker", d)
		}
	})
}

func TestRecoveryAfterALongOutage(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		n := &network{}
		c := n.client(t)
		for range 60 {
			wantCode(t, c, codes.Unavailable)
			time.Sleep(time.Minute)
		}
		n.join(t, "localhost:1", newStandIn())
		began := time.Now()
		for _, err := call(t, c); err != nil; _, err = call(t, c) {
			time.Sleep(10 * time.Millisecond)
		}
		if d := time.Since(began); d > 7500*time.Millisecond { // A pause of gRPC's, and those of a call.
			t.Errorf("it took %v to find the broker again", d)
		}
	})
}

func TestDeadConnectionIsNoticed(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		n := &network{}
		n.join(t, "localhost:1", newStandIn())
		c := n.client(t)
		wantToken(t, c)
		n.cut()
		began := time.Now()
		ctx, cancel := context.WithTimeout(t.Context(), 5*time.Minute)
		defer cancel()
		if _, err := c.GetToken(ctx); err != nil {
			t.Error(err)
		}
		if d := time.Since(began); d > 45*time.Second {
			t.Errorf("it took %v to notice", d)
		}
	})
}

// The broker sends away who asks too often whether it is there.
func TestIdleConnectionStays(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		n, r := &network{}, newStandIn()
		n.join(t, "localhost:1", r)
		c := n.client(t)
		wantToken(t, c)
		time.Sleep(20 * time.Minute)
		wantToken(t, c)
		if n.dialed() != 1 {
			t.Errorf("it was connected %d times", n.dialed())
		}
	})
}

func TestOptionsOfTheCallerPrevail(t *testing.T) {
	t.Parallel()
	r := newStandIn()
	c := newClient(t, r.listen(t, nil), client.WithInsecure(), client.WithDialOptions(grpc.WithUserAgent("billing"),
		grpc.WithUnaryInterceptor(func(context.Context, string, any, any, *grpc.ClientConn, grpc.UnaryInvoker, ...grpc.CallOption) error {
			return status.Error(codes.AlreadyExists, "mine")
		})))
	wantCode(t, c, codes.AlreadyExists)
}

package main_test

import (
	"context"
	"crypto/tls"
	"net"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/protobuf/proto"

	pb "smokeball.internal/tokenbroker/gen/tokenbroker/v1"
	"smokeball.internal/tokenbroker/internal/access/accesstest"
)

// Answers that are ready at about the same time are sent together, however long they are:
// by itself, gRPC has a record of TLS for each of 1,000 bytes and more.
func TestAnswersThatAreReadyAreSentTogether(t *testing.T) {
	t.Parallel()
	g := startGuarded(t, "")
	const tenant = "acme-and-partners-solicitors" // It is in the token, too.
	register(t, g.as(administrator), g.issuer, tenant, time.Hour)
	answer, err := pb.NewTokenServiceClient(g.as(everything)).GetToken(soon(t), &pb.GetTokenRequest{Tenant: "tenants/" + tenant})
	if err != nil {
		t.Fatal(err)
	}
	if size := proto.Size(answer); size < 1000 {
		t.Fatalf("an answer has %d bytes, which gRPC sends together with others", size)
	}
	const calls = 800
	client, records := g.counting(t, everything)
	var answered atomic.Int32
	var callers sync.WaitGroup
	for range 20 {
		callers.Go(func() {
			for answered.Add(1) <= calls {
				if _, err := client.GetToken(soon(t), &pb.GetTokenRequest{Tenant: "tenants/" + tenant}); err != nil {
					t.Error(err)
					return
				}
			}
		})
	}
	callers.Wait()
	t.Logf("%d answers came in %d records of TLS", calls, records.Load())
	if records.Load() > calls/2 {
		t.Error("that is not together")
	}
}

// A client that takes none of its answers costs others nothing, and is not waited for
// when the replica goes.
func TestWhoTakesNoAnswerHoldsUpNobody(t *testing.T) {
	t.Parallel()
	const spiffe = "spiffe://test.example/greedy"
	g := startGuarded(t, `  - {name: greedy, principals: ["`+spiffe+`"], roles: [token.reader], tenants: ["*"]}
`, "--drain-timeout=1s")
	greedy := g.authority.Issue("greedy", accesstest.SPIFFE(spiffe))
	register(t, g.as(administrator), g.issuer, "acme", time.Hour)
	others := pb.NewTokenServiceClient(g.as(everything))
	ask := func() {
		t.Helper()
		if _, err := others.GetToken(soon(t), &pb.GetTokenRequest{Tenant: "tenants/acme"}); err != nil {
			t.Fatal(err)
		}
	}
	ask()
	before := g.memory()
	for range 4 {
		conn, ok := g.connect(soon(t), greedy.TLS).(*tls.Conn)
		if !ok {
			t.Fatal("no connection")
		}
		if err := conn.NetConn().(*net.TCPConn).SetReadBuffer(4096); err != nil {
			t.Fatal(err)
		}
		go func() {
			_, _ = conn.Write(g.callsFor("acme", 10_000)) // Until the server reads no more.
		}()
	}
	for range 100 {
		ask()
	}
	if more := g.memory() - before; more > 128<<20 {
		t.Errorf("it has %d MiB more", more>>20)
	}
	began := time.Now()
	if code := g.terminate(); code != 0 {
		t.Errorf("exit code %d", code)
	}
	if took := time.Since(began); took > 10*time.Second {
		t.Errorf("it ends after %v, and has a second for calls under way", took)
	}
}

// callsFor returns what a client sends that asks so many times for the token of a tenant.
func (g *guarded) callsFor(tenant string, count int) []byte {
	message, err := proto.Marshal(&pb.GetTokenRequest{Tenant: "tenants/" + tenant})
	if err != nil {
		g.t.Fatal(err)
	}
	message = append([]byte{0, 0, 0, 0, byte(len(message))}, message...)
	return callsWith(message, count, pb.TokenService_GetToken_FullMethodName)
}

// counting is a connection that counts records of TLS in what it reads.
type counting struct {
	net.Conn
	header  []byte // of the next record, as far as it is read
	skip    int    // bytes of this one that are not read
	records atomic.Int32
}

func (c *counting) Read(p []byte) (int, error) {
	n, err := c.Conn.Read(p)
	for rest := p[:n]; len(rest) > 0; {
		if c.skip > 0 {
			skipped := min(c.skip, len(rest))
			c.skip, rest = c.skip-skipped, rest[skipped:]
			continue
		}
		c.header, rest = append(c.header, rest[0]), rest[1:]
		if len(c.header) == 5 {
			c.skip, c.header = int(c.header[3])<<8|int(c.header[4]), nil
			c.records.Add(1)
		}
	}
	return n, err
}

// counting returns a client that is this caller, on one connection, and the count of records
// that have come on it.
func (g *guarded) counting(t *testing.T, id string) (pb.TokenServiceClient, *atomic.Int32) {
	t.Helper()
	certificate, c := g.authority.Issue("caller", accesstest.SPIFFE(id)), &counting{}
	conn := g.dial(&certificate, "", grpc.WithContextDialer(func(ctx context.Context, address string) (net.Conn, error) {
		var err error
		c.Conn, err = new(net.Dialer).DialContext(ctx, "tcp", address)
		return c, err
	}))
	return pb.NewTokenServiceClient(conn), &c.records
}

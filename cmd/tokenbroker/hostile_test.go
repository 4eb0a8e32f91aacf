package main_test

import (
	"bytes"
	"context"
	"crypto/tls"
	bigendian "encoding/binary"
	"fmt"
	"net"
	"os"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"golang.org/x/net/http2"
	"golang.org/x/net/http2/hpack"
	"golang.org/x/time/rate"
	"google.golang.org/grpc"
	healthpb "google.golang.org/grpc/health/grpc_health_v1"

	pb "smokeball.internal/tokenbroker/gen/tokenbroker/v1"
	"smokeball.internal/tokenbroker/internal/access/accesstest"
)

const (
	offered    = 400             // calls of honest callers per second
	besieged   = 4 * time.Second // how long each attack goes on
	memoryMost = 400 << 20       // of the server, under all of them
)

// TestHonestCallersAreServedUnderAttack has a caller who has a certificate, and
// others who have none, do what they can, one after the other, while honest callers call.
func TestHonestCallersAreServedUnderAttack(t *testing.T) {
	g := startGuarded(t, readerRule+`
  - principals: ["spiffe://test.example/noisy"]
    roles: [token.reader]
    tenants: [acme]
`, withTokens, withGarbage)
	register(t, g.as(everything), g.issuer, "acme", time.Hour)
	noisy := g.authority.Issue("noisy", accesstest.SPIFFE("spiffe://test.example/noisy"))
	h := &siege{guarded: g, noisy: noisy}
	honest := []*grpc.ClientConn{g.as("spiffe://test.example/reader"), g.dial(nil, g.tokens.Sign(g.tokens.Claims("reader", tokenAudience)))}
	quiet := honestCalls(t, honest)
	t.Logf("%-44s %v", "nobody else", quiet)
	for _, attack := range []struct {
		name string
		run  func(ctx context.Context)
	}{
		{"2,000 connections that say a byte a second", h.slowLoris},
		{"10,000 idle connections without TLS", h.idle},
		{"2,000 idle connections with a certificate", h.idleWithCertificate},
		{"malformed and oversized frames", h.malformed},
		{"messages of 3 MiB", h.oversized},
		{"calls as fast as can be", h.flood},
		{"40,000 calls with bad tokens in 40 packets", h.atOnce},
		{"refused calls that would last for years", h.refusedForYears},
		{"6,000 streams that stay open", h.streams},
		{"streams that are reset at once", h.rapidReset},
		{"reflection and health", h.hammer},
	} {
		ctx, cancel := context.WithTimeout(t.Context(), besieged+2*time.Second)
		done := make(chan struct{})
		go func() { defer close(done); attack.run(ctx) }()
		time.Sleep(time.Second) // Until it is under way.
		got := honestCalls(t, honest)
		cancel()
		<-done
		memory := g.memory()
		t.Logf("%-44s %v; memory %d MiB", attack.name, got, memory>>20)
		if got.good < quiet.good*8/10 {
			t.Errorf("%s: %d calls answered, %d without it", attack.name, got.good, quiet.good)
		}
		if memory > memoryMost {
			t.Errorf("%s: memory %d MiB", attack.name, memory>>20)
		}
	}
	// Who comes anew is let in still.
	if err := calls["GetToken"](soon(t), g.as("spiffe://test.example/reader")); err != nil {
		t.Error(err)
	}
}

// served is how honest callers fared.
type served struct {
	good, bad int
	p50, p99  time.Duration
}

func (s served) String() string {
	return fmt.Sprintf("%4d answered, %d not, p50 %v, p99 %v", s.good, s.bad, s.p50.Round(10*time.Microsecond), s.p99.Round(10*time.Microsecond))
}

// honestCalls calls at a steady rate, and counts what is answered within a second.
func honestCalls(t *testing.T, conns []*grpc.ClientConn) served {
	t.Helper()
	var mu sync.Mutex
	var took []time.Duration
	var s served
	var calls sync.WaitGroup
	tick := time.NewTicker(time.Second / offered)
	defer tick.Stop()
	for n := range int(offered * besieged / time.Second) {
		<-tick.C
		calls.Go(func() {
			ctx, cancel := context.WithTimeout(t.Context(), time.Second)
			defer cancel()
			began := time.Now()
			_, err := pb.NewTokenServiceClient(conns[n%len(conns)]).GetToken(ctx, &pb.GetTokenRequest{Tenant: "tenants/acme"})
			mu.Lock()
			defer mu.Unlock()
			if err != nil {
				if s.bad++; s.bad == 1 {
					t.Logf("not answered: %v", err)
				}
				return
			}
			s.good++
			took = append(took, time.Since(began))
		})
	}
	calls.Wait()
	if len(took) > 0 {
		slices.Sort(took)
		s.p50, s.p99 = took[len(took)/2], took[len(took)*99/100]
	}
	return s
}

// memory returns the resident memory of the server, in bytes.
func (g *guarded) memory() int {
	g.t.Helper()
	status, err := os.ReadFile(fmt.Sprintf("/proc/%d/status", g.cmd.Process.Pid))
	if err != nil {
		g.t.Fatal(err)
	}
	kib := 0
	_, rest, _ := strings.Cut(string(status), "VmRSS:")
	if _, err := fmt.Sscan(rest, &kib); err != nil {
		g.t.Fatal(err)
	}
	return kib << 10
}

// siege is what attackers do. Each ends with its context, and bounds what it does
// by count and rate, since it runs on the same processors.
type siege struct {
	*guarded
	noisy accesstest.Certificate
}

func (s *siege) tcp(ctx context.Context) net.Conn {
	conn, err := new(net.Dialer).DialContext(ctx, "tcp", s.grpc)
	if err != nil {
		return nil
	}
	context.AfterFunc(ctx, func() { _ = conn.Close() })
	return conn
}

// secure returns a connection with TLS and the certificate of the noisy caller.
func (s *siege) secure(ctx context.Context) net.Conn { return s.connect(ctx, s.noisy.TLS) }

// connect makes a connection with these certificates, which may be none.
func (g *guarded) connect(ctx context.Context, certificates ...tls.Certificate) net.Conn {
	dialer := tls.Dialer{Config: &tls.Config{RootCAs: g.authority.Pool(), ServerName: "127.0.0.1", NextProtos: []string{"h2"}, Certificates: certificates}}
	conn, err := dialer.DialContext(ctx, "tcp", g.grpc)
	if err != nil {
		return nil
	}
	context.AfterFunc(ctx, func() { _ = conn.Close() })
	return conn
}

func (s *siege) slowLoris(ctx context.Context) {
	hello := []byte{0x16, 0x03, 0x01, 0x02, 0x00, 0x01, 0x00, 0x01, 0xfc, 0x03, 0x03} // How a client begins.
	var conns []net.Conn
	for range 2000 {
		if conn := s.tcp(ctx); conn != nil {
			conns = append(conns, conn)
		}
	}
	for n := 0; ctx.Err() == nil; n++ {
		for _, conn := range conns {
			_, _ = conn.Write(hello[n%len(hello):][:1])
		}
		pause(ctx, time.Second)
	}
}

func (s *siege) idle(ctx context.Context) {
	for range 10_000 {
		s.tcp(ctx)
	}
	<-ctx.Done()
}

func (s *siege) idleWithCertificate(ctx context.Context) {
	slowly := rate.NewLimiter(500, 10) // A handshake is work for both.
	for range 2000 {
		if slowly.Wait(ctx) != nil {
			break
		}
		if conn := s.secure(ctx); conn != nil {
			_, _ = conn.Write([]byte(http2.ClientPreface))
		}
	}
	<-ctx.Done()
}

func (s *siege) malformed(ctx context.Context) {
	frame := func(length, kind, flags, stream int) []byte {
		header := bigendian.BigEndian.AppendUint32(nil, uint32(length)<<8|uint32(kind))
		return bigendian.BigEndian.AppendUint32(append(header, byte(flags)), uint32(stream))
	}
	settings := append([]byte(http2.ClientPreface), frame(0, 4, 0, 0)...)
	junk := [][]byte{
		bytes.Repeat([]byte{0xff}, 4096),
		[]byte("GET / HTTP/1.1\r\nHost: x\r\n\r\n"),
		append(slices.Clone(settings), frame(0xffffff, 0, 0, 1)...),                                              // a frame of 16 MiB
		append(slices.Clone(settings), frame(8, 1, 4, 1)...),                                                     // headers that do not come
		append(slices.Clone(settings), append(frame(5, 1, 4, 1), 0xff, 0xff, 0xff, 0xff, 0xff)...),               // headers that are none
		append(slices.Clone(settings), append(frame(4, 8, 0, 0), 0, 0, 0, 0)...),                                 // a window of nothing
		append(slices.Clone(settings), bytes.Repeat(frame(0, 9, 0, 1), 10_000)...),                               // continuations of nothing
		append(slices.Clone(settings), bytes.Repeat(append(frame(8, 6, 0, 0), make([]byte, 8)...), 10_000)...),   // pings
		append(slices.Clone(settings), bytes.Repeat(append(frame(6, 4, 0, 0), 0, 4, 0, 0, 255, 255), 10_000)...), // settings
	}
	slowly := rate.NewLimiter(100, 10)
	for n := 0; slowly.Wait(ctx) == nil; n++ {
		if conn := s.secure(ctx); conn != nil {
			_, _ = conn.Write(junk[n%len(junk)])
			_ = conn.Close()
		}
	}
}

func (s *siege) oversized(ctx context.Context) {
	conn := s.dial(&s.noisy, "")
	slowly := rate.NewLimiter(20, 1)
	for slowly.Wait(ctx) == nil {
		_, _ = pb.NewTokenServiceClient(conn).GetToken(ctx, &pb.GetTokenRequest{Tenant: strings.Repeat("a", 3<<20)})
	}
}

// flood has the noisy caller call five times as often as it may.
func (s *siege) flood(ctx context.Context) {
	var refused atomic.Int64
	var callers sync.WaitGroup
	slowly := rate.NewLimiter(5000, 100)
	for range 20 {
		conn := s.dial(&s.noisy, "", grpc.WithDisableRetry())
		callers.Go(func() {
			for slowly.Wait(ctx) == nil {
				if _, err := pb.NewTokenServiceClient(conn).GetToken(ctx, &pb.GetTokenRequest{Tenant: "tenants/acme"}); err != nil {
					refused.Add(1)
				}
			}
		})
	}
	callers.Wait()
	s.t.Logf("%d calls of the noisy caller were refused", refused.Load())
}

// refusedForYears has nobody in particular make calls that have all the time there is.
func (s *siege) refusedForYears(ctx context.Context) {
	slowly := rate.NewLimiter(5000, 100)
	years, cancel := context.WithTimeout(context.WithoutCancel(ctx), 100_000*time.Hour)
	defer cancel()
	var callers sync.WaitGroup
	for range 4 {
		conn := s.dial(nil, "", grpc.WithDisableRetry())
		callers.Go(func() {
			for slowly.Wait(ctx) == nil {
				_, _ = pb.NewTokenServiceClient(conn).GetToken(years, &pb.GetTokenRequest{Tenant: "tenants/acme"})
			}
		})
	}
	callers.Wait()
}

func (s *siege) streams(ctx context.Context) {
	for range 6 {
		conn := s.dial(&s.noisy, "")
		for range 1000 {
			if stream, err := healthpb.NewHealthClient(conn).Watch(ctx, &healthpb.HealthCheckRequest{}); err == nil {
				_, _ = stream.Header()
			}
		}
	}
	<-ctx.Done()
}

func (s *siege) rapidReset(ctx context.Context) {
	conn := s.secure(ctx)
	if conn == nil {
		return
	}
	_, _ = conn.Write([]byte(http2.ClientPreface))
	framer := http2.NewFramer(conn, conn)
	_ = framer.WriteSettings()
	go func() {
		for buffer := make([]byte, 64<<10); ; {
			if _, err := conn.Read(buffer); err != nil {
				return
			}
		}
	}()
	var block bytes.Buffer
	encoder := hpack.NewEncoder(&block)
	slowly := rate.NewLimiter(10_000, 1000)
	sent := 0
	for stream := uint32(1); slowly.Wait(ctx) == nil; stream += 2 {
		block.Reset()
		for _, field := range [][2]string{{":method", "POST"}, {":scheme", "https"}, {":path", "/tokenbroker.v1.TokenService/GetToken"},
			{":authority", "x"}, {"content-type", "application/grpc"}, {"te", "trailers"}} {
			_ = encoder.WriteField(hpack.HeaderField{Name: field[0], Value: field[1]})
		}
		if framer.WriteHeaders(http2.HeadersFrameParam{StreamID: stream, BlockFragment: block.Bytes(), EndHeaders: true}) != nil ||
			framer.WriteRSTStream(stream, http2.ErrCodeCancel) != nil {
			break
		}
		sent++
	}
	s.t.Logf("%d streams were reset", sent)
}

func (s *siege) hammer(ctx context.Context) {
	conn := s.dial(&s.noisy, "", grpc.WithDisableRetry())
	slowly := rate.NewLimiter(3000, 100)
	var callers sync.WaitGroup
	for _, method := range []string{"ServerReflection", "Health/Check", "Health/List", "Health/Watch"} {
		callers.Go(func() {
			for slowly.Wait(ctx) == nil {
				each, cancel := context.WithTimeout(ctx, time.Second)
				_ = calls[method](each, conn)
				cancel()
			}
		})
	}
	callers.Wait()
}

func pause(ctx context.Context, d time.Duration) {
	select {
	case <-time.After(d):
	case <-ctx.Done():
	}
}

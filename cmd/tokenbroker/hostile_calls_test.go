package main_test

import (
	"bytes"
	"context"
	"io"
	"net"
	"regexp"
	"strconv"
	"sync"
	"testing"

	"golang.org/x/net/http2"
	"golang.org/x/net/http2/hpack"

	pb "smokeball.internal/tokenbroker/gen/tokenbroker/v1"
)

// field is a header field of a call.
type field = hpack.HeaderField

// callsOf returns what a client sends that makes so many calls without a message, with
// these header fields beside those that each call has.
func callsOf(count int, path string, more ...field) []byte {
	return callsWith(nil, count, path, more...)
}

// callsWith does so with a message, as the wire has it; nil: none.
func callsWith(message []byte, count int, path string, more ...field) []byte {
	var all, block bytes.Buffer
	all.WriteString(http2.ClientPreface)
	framer, fields := http2.NewFramer(&all, nil), hpack.NewEncoder(&block)
	_ = framer.WriteSettings() // All of it is written into memory.
	_ = framer.WriteWindowUpdate(0, 1<<30)
	for n := range count {
		block.Reset()
		for _, f := range append([]field{{Name: ":method", Value: "POST"}, {Name: ":scheme", Value: "https"}, {Name: ":path", Value: path}, {Name: ":authority", Value: "x"},
			{Name: "content-type", Value: "application/grpc"}, {Name: "te", Value: "trailers"}}, more...) {
			_ = fields.WriteField(f)
		}
		stream := uint32(2*n + 1)
		_ = framer.WriteHeaders(http2.HeadersFrameParam{StreamID: stream, BlockFragment: block.Bytes(), EndHeaders: true, EndStream: message == nil})
		if message != nil {
			_ = framer.WriteData(stream, true, message)
		}
	}
	return all.Bytes()
}

// atOnce has forty connections send a thousand calls each, in one packet: a field that
// was sent before takes a byte.
func (s *siege) atOnce(ctx context.Context) {
	token := s.tokens.Sign(s.tokens.Claims("reader", tokenAudience))
	calls := callsOf(1000, pb.TokenService_GetToken_FullMethodName, field{Name: "authorization", Value: "Bearer " + token[:len(token)-8] + "AAAAAAAA"})
	var conns []net.Conn
	for range 40 {
		if conn := s.connect(ctx); conn != nil {
			conns = append(conns, conn)
		}
	}
	var sending sync.WaitGroup
	for _, conn := range conns {
		sending.Go(func() { _, _ = conn.Write(calls) })
	}
	sending.Wait()
	<-ctx.Done()
}

// Whatever a stranger calls is counted, and ends the connection after a hundred, though gRPC
// itself has an answer to some of it.
func TestAStrangersCallsAreCountedWhateverTheyAre(t *testing.T) {
	g := startGuarded(t, readerRule, withTokens)
	const get = pb.TokenService_GetToken_FullMethodName
	count := regexp.MustCompile(`(?m)^tokenbroker_refused_calls_total\{reason="UNAUTHENTICATED"\} (\d+)$`)
	refused := func() int {
		n := 0
		if found := count.FindStringSubmatch(g.get("/metrics")); found != nil {
			n, _ = strconv.Atoi(found[1])
		}
		return n
	}
	for name, calls := range map[string][]byte{
		"of a method":                       callsOf(1000, get),
		"of no method":                      callsOf(1000, "/none/such"),
		"of a name that is none":            callsOf(1000, "/none"),
		"in an encoding that there is not":  callsOf(1000, get, field{Name: "grpc-encoding", Value: "x"}),
		"that have ended before they began": callsOf(1000, get, field{Name: "grpc-timeout", Value: "1n"}),
		"with a token that is none":         callsOf(1000, get, field{Name: "authorization", Value: "Bearer x"}),
	} {
		before := refused()
		conn := g.connect(soon(t))
		if conn == nil {
			t.Fatal("no connection")
		}
		_, _ = conn.Write(calls)            // It may be closed before all is sent.
		_, err := io.Copy(io.Discard, conn) // Until it is closed.
		// What has been read by then is looked at still.
		if n := refused() - before; n < 100 || n > 700 {
			t.Errorf("%s: %d calls were refused, then: %v", name, n, err)
		}
	}
}

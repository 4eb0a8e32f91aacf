package bench_test

import (
	"bufio"
	"bytes"
	"context"
	"crypto/tls"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"net"
	"runtime"
	"sync"

	"golang.org/x/net/http2"
	"golang.org/x/net/http2/hpack"
	"google.golang.org/grpc/codes"
	"google.golang.org/protobuf/proto"

	pb "smokeball.internal/tokenbroker/gen/tokenbroker/v1"
)

// wire is a connection to a server as a client of gRPC has it, that can do nothing but
// ask for tokens. A caller by grpc-go takes half as much processor time again as the server
// that it asks: on one machine that would measure callers. It is safe for concurrent
// use.
type wire struct {
	conn   net.Conn
	scheme string

	mu     sync.Mutex // held to write
	buffer *bufio.Writer
	framer *http2.Framer // writes to buffer, reads from conn
	fields *hpack.Encoder
	block  bytes.Buffer // of fields
	last   uint32       // stream
	asked  map[uint32]chan error
	ended  error // why nothing can be asked any more

	flush chan struct{} // has one when there is something in buffer
}

// connect returns a connection that has had its settings.
func (f files) connect(ctx context.Context, address string) (*wire, error) {
	conn, err := new(net.Dialer).DialContext(ctx, "tcp", address)
	if err != nil {
		return nil, err
	}
	w := &wire{conn: conn, scheme: "http", last: ^uint32(0), asked: map[uint32]chan error{}, flush: make(chan struct{}, 1)}
	if f != (files{}) {
		pool, pair, err := f.pair()
		if err != nil {
			return nil, err
		}
		secured := tls.Client(conn, &tls.Config{RootCAs: pool, Certificates: []tls.Certificate{pair}, ServerName: "127.0.0.1", NextProtos: []string{"h2"}})
		if err := secured.HandshakeContext(ctx); err != nil {
			return nil, err
		}
		w.conn, w.scheme = secured, "https"
	}
	w.buffer = bufio.NewWriterSize(w.conn, 16<<10)
	w.framer = http2.NewFramer(w.buffer, bufio.NewReaderSize(w.conn, 32<<10))
	w.framer.ReadMetaHeaders = hpack.NewDecoder(4096, nil)
	w.fields = hpack.NewEncoder(&w.block)
	_, err = io.WriteString(w.buffer, http2.ClientPreface)
	if err := errors.Join(err, w.framer.WriteSettings(), w.framer.WriteWindowUpdate(0, window), w.buffer.Flush()); err != nil {
		return nil, err
	}
	go w.read()
	go w.flushing()
	return w, nil
}

// window is what the server may send beyond what has been taken.
const window = 1 << 29

// ask asks for a token as a client would that waits for a minute at most.
func (w *wire) ask(ctx context.Context, tenant string) error {
	body, err := proto.MarshalOptions{}.MarshalAppend(make([]byte, 5, 64), &pb.GetTokenRequest{Tenant: tenant})
	if err != nil {
		return err
	}
	binary.BigEndian.PutUint32(body[1:], uint32(len(body)-5))
	answered := make(chan error, 1)
	if err := w.send(body, answered); err != nil {
		return err
	}
	select {
	case err := <-answered:
		return err
	case <-ctx.Done():
		return ctx.Err()
	}
}

func (w *wire) send(body []byte, answered chan error) error {
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.ended != nil {
		return w.ended
	}
	w.last += 2
	w.asked[w.last] = answered
	w.block.Reset()
	for _, f := range [...]hpack.HeaderField{
		{Name: ":method", Value: "POST"}, {Name: ":scheme", Value: w.scheme}, {Name: ":path", Value: pb.TokenService_GetToken_FullMethodName},
		{Name: ":authority", Value: "127.0.0.1"}, {Name: "content-type", Value: "application/grpc"}, {Name: "user-agent", Value: "bench"}, {Name: "te", Value: "trailers"},
		{Name: "grpc-timeout", Value: "1M"},
	} {
		_ = w.fields.WriteField(f) // Into memory.
	}
	err := errors.Join(
		w.framer.WriteHeaders(http2.HeadersFrameParam{StreamID: w.last, BlockFragment: w.block.Bytes(), EndHeaders: true}),
		w.framer.WriteData(w.last, true, body))
	w.written()
	return err
}

// written has what was written sent; w.mu is held.
func (w *wire) written() {
	select {
	case w.flush <- struct{}{}:
	default:
	}
}

// flushing sends what callers have written until nobody else can go on.
func (w *wire) flushing() {
	for range w.flush {
		runtime.Gosched()
		w.mu.Lock()
		_ = w.buffer.Flush() // Reading hears of it.
		w.mu.Unlock()
	}
}

// read hands answers to those who asked, until the connection ends.
func (w *wire) read() {
	taken, message := 0, map[uint32]int{}
	for {
		frame, err := w.framer.ReadFrame()
		if err != nil {
			w.end(err)
			return
		}
		switch f := frame.(type) {
		case *http2.DataFrame:
			message[f.StreamID] += len(f.Data())
			if taken += len(f.Data()); taken > window/2 {
				w.reply(func() error { return w.framer.WriteWindowUpdate(0, uint32(taken)) })
				taken = 0
			}
		case *http2.MetaHeadersFrame:
			if f.StreamEnded() {
				w.answer(f.StreamID, outcomeOf(f, message[f.StreamID]))
				delete(message, f.StreamID)
			}
		case *http2.RSTStreamFrame:
			w.answer(f.StreamID, fmt.Errorf("stream ended: %v", f.ErrCode))
		case *http2.SettingsFrame:
			if !f.IsAck() {
				w.reply(w.framer.WriteSettingsAck)
			}
		case *http2.PingFrame:
			if !f.IsAck() {
				w.reply(func() error { return w.framer.WritePing(true, f.Data) })
			}
		case *http2.GoAwayFrame:
			w.end(fmt.Errorf("the server goes: %v %s", f.ErrCode, f.DebugData()))
			return
		}
	}
}

// outcomeOf returns what trailers say of a call with so many bytes of an answer.
func outcomeOf(f *http2.MetaHeadersFrame, bytes int) error {
	var status, text string
	for _, field := range f.Fields {
		switch field.Name {
		case "grpc-status":
			status = field.Value
		case "grpc-message":
			text = field.Value
		}
	}
	if status != fmt.Sprint(int(codes.OK)) || bytes <= 5 {
		return fmt.Errorf("status %q %s, %d bytes", status, text, bytes)
	}
	return nil
}

func (w *wire) answer(stream uint32, err error) {
	w.mu.Lock()
	answered := w.asked[stream]
	delete(w.asked, stream)
	w.mu.Unlock()
	if answered != nil {
		answered <- err
	}
}

func (w *wire) reply(write func() error) {
	w.mu.Lock()
	defer w.mu.Unlock()
	_ = write() // Into memory.
	w.written()
}

func (w *wire) end(err error) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.ended = err
	for _, answered := range w.asked {
		answered <- err
	}
	clear(w.asked)
}

package rpc_test

import (
	"bytes"
	"errors"
	"io"
	"net"
	"slices"
	"testing"
	"testing/synctest"
	"time"

	"smokeball.internal/tokenbroker/internal/rpc"
)

// gathering returns a connection that gathers what is written, and its peer, which reads
// nothing by itself: what is sent is under way until then. gone says whether whose it is
// has left.
func gathering(t *testing.T) (conn, peer net.Conn, gone func() bool) {
	t.Helper()
	ours, peer := net.Pipe()
	t.Cleanup(func() { _, _ = ours.Close(), peer.Close() })
	conn, gone = rpc.Gather(ours)
	return conn, peer, gone
}

// write writes what must be taken at once.
func write(t *testing.T, conn net.Conn, p []byte) {
	t.Helper()
	began := time.Now()
	if n, err := conn.Write(p); n != len(p) || err != nil || time.Since(began) != 0 {
		t.Fatalf("of %d bytes %d are written, in %v: %v", len(p), n, time.Since(began), err)
	}
}

func TestWhatIsWrittenMeanwhileIsSentTogether(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		conn, peer, _ := gathering(t)
		var want, got []byte
		for n := range byte(100) {
			write(t, conn, []byte{n})
			want = append(want, n)
		}
		sent, buf := 0, make([]byte, 1000)
		for ; len(got) < len(want); sent++ {
			n, err := peer.Read(buf)
			if err != nil {
				t.Fatal(err)
			}
			got = append(got, buf[:n]...)
		}
		if !slices.Equal(got, want) {
			t.Errorf("%v has come", got)
		}
		if sent > 2 { // What was written before it began, and the rest.
			t.Errorf("a hundred bytes were sent in %d parts", sent)
		}
	})
}

// A peer that reads slowly has those wait who write, and loses nothing.
func TestWritesWaitForRoom(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		conn, peer, _ := gathering(t)
		const size, count = rpc.Room * 3 / 4, 20
		written, done := 0, make(chan error, 1)
		go func() {
			for ; written < count; written++ {
				if _, err := conn.Write(bytes.Repeat([]byte{byte(written)}, size)); err != nil {
					done <- err
					return
				}
			}
			done <- conn.Close()
		}()
		synctest.Wait()
		if written < 1 || written > 2 { // Under way may be as much as waits.
			t.Errorf("%d parts were taken, each three fourths of what there is room for", written)
		}
		got, err := io.ReadAll(peer)
		if err := errors.Join(err, <-done); err != nil {
			t.Error(err)
		}
		for n := range count {
			if part := got[min(n*size, len(got)):min((n+1)*size, len(got))]; !bytes.Equal(part, bytes.Repeat([]byte{byte(n)}, size)) {
				t.Fatalf("part %d is not what was written", n)
			}
		}
	})
}

func TestWhatWasWrittenBeforeTheCloseIsSent(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		conn, peer, _ := gathering(t)
		write(t, conn, []byte("an answer, "))
		synctest.Wait() // It is being sent.
		write(t, conn, []byte("and the last one"))
		for range 2 { // As gRPC may.
			if err := conn.Close(); err != nil {
				t.Error(err)
			}
		}
		if n, err := conn.Write([]byte("too late")); n != 0 || !errors.Is(err, net.ErrClosed) {
			t.Errorf("afterwards %d bytes were written: %v", n, err)
		}
		time.Sleep(time.Second / 2)
		if got, err := io.ReadAll(peer); string(got) != "an answer, and the last one" || err != nil {
			t.Errorf("%q has come: %v", got, err)
		}
	})
}

// Who takes nothing is waited for by nobody who closes or writes, and has some seconds
// after the first close, however many there are. Until then it counts.
func TestAPeerThatTakesNothingIsLeft(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		conn, peer, gone := gathering(t)
		write(t, conn, make([]byte, rpc.Room))
		synctest.Wait()
		write(t, conn, make([]byte, rpc.Room))
		blocked, read := make(chan error, 1), make(chan error, 1)
		go func() {
			_, err := conn.Write([]byte("no room"))
			blocked <- err
		}()
		go func() {
			_, err := conn.Read(make([]byte, 1))
			read <- err
		}()
		time.Sleep(time.Hour)
		select {
		case err := <-blocked:
			t.Errorf("written where there is no room: %v", err)
		default:
		}
		began := time.Now()
		if err := conn.Close(); err != nil {
			t.Error(err)
		}
		if err := <-blocked; !errors.Is(err, net.ErrClosed) || time.Since(began) != 0 {
			t.Errorf("what had no room: %v, %v after the close", err, time.Since(began))
		}
		time.Sleep(rpc.Lingering - time.Millisecond)
		if err := conn.Close(); err != nil || gone() {
			t.Errorf("before its time is over: closed again %v, gone: %t", err, gone())
		}
		if err := <-read; err == nil || time.Since(began) != rpc.Lingering {
			t.Errorf("reading ends with %v, %v after the close", err, time.Since(began))
		}
		synctest.Wait()
		if n, err := peer.Read(make([]byte, 1)); n != 0 || err == nil || !gone() {
			t.Errorf("afterwards %d bytes come: %v, gone: %t", n, err, gone())
		}
	})
}

// What is written in one piece is not held beyond what there is room for.
func TestALongWriteWaitsForRoom(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		conn, peer, _ := gathering(t)
		want := bytes.Repeat([]byte("0123456789abcdef"), rpc.Room/4) // Four times what there is room for.
		type outcome struct {
			n   int
			err error
		}
		done := make(chan outcome, 1)
		go func() {
			n, err := conn.Write(want)
			done <- outcome{n, errors.Join(err, conn.Close())}
		}()
		var got []byte
		for buf := make([]byte, 1<<20); len(got) < 2*rpc.Room; {
			synctest.Wait()
			select {
			case o := <-done:
				t.Fatalf("written while %d of %d bytes are taken: %+v", len(got), len(want), o)
			default:
			}
			n, err := peer.Read(buf)
			if err != nil || n > rpc.Room {
				t.Fatalf("%d bytes at once: %v", n, err)
			}
			got = append(got, buf[:n]...)
		}
		rest, err := io.ReadAll(peer)
		if o := <-done; o.n != len(want) || errors.Join(o.err, err) != nil || !bytes.Equal(append(got, rest...), want) {
			t.Errorf("%+v, %v; %d bytes have come", o, err, len(got)+len(rest))
		}
	})
}

// A peer that has gone is heard of by who writes next, and by who reads.
func TestAWriteThatFailsClosesTheConnection(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		ours, peer := net.Pipe()
		conn, gone := rpc.Gather(ours)
		_ = peer.Close()
		write(t, conn, []byte("into the air"))
		synctest.Wait()
		if n, err := conn.Write([]byte("more")); n != 0 || !errors.Is(err, io.ErrClosedPipe) {
			t.Errorf("the next write takes %d bytes: %v", n, err)
		}
		if _, err := ours.Read(make([]byte, 1)); !errors.Is(err, io.ErrClosedPipe) {
			t.Errorf("it can be read from still: %v", err)
		}
		if err := conn.Close(); err != nil || !gone() {
			t.Errorf("closed: %v, gone: %t", err, gone())
		}
	})
}

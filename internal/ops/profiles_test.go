package ops_test

import (
	"bytes"
	"compress/gzip"
	"context"
	"io"
	"log/slog"
	"net"
	"net/http"
	"net/http/httptest"
	"runtime"
	"runtime/pprof"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"smokeball.internal/tokenbroker/internal/ops"
)

func TestProfilesAreForWhoIsOnThisHost(t *testing.T) {
	server := ops.NewServer(ops.Config{Metrics: ops.NewMetrics(), Logger: slog.New(slog.DiscardHandler)})
	ask := func(path, peer string, header []string) (int, string) {
		r := httptest.NewRequestWithContext(t.Context(), http.MethodGet, "http://127.0.0.1:9091"+path, nil)
		r.RemoteAddr = peer
		for n := 0; n < len(header); n += 2 {
			r.Header.Set(header[n], header[n+1])
		}
		w := httptest.NewRecorder()
		server.Handler().ServeHTTP(w, r)
		return w.Code, w.Body.String()
	}
	for name, test := range others {
		for _, path := range []string{"/debug/pprof/", "/debug/pprof/heap", "/debug/pprof/profile?seconds=1", "/debug/pprof/cmdline"} {
			if code, _ := ask(path, test.peer, test.header); code != http.StatusForbidden {
				t.Errorf("%s, %s: %d", path, name, code)
			}
		}
	}
	code, list := ask("/debug/pprof/", "127.0.0.1:4711", nil)
	if code != http.StatusOK {
		t.Errorf("the list is %d", code)
	}
	for _, name := range []string{"heap", "allocs", "goroutine"} {
		code, profile := ask("/debug/pprof/"+name, "[::1]:4711", nil)
		if code != http.StatusOK || len(unpacked(t, profile)) == 0 || !strings.Contains(list, "\n"+name) {
			t.Errorf("%s is %d", name, code)
		}
	}
	for _, name := range []string{"profile", "heap", "mutex", "block"} {
		for _, seconds := range []string{"0", "61", "-1", "1.5", "x", "99999999999999999999"} {
			if code, said := ask("/debug/pprof/"+name+"?seconds="+seconds, "127.0.0.1:4711", nil); code != http.StatusBadRequest || !strings.Contains(said, "1 to 60") {
				t.Errorf("%s of %s seconds is %d %s", name, seconds, code, said)
			}
		}
	}
}

// What goroutines wait for costs time to record. It is recorded while it is asked for.
func TestWaitsAreRecordedWhileAskedFor(t *testing.T) {
	o := newOffice(t)
	stop := make(chan struct{})
	var waiting sync.WaitGroup
	defer waiting.Wait()
	defer close(stop)
	var mu sync.Mutex
	for range 2 {
		waiting.Go(func() { contend(&mu, stop) })
		waiting.Go(func() { block(stop) })
	}
	for name, function := range map[string]string{"mutex": "ops_test.contend", "block": "ops_test.block", "profile": "runtime."} {
		code, profile, _ := o.ask(t, http.MethodGet, "/debug/pprof/"+name+"?seconds=1")
		if code != http.StatusOK || !bytes.Contains(unpacked(t, profile), []byte(function)) {
			t.Errorf("%s is %d, and does not name %s", name, code, function)
		}
		if fraction := runtime.SetMutexProfileFraction(-1); fraction != 0 {
			t.Errorf("after %s, one contention in %d is recorded", name, fraction)
		}
	}
	// The rate of the other cannot be asked for.
	before := blocks(t)
	time.Sleep(50 * time.Millisecond)
	if after := blocks(t); before != after {
		t.Errorf("waits are recorded that nobody has asked for:\n%s", after)
	}
}

// blocks returns what is recorded of waits.
func blocks(t *testing.T) string {
	t.Helper()
	var text strings.Builder
	if err := pprof.Lookup("block").WriteTo(&text, 1); err != nil {
		t.Fatal(err)
	}
	return text.String()
}

func contend(mu *sync.Mutex, stop <-chan struct{}) {
	for {
		select {
		case <-stop:
			return
		default:
			mu.Lock()
			time.Sleep(100 * time.Microsecond)
			mu.Unlock()
		}
	}
}

func block(stop <-chan struct{}) {
	for {
		select {
		case <-stop:
			return
		case <-time.After(time.Millisecond):
		}
	}
}

// unpacked returns a profile's bytes, in which names of functions stand as they are.
func unpacked(t *testing.T, profile string) []byte {
	t.Helper()
	r, err := gzip.NewReader(strings.NewReader(profile))
	if err != nil {
		t.Fatalf("%v: %.100q", err, profile)
	}
	bytes, err := io.ReadAll(r)
	if err != nil {
		t.Fatal(err)
	}
	return bytes
}

// A profile may take longer than any other request, and nobody waits for its end: not
// who has left, and not the end of the server. (That of processors does not work in a bubble.)
func TestProfilesTakeTheirTimeAndNoMore(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		server := ops.NewServer(ops.Config{Metrics: ops.NewMetrics(), Logger: slog.New(slog.DiscardHandler)})
		l := &pipes{make(chan net.Conn), make(chan struct{})}
		served := make(chan error, 1)
		go func() { served <- server.Serve(l) }()
		transport := &http.Transport{DialContext: l.dial}
		ask := func(ctx context.Context, path string) (int, string, error) {
			req, err := http.NewRequestWithContext(ctx, http.MethodGet, "http://127.0.0.1:9091/debug/pprof/"+path, nil)
			if err != nil {
				t.Error(err)
				return 0, "", err
			}
			resp, err := transport.RoundTrip(req)
			if err != nil {
				return 0, "", err
			}
			defer func() { _ = resp.Body.Close() }()
			body, err := io.ReadAll(resp.Body)
			return resp.StatusCode, string(body), err
		}
		for _, test := range []struct {
			path  string
			takes time.Duration
		}{{"mutex", 10 * time.Second}, {"block?seconds=60", time.Minute}, {"allocs?seconds=60", time.Minute}, {"heap", 0}} {
			begun := time.Now()
			code, profile, err := ask(t.Context(), test.path)
			if took := time.Since(begun); err != nil || code != http.StatusOK || took != test.takes {
				t.Errorf("%s: %d %v, after %v", test.path, code, err, took)
			} else if len(unpacked(t, profile)) == 0 {
				t.Errorf("%s is empty", test.path)
			}
		}

		leaving, leave := context.WithCancel(t.Context())
		var asking sync.WaitGroup
		asking.Go(func() { _, _, _ = ask(leaving, "mutex?seconds=60") })
		synctest.Wait()
		if runtime.SetMutexProfileFraction(-1) == 0 {
			t.Error("nothing is recorded of mutexes")
		}
		if code, _, err := ask(t.Context(), "profile?seconds=1"); code != http.StatusConflict {
			t.Errorf("a second one is %d, %v", code, err)
		}
		if code, _, err := ask(t.Context(), "goroutine"); code != http.StatusOK {
			t.Errorf("one of this instant is %d, %v", code, err)
		}
		leave()
		asking.Wait()
		synctest.Wait()
		if runtime.SetMutexProfileFraction(-1) != 0 {
			t.Error("mutexes are recorded for somebody who has left")
		}

		asking.Go(func() { _, _, _ = ask(t.Context(), "block?seconds=60") })
		synctest.Wait()
		begun := time.Now()
		server.Close(t.Context())
		if took := time.Since(begun); took > time.Second {
			t.Errorf("the server has waited %v for a profile", took)
		}
		asking.Wait()
		transport.CloseIdleConnections()
		if err := <-served; err != nil {
			t.Error(err)
		}
	})
}

// pipes is a listener that connections on this host come to, without a network.
type pipes struct {
	conns  chan net.Conn
	closed chan struct{}
}

func (p *pipes) dial(ctx context.Context, _, _ string) (net.Conn, error) {
	here, there := net.Pipe()
	select {
	case p.conns <- local{there}:
		return here, nil
	case <-ctx.Done():
		return nil, ctx.Err()
	}
}

func (p *pipes) Accept() (net.Conn, error) {
	select {
	case conn := <-p.conns:
		return conn, nil
	case <-p.closed:
		return nil, net.ErrClosed
	}
}

func (p *pipes) Close() error   { close(p.closed); return nil }
func (p *pipes) Addr() net.Addr { return &net.TCPAddr{IP: net.IPv4(127, 0, 0, 1), Port: 9091} }

type local struct{ net.Conn }

func (local) LocalAddr() net.Addr  { return &net.TCPAddr{IP: net.IPv4(127, 0, 0, 1), Port: 9091} }
func (local) RemoteAddr() net.Addr { return &net.TCPAddr{IP: net.IPv4(127, 0, 0, 1), Port: 4711} }

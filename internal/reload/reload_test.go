package reload_test

import (
	"bytes"
	"context"
	"errors"
	"log/slog"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"smokeball.internal/tokenbroker/internal/reload"
)

// loader takes every content but those that begin with "bad".
type loader struct {
	mu    sync.Mutex
	loads []string
}

func (l *loader) load(contents [][]byte) error {
	l.mu.Lock()
	defer l.mu.Unlock()
	all := string(bytes.Join(contents, []byte("+")))
	if strings.Contains(all, "bad") {
		return errors.New("it is bad")
	}
	l.loads = append(l.loads, all)
	return nil
}

func (l *loader) want(t *testing.T, loads ...string) {
	t.Helper()
	l.mu.Lock()
	defer l.mu.Unlock()
	if strings.Join(l.loads, " ") != strings.Join(loads, " ") {
		t.Errorf("loaded %q, want %q", l.loads, loads)
	}
}

func write(t *testing.T, path, content string) {
	t.Helper()
	if err := os.WriteFile(path, []byte(content), 0o600); err != nil {
		t.Fatal(err)
	}
}

// run runs the watcher, in virtual time, until the test ends.
func run(t *testing.T, test func(t *testing.T, w *reload.Watcher, log *bytes.Buffer)) {
	dir := t.TempDir()
	t.Chdir(dir)
	synctest.Test(t, func(t *testing.T) {
		var log bytes.Buffer
		test(t, reload.New(slog.New(slog.NewTextHandler(&log, nil))), &log)
	})
}

func start(t *testing.T, w *reload.Watcher) {
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan struct{})
	go func() { defer close(done); w.Run(ctx) }()
	t.Cleanup(func() { cancel(); <-done })
	synctest.Wait()
}

func pass(d time.Duration) { time.Sleep(d); synctest.Wait() }

func TestWhatIsNewIsLoadedOnceItHasSettled(t *testing.T) {
	run(t, func(t *testing.T, w *reload.Watcher, log *bytes.Buffer) {
		var l loader
		write(t, "a", "1")
		write(t, "b", "2")
		if err := w.Files("pair", l.load, "a", "b"); err != nil {
			t.Fatal(err)
		}
		l.want(t, "1+2")
		start(t, w)
		pass(5 * time.Second)
		l.want(t, "1+2")
		write(t, "a", "3")
		pass(time.Second)
		write(t, "b", "4") // Before the first has settled.
		pass(time.Second)
		l.want(t, "1+2")
		pass(time.Second)
		l.want(t, "1+2", "3+4")
		if !strings.Contains(log.String(), "msg=loaded setting=pair") || w.Stale()["pair"] {
			t.Errorf("stale %v, log %s", w.Stale(), log)
		}
	})
}

func TestWhatIsWrongLeavesWhatWasThere(t *testing.T) {
	run(t, func(t *testing.T, w *reload.Watcher, log *bytes.Buffer) {
		var l loader
		write(t, "a", "1")
		if err := w.Files("rules", l.load, "a"); err != nil {
			t.Fatal(err)
		}
		start(t, w)
		write(t, "a", "bad")
		pass(time.Minute)
		l.want(t, "1")
		if !w.Stale()["rules"] || strings.Count(log.String(), "it is bad") != 1 {
			t.Errorf("stale %v, log %s", w.Stale(), log)
		}
		write(t, "a", "1")
		pass(2 * time.Second)
		l.want(t, "1")
		if w.Stale()["rules"] {
			t.Error("stale, but as it was")
		}
		if err := os.Remove("a"); err != nil {
			t.Fatal(err)
		}
		pass(2 * time.Second)
		if !w.Stale()["rules"] {
			t.Error("gone, and not stale")
		}
		write(t, "a", "2")
		pass(3 * time.Second)
		l.want(t, "1", "2")
		if w.Stale()["rules"] {
			t.Error("stale after a good one")
		}
	})
}

// As Kubernetes does it: the file is a link to one in a directory that is a link.
func TestALinkThatIsExchangedIsAChange(t *testing.T) {
	run(t, func(t *testing.T, w *reload.Watcher, _ *bytes.Buffer) {
		var l loader
		for _, version := range []string{"v1", "v2"} {
			if err := os.Mkdir(version, 0o700); err != nil {
				t.Fatal(err)
			}
			write(t, filepath.Join(version, "file"), version)
		}
		link := func(target string) {
			if err := errors.Join(os.Symlink(target, "next"), os.Rename("next", "data")); err != nil {
				t.Fatal(err)
			}
		}
		link("v1")
		if err := w.Files("mounted", l.load, filepath.Join("data", "file")); err != nil {
			t.Fatal(err)
		}
		start(t, w)
		link("v2")
		pass(3 * time.Second)
		l.want(t, "v1", "v2")
	})
}

func TestWhatIsWrongAtFirstIsAnError(t *testing.T) {
	w := reload.New(slog.New(slog.DiscardHandler))
	var l loader
	dir := t.TempDir()
	bad, large := filepath.Join(dir, "bad"), filepath.Join(dir, "large")
	write(t, bad, "bad")
	write(t, large, strings.Repeat("a", 4<<20+1))
	for _, path := range []string{bad, large, filepath.Join(dir, "missing"), dir} {
		if err := w.Files("x", l.load, path); err == nil {
			t.Errorf("%s: no error", path)
		}
	}
	l.want(t)
	if len(w.Stale()) != 0 {
		t.Errorf("watched: %v", w.Stale())
	}
}

func TestFetching(t *testing.T) {
	run(t, func(t *testing.T, w *reload.Watcher, log *bytes.Buffer) {
		var l loader
		var fetched atomic.Int32
		var answer, failure atomic.Value
		answer.Store("1")
		failure.Store("not there")
		wake := make(chan struct{}, 1)
		w.Fetched("keys", 5*time.Minute, wake, func(context.Context) ([]byte, error) {
			fetched.Add(1)
			if why := failure.Load().(string); why != "" {
				return nil, errors.New(why)
			}
			return []byte(answer.Load().(string)), nil
		}, func(content []byte) error { return l.load([][]byte{content}) })
		start(t, w)
		pass(10 * time.Second) // Tried every 3 s until it works.
		if n := fetched.Load(); n != 4 || !w.Stale()["keys"] || strings.Count(log.String(), "not there") != 1 {
			t.Errorf("fetched %d times; stale %v; log %s", n, w.Stale(), log)
		}
		failure.Store("")
		pass(3 * time.Second)
		l.want(t, "1")
		answer.Store("2")
		fetched.Store(0)
		wake <- struct{}{}
		pass(8 * time.Second)
		if fetched.Load() != 0 {
			t.Error("fetched within 10 s")
		}
		pass(2 * time.Second)
		l.want(t, "1", "2")
		pass(6 * time.Minute)
		if n := fetched.Load(); n != 2 {
			t.Errorf("fetched %d times, want when woken and after 5 minutes", n)
		}
		answer.Store("bad")
		pass(5 * time.Minute)
		l.want(t, "1", "2")
		if !w.Stale()["keys"] {
			t.Error("refused, and not stale")
		}
	})
}

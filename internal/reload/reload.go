// Package reload reads again what lies outside of the process and changes while
// it runs: certificates, rules, keys. What is new and wrong is reported, and what
// was there before stays in force.
package reload

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"os"
	"slices"
	"sync"
	"sync/atomic"
	"time"
)

const (
	// How often files are read. They are few and small, and reading them sees
	// what notifications miss: links that are exchanged, as Kubernetes does it, and
	// file systems of other machines.
	every = time.Second
	// What is larger than this is none of the files that are meant.
	maxSize = 4 << 20
)

// Watcher knows what is to be read again. Its methods may be called before Run
// and while it runs.
type Watcher struct {
	log     *slog.Logger
	mu      sync.Mutex
	sources []*source
}

// New returns a watcher of nothing.
func New(log *slog.Logger) *Watcher { return &Watcher{log: log} }

// source is what belongs together: it is read, and put in force, as one.
type source struct {
	name   string
	read   func(context.Context) ([][]byte, error)
	load   func(contents [][]byte) error
	period time.Duration
	wake   <-chan struct{}
	// settles says that it counts only when two readings agree.
	settles bool

	loaded, seen [][]byte  // what is in force, and what was read last
	failed       string    // what was wrong when it was last looked at
	retry        time.Time // when what was seen and refused is tried again
	stale        atomic.Bool
}

// Files has load called with the contents of the files, in their order: now, and
// whenever they have changed and two readings, a second apart, agree, so that a
// file is not taken while it is being written. An error now is returned; later it is logged, and the
// files count as stale until they can be loaded. name is that of the setting.
func (w *Watcher) Files(name string, load func(contents [][]byte) error, paths ...string) error {
	s := &source{name: name, load: load, period: every, settles: true}
	s.read = func(context.Context) ([][]byte, error) {
		var contents [][]byte
		for _, path := range paths {
			content, err := readFile(path)
			if err != nil {
				return nil, err
			}
			contents = append(contents, content)
		}
		return contents, nil
	}
	contents, err := s.read(context.Background())
	if err != nil {
		return err
	}
	if err := load(contents); err != nil {
		return err
	}
	s.loaded, s.seen = contents, contents
	w.add(s)
	return nil
}

// Fetched has load called with what fetch brings, if it has changed: when Run
// begins, every period after that, and ten seconds after the last time at the earliest when wake has a value. Until
// it works for the first time it is tried every few seconds.
func (w *Watcher) Fetched(name string, period time.Duration, wake <-chan struct{}, fetch func(context.Context) ([]byte, error), load func([]byte) error) {
	s := &source{name: name, period: period, wake: wake}
	s.read = func(ctx context.Context) ([][]byte, error) {
		content, err := fetch(ctx)
		return [][]byte{content}, err
	}
	s.load = func(contents [][]byte) error { return load(contents[0]) }
	s.stale.Store(true)
	w.add(s)
}

func (w *Watcher) add(s *source) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.sources = append(w.sources, s)
}

// Stale says for each source, by its name, whether what is in force is not what
// is there.
func (w *Watcher) Stale() map[string]bool {
	w.mu.Lock()
	defer w.mu.Unlock()
	stale := map[string]bool{}
	for _, s := range w.sources {
		stale[s.name] = s.stale.Load()
	}
	return stale
}

// Run reads until ctx ends, what was added before it began.
func (w *Watcher) Run(ctx context.Context) {
	w.mu.Lock()
	sources := slices.Clone(w.sources)
	w.mu.Unlock()
	var running sync.WaitGroup
	for _, s := range sources {
		running.Go(func() { w.follow(ctx, s) })
	}
	running.Wait()
}

const (
	firstTries = 3 * time.Second  // between tries, until the first that works
	rest       = 10 * time.Second // after each, however often it is woken
)

func (w *Watcher) follow(ctx context.Context, s *source) {
	for {
		w.look(ctx, s)
		period := s.period
		if s.loaded == nil {
			period = min(period, firstTries)
		}
		select {
		case <-time.After(min(period, rest)):
		case <-ctx.Done():
			return
		}
		select {
		case <-time.After(period - min(period, rest)):
		case <-s.wake:
		case <-ctx.Done():
			return
		}
	}
}

// look reads once, and loads what has changed and settled.
func (w *Watcher) look(ctx context.Context, s *source) {
	contents, err := s.read(ctx)
	switch {
	case ctx.Err() != nil:
		return
	case err == nil && equal(contents, s.loaded):
		if s.failed != "" {
			w.log.InfoContext(ctx, "what is in force is there again", "setting", s.name)
		}
		s.seen, s.failed = contents, ""
		s.stale.Store(false)
		return
	case err == nil && s.settles && !equal(contents, s.seen):
		s.seen, s.retry = contents, time.Time{} // It may not be written to its end.
		return
	case err == nil && time.Now().Before(s.retry):
		return
	case err == nil:
		err = s.load(contents)
		s.retry = time.Now().Add(rest)
	}
	if err != nil {
		s.stale.Store(true)
		if s.failed != err.Error() {
			s.failed = err.Error()
			w.log.ErrorContext(ctx, "not loaded: what was in force stays", "setting", s.name, "error", err)
		}
		return
	}
	s.loaded, s.failed = contents, ""
	s.stale.Store(false)
	w.log.InfoContext(ctx, "loaded", "setting", s.name)
}

func equal(a, b [][]byte) bool { return slices.EqualFunc(a, b, bytes.Equal) }

// readFile returns a file's content. It does not read what never ends.
func readFile(path string) ([]byte, error) {
	f, err := os.Open(path)
	if err != nil {
		return nil, err
	}
	content, err := io.ReadAll(io.LimitReader(f, maxSize+1))
	if err := errors.Join(err, f.Close()); err != nil {
		return nil, err
	}
	if len(content) > maxSize {
		return nil, fmt.Errorf("%s is larger than %d MiB", path, maxSize>>20)
	}
	return content, nil
}

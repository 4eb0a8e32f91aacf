package redisstore_test

import (
	"context"
	"maps"
	"slices"
	"sync"
	"testing"
	"time"

	"smokeball.internal/tokenbroker/internal/redisstore"
	"smokeball.internal/tokenbroker/internal/redisstore/redistest"
)

// stopwatch counts what a store tells its observer.
type stopwatch struct {
	mu             sync.Mutex
	answered, fail map[string]int // :: command → how often
}

func (w *stopwatch) Answered(command string, took time.Duration, failed bool) {
	w.mu.Lock()
	defer w.mu.Unlock()
	if took <= 0 {
		command += ", in no time" // Which is none of Commands.
	}
	if failed {
		w.fail[command]++
	} else {
		w.answered[command]++
	}
}

// read returns what was told since the last time.
func (w *stopwatch) read() (answered, failed map[string]int) {
	w.mu.Lock()
	defer w.mu.Unlock()
	answered, failed = w.answered, w.fail
	w.answered, w.fail = map[string]int{}, map[string]int{}
	return answered, failed
}

// timed has a fixture's store tell a stopwatch.
func (f *fixture) timed(t *testing.T) *stopwatch {
	t.Helper()
	w := &stopwatch{answered: map[string]int{}, fail: map[string]int{}}
	f.observer = w
	f.Store = f.open(t, f.keyset)
	return w
}

func wantAnswered(t *testing.T, when string, w *stopwatch, answered, failed map[string]int) {
	t.Helper()
	if ok, not := w.read(); !maps.Equal(ok, answered) || !maps.Equal(not, failed) {
		t.Errorf("%s: answered %v, failed %v, want %v and %v", when, ok, not, answered, failed)
	}
}

// Of everything that a store does it is told what it has sent, by a name that is
// known, in every shape; but not of the read that waits for changes.
func TestAllCommandsAreMeasured(t *testing.T) {
	t.Parallel()
	for _, shape := range []shape{
		{"standalone", func(t *testing.T) string { return redistest.Start(t).URL() }},
		{"cluster", func(t *testing.T) string { return redistest.StartCluster(t).URL() }},
		{"embedded", func(t *testing.T) string {
			embedded, err := redisstore.StartEmbedded()
			if err != nil {
				t.Fatal(err)
			}
			t.Cleanup(embedded.Close)
			return embedded.URL()
		}},
	} {
		t.Run(shape.name, func(t *testing.T) {
			t.Parallel()
			ctx, file := t.Context(), newKeysetFile(t)
			f := newFixtureAt(t, shape.start(t)).sealedWith(t, file.load())
			w := f.timed(t)
			f.create(t, newTenant("before"))
			doEverything(t, f)
			f.save(t, keyOf("acme"), newToken("sealed with the key before", 0, time.Hour))
			f.sealedWith(t, file.rotated(0))
			for name, call := range calls(f) {
				if err := call(ctx); isOutage(err) {
					t.Errorf("%s: %v", name, err)
				}
			}
			if _, err := f.Warnings(ctx); err != nil {
				t.Error(err)
			}
			comeAndGo(t, f)
			f.create(t, newTenant("after"))
			if err := newFixtureAt(t, f.url).LoseSecretsIndex(ctx); err != nil { // By a client that is not measured.
				t.Error(err)
			}
			if _, err := f.SecretAges(ctx, nil, 1); err != nil {
				t.Error(err)
			}
			answered, failed := w.read()
			want := slices.DeleteFunc(redisstore.Commands(), func(name string) bool { return name == "other" })
			if shape.name == "cluster" {
				delete(answered, "other") // The client asks who the nodes are.
			}
			if got := slices.Sorted(maps.Keys(answered)); !slices.Equal(got, want) {
				t.Errorf("told of %q, want %q", got, want)
			}
			if len(failed) > 0 {
				t.Errorf("told that these have failed: %v", failed)
			}
		})
	}
}

func TestACommandIsToldOfOnceWithItsOutcome(t *testing.T) {
	t.Parallel()
	for _, test := range []struct {
		name  string
		start func(*testing.T) (url string, ofKey func(key string) *redistest.Server)
	}{
		{"standalone", func(t *testing.T) (string, func(string) *redistest.Server) {
			server := redistest.Start(t)
			return server.URL(), func(string) *redistest.Server { return server }
		}},
		{"cluster", func(t *testing.T) (string, func(string) *redistest.Server) {
			cluster := redistest.StartCluster(t)
			return cluster.URL(), cluster.Primary
		}},
	} {
		t.Run(test.name, func(t *testing.T) {
			t.Parallel()
			url, ofKey := test.start(t)
			f, k := newFixtureAt(t, url), keyOf("acme")
			w := f.timed(t)
			ping := func(ctx context.Context) { _ = f.Ping(ctx) }
			want := func(when string, answered, failed map[string]int) {
				t.Helper()
				wantAnswered(t, test.name+", "+when, w, answered, failed)
			}
			ping(t.Context())
			want("on a new connection", map[string]int{"exists": 1}, nil)
			for _, what := range []string{"a script that is not known there", "one that is"} {
				if acquired, err := f.Lease(t.Context(), k, "a", time.Minute); err != nil || !acquired {
					t.Fatalf("lease: %v, %v", acquired, err)
				}
				sent := 1
				if what != "one that is" {
					sent = 2 // By its digest, and then as a whole.
				}
				want(what, map[string]int{"lease": sent}, nil)
			}
			if _, err := f.Tenant(t.Context(), "nobody"); err == nil {
				t.Error("nobody is registered")
			}
			want("of what there is not", map[string]int{"hget": 1, "get": 1}, nil)
			server := ofKey(recordsKey)
			if err := server.Client().Do(t.Context(), "ACL", "SETUSER", "default", "-exists", "-info").Err(); err != nil {
				t.Fatal(err)
			}
			ping(t.Context())
			want("of what is not allowed", nil, map[string]int{"exists": 1})
			if _, err := f.Warnings(t.Context()); err != nil {
				t.Fatal(err)
			}
			if _, failed := w.read(); len(failed) > 0 {
				t.Errorf("%v has failed, though it need not be allowed", failed)
			}
			given, cancel := context.WithCancel(t.Context())
			cancel()
			ping(given)
			want("given up", nil, nil)
			server.Pause()
			defer server.Resume()
			hurried, cancel := context.WithTimeout(t.Context(), 50*time.Millisecond)
			defer cancel()
			ping(hurried)
			want("without an answer", nil, map[string]int{"exists": 1})
		})
	}
}

package client_test

import (
	"fmt"
	"slices"
	"testing"
	"testing/synctest"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"smokeball.internal/tokenbroker/client"
)

func TestManySourcesHaveFewStreams(t *testing.T) {
	inBubble(t, 5*minute, func(t *testing.T, h *house) {
		sources := make([]*client.TokenSource, 600)
		for i := range sources {
			sources[i] = h.client.TokenSource(fmt.Sprintf("firm-%d", i))
		}
		for range 15 {
			for _, s := range sources {
				if _, err := s.Token(); err != nil {
					t.Fatal(err)
				}
			}
			time.Sleep(minute)
			if n := h.streams(); n != 500 {
				t.Fatalf("%d streams", n)
			}
		}
		// Each asks once at first; those without a stream at 82 to 88 % of a life.
		if gets := h.count("GetToken"); gets < 600+2*100 || gets > 600+5*100 {
			t.Errorf("%d GetToken", gets)
		}
		if watches := h.count("WatchToken"); watches != 500 {
			t.Errorf("%d WatchToken", watches)
		}
	})
}

// A stream that one source gives back is for another.
func TestStreamsArePassedOn(t *testing.T) {
	inBubble(t, 5*minute, func(t *testing.T, h *house) {
		for i := range 500 {
			if _, err := h.client.TokenSource(fmt.Sprintf("firm-%d", i)).Token(); err != nil {
				t.Fatal(err)
			}
		}
		h.want(t, 1)
		h.later(12 * minute)
		if n := h.streams(); n != 1 {
			t.Errorf("%d streams, and one source is in use", n)
		}
	})
}

func TestUnusedSourceStops(t *testing.T) {
	for _, life := range []time.Duration{5 * time.Second, 5 * minute, time.Hour, day} {
		t.Run(life.String(), func(t *testing.T) {
			inBubble(t, life, func(t *testing.T, h *house) {
				h.want(t, 1)
				time.Sleep(life * 9 / 10)
				if h.streams() != 1 {
					t.Error("stopped before a token's life was over")
				}
				time.Sleep(life + time.Minute)
				if n := h.streams(); n != 0 {
					t.Errorf("%d streams after two lives", n)
				}
				gets, watches := h.count("GetToken"), h.count("WatchToken")
				time.Sleep(10 * life)
				if h.count("GetToken") != gets || h.count("WatchToken") != watches {
					t.Error("asked, and nobody wants it")
				}
				if _, err := h.acme.Token(); err != nil {
					t.Error(err)
				}
				synctest.Wait()
				if n := h.streams(); n != 1 {
					t.Errorf("%d streams when it is used again", n)
				}
			})
		})
	}
}

// The token of a source that has stopped is handed out while it lives, and whoever
// gets it has the source begin anew.
func TestStoppedSourceIsWokenByAReader(t *testing.T) {
	inBubble(t, time.Hour, func(t *testing.T, h *house) {
		h.want(t, 1)
		for h.streams() == 1 {
			time.Sleep(time.Second)
		}
		began := time.Now()
		if _, err := h.acme.Token(); err != nil || time.Since(began) != 0 {
			t.Errorf("%v, after %v", err, time.Since(began))
		}
		synctest.Wait()
		if n := h.streams(); n != 1 {
			t.Errorf("%d streams", n)
		}
		if gets := h.count("GetToken"); gets != 1 {
			t.Errorf("%d GetToken", gets)
		}
	})
}

// Its life is counted from the last use, not from the first of a token.
func TestSourceGoesOnAfterItsLastUse(t *testing.T) {
	inBubble(t, time.Hour, func(t *testing.T, h *house) {
		h.later(40 * minute)
		time.Sleep(50 * minute)
		if n := h.streams(); n != 1 {
			t.Errorf("%d streams", n)
		}
	})
}

// A reader now and then is use enough, at whatever moment it comes.
func TestSeldomUsedSourceGoesOn(t *testing.T) {
	inBubble(t, time.Hour, func(t *testing.T, h *house) {
		for i := range 50 {
			began := time.Now()
			if _, err := h.acme.Token(); err != nil || i > 0 && time.Since(began) > 0 {
				t.Fatalf("%v, after %v", err, time.Since(began))
			}
			time.Sleep(55*minute + time.Duration(i)*time.Second)
		}
		if watches := h.count("WatchToken"); watches != 1 {
			t.Errorf("%d WatchToken", watches)
		}
	})
}

// Whatever a source was doing, Close ends it at once. That nothing is left running
// is checked by the bubble, which does not end before.
func TestCloseEndsEverything(t *testing.T) {
	for name, prepare := range map[string]func(*testing.T, *house){
		"never asked": func(*testing.T, *house) {},
		"watching":    func(t *testing.T, h *house) { h.want(t, 1) },
		"stopped":     func(t *testing.T, h *house) { h.want(t, 1); time.Sleep(3 * time.Hour) },
		"resting": func(t *testing.T, h *house) {
			h.want(t, 1)
			h.down()
			h.later(minute)
		},
		"failing": func(t *testing.T, h *house) {
			h.down()
			_, _ = h.acme.Token()
		},
		"asking": func(t *testing.T, h *house) {
			h.change(func(r *fake) { r.hold = make(chan struct{}) })
			go func() { _, _ = h.acme.Token() }()
		},
		"replacing": func(t *testing.T, h *house) {
			h.want(t, 1)
			go func() { _, _ = h.acme.Replace(t.Context(), id(1)) }()
		},
	} {
		t.Run(name, func(t *testing.T) {
			inBubble(t, time.Hour, func(t *testing.T, h *house) {
				prepare(t, h)
				synctest.Wait()
				began := time.Now()
				if err := h.client.Close(); err != nil {
					t.Error(err)
				}
				if waited := time.Since(began); waited != 0 {
					t.Errorf("took %v", waited)
				}
				before := h.count("GetToken") + h.count("WatchToken") + h.count("RefreshToken")
				time.Sleep(day)
				if after := h.count("GetToken") + h.count("WatchToken") + h.count("RefreshToken"); after != before {
					t.Errorf("%d calls afterwards", after-before)
				}
			})
		})
	}
}

// A proxy may admit fewer streams than the broker, and let others wait without a
// word. Calls do not wait behind them, and whoever has no stream has tokens too.
func TestCallsDoNotWaitBehindStreams(t *testing.T) {
	inBubble(t, time.Hour, func(t *testing.T, h *house) {
		h.down()
		h.options = []grpc.ServerOption{grpc.MaxConcurrentStreams(100)}
		h.up()
		const sources = 150
		source := func(n int) *client.TokenSource { return h.client.TokenSource(fmt.Sprint("firm-", n)) }
		all := func() {
			t.Helper()
			for n := range sources {
				began := time.Now()
				if _, err := source(n).Token(); err != nil || time.Since(began) > 2*time.Second {
					t.Fatalf("%d after %v: %v", n, time.Since(began), err)
				}
			}
		}
		for range 3 * 60 {
			all()
			time.Sleep(minute)
		}
		if n := h.streams(); n != 100 {
			t.Errorf("%d streams are open", n)
		}
		if gets := h.count("GetToken"); gets > 3*2*sources {
			t.Errorf("%d GetToken in three hours", gets)
		}
		tok, err := source(1).Get(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		if _, err := source(1).Replace(t.Context(), tok.ID); err != nil {
			t.Errorf("Replace: %v", err)
		}
	})
}

// A caller that may get tokens and not watch them is not refused all day long.
func TestAStreamThatIsNotAllowedIsAskedForOncePerToken(t *testing.T) {
	inBubble(t, time.Hour, func(t *testing.T, h *house) {
		h.change(func(r *fake) { r.watchErr = refusal(codes.PermissionDenied, "NOT_ALLOWED", 0) })
		for range 24 * 60 {
			if _, err := h.acme.Token(); err != nil {
				t.Fatal(err)
			}
			time.Sleep(minute)
		}
		if n := h.count("WatchToken"); n > 32 {
			t.Errorf("%d WatchToken in a day", n)
		}
	})
}

// There are as many tenants as there are names, and nobody closes a source.
func TestSourcesThatNobodyAsksAnyMoreLeaveNothing(t *testing.T) {
	inBubble(t, time.Hour, func(t *testing.T, h *house) {
		h.want(t, 1)
		var sources []*client.TokenSource
		h.change(func(r *fake) { r.getErr = refusal(codes.NotFound, "TENANT_NOT_FOUND", 0) })
		for n := range 1000 {
			s := h.client.TokenSource(fmt.Sprint("no-such-", n))
			if _, err := s.Token(); status.Code(err) != codes.NotFound {
				t.Fatal(err)
			}
			sources = append(sources, s)
		}
		h.later(10 * minute)
		if slices.ContainsFunc(sources, (*client.TokenSource).Started) {
			t.Error("a source goes on")
		}
		if n := h.client.Sources(); n > 1 {
			t.Errorf("%d sources are remembered", n)
		}
		// And whoever kept one can use it again.
		kept := h.client.TokenSource("kept")
		_, _ = kept.Token()
		h.later(10 * minute)
		h.change(func(r *fake) { r.getErr = nil })
		if _, err := kept.Token(); err != nil {
			t.Error(err)
		}
	})
}

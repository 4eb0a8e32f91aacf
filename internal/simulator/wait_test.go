package simulator_test

import (
	"context"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"smokeball.internal/tokenbroker/internal/simulator"
)

// start serves a request in a goroutine of the bubble and returns a function that says whether it is over.
func start(ctx context.Context, s *simulator.Simulator) (*httptest.ResponseRecorder, func() bool) {
	w := httptest.NewRecorder()
	over := make(chan struct{})
	go func() {
		defer close(over)
		s.ServeHTTP(w, tokenRequest().WithContext(ctx))
	}()
	return w, func() bool {
		synctest.Wait()
		select {
		case <-over:
			return true
		default:
			return false
		}
	}
}

func TestDelayedAnswerIsPaidForAndAgesMeanwhile(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := newSimulator(t)
		setFault(t, s, "acme", simulator.Fault{Kind: simulator.KindDelay, Delay: 20 * time.Second})
		begun := time.Now()
		w, over := start(t.Context(), s)
		if over() {
			t.Fatal("answered at once")
		}
		wantCounts(t, s, "acme", 1, 1)
		time.Sleep(20*time.Second - time.Millisecond)
		if over() {
			t.Fatal("answered too soon")
		}
		time.Sleep(time.Millisecond)
		if !over() {
			t.Fatal("not answered in time")
		}
		token := answered(t, w.Body.String())["access_token"].(string)
		if got := claimsOf(t, token)["iat"]; got != float64(begun.Unix()) {
			t.Errorf("iat = %v, want %d, when the request arrived", got, begun.Unix())
		}
	})
}

func TestDelayCombinesWithEveryKind(t *testing.T) {
	for _, fault := range []simulator.Fault{
		{Kind: simulator.KindStatus, Status: 503},
		{Kind: simulator.KindWAF},
		{Kind: simulator.KindTruncate},
		{Kind: simulator.KindReset},
		{Kind: simulator.KindOpaque},
	} {
		t.Run(string(fault.Kind), func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				s := newSimulator(t)
				fault.Delay = time.Minute
				setFault(t, s, "acme", fault)
				begun := time.Now()
				serve(s, tokenRequest())
				if waited := time.Since(begun); waited != time.Minute {
					t.Errorf("answered after %v, want 1m", waited)
				}
			})
		})
	}
}

func TestHeldRequestsEndWithTheirClient(t *testing.T) {
	for _, fault := range []simulator.Fault{
		{Kind: simulator.KindHang},
		{Kind: simulator.KindDelay, Delay: time.Hour},
	} {
		t.Run(string(fault.Kind), func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				s := newSimulator(t)
				setFault(t, s, "acme", fault)
				ctx, cancel := context.WithCancel(t.Context())
				w, over := start(ctx, s)
				time.Sleep(30 * time.Minute)
				if over() {
					t.Fatal("answered while the client is waiting")
				}
				cancel()
				if !over() {
					t.Fatal("still held after its client left")
				}
				if strings.Contains(w.Body.String(), "access_token") || w.Code == http.StatusOK {
					t.Errorf("%d %s, want no answer", w.Code, w.Body)
				}
				wantCounts(t, s, "acme", 1, 1)
			})
		})
	}
}

func TestCloseReleasesHeldRequests(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := newSimulator(t)
		setFault(t, s, "acme", simulator.Fault{Kind: simulator.KindHang, Times: 1})
		_, hanging := start(t.Context(), s)
		if hanging() {
			t.Fatal("not hanging")
		}
		setFault(t, s, "acme", simulator.Fault{Kind: simulator.KindDelay, Delay: time.Hour})
		w, delayed := start(t.Context(), s)
		if delayed() {
			t.Fatal("not delayed")
		}
		s.Close()
		s.Close()
		if !hanging() || !delayed() {
			t.Fatal("still held after Close")
		}
		if w.Code != http.StatusOK {
			t.Errorf("the delayed request is answered %d, want 200", w.Code)
		}
	})
}

func TestCloseCutsTheConnectionOfHangingRequests(t *testing.T) {
	s := newSimulator(t)
	arrived := make(chan struct{})
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		close(arrived)
		s.ServeHTTP(w, r)
	}))
	defer server.Close()
	setFault(t, s, "acme", simulator.Fault{Kind: simulator.KindHang})
	failed := make(chan error)
	go func() {
		_, err := exchange(server, tokenRequestTo(server.URL))
		failed <- err
	}()
	<-arrived
	s.Close()
	if err := <-failed; err == nil {
		t.Error("the hanging request was answered, want a broken connection")
	}
	wantCounts(t, s, "acme", 1, 1)
}

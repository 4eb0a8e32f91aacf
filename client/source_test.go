package client_test

import (
	"context"
	"errors"
	"slices"
	"testing"
	"testing/synctest"
	"time"

	"golang.org/x/oauth2"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"smokeball.internal/tokenbroker/client"
)

var _ oauth2.TokenSource = (*client.TokenSource)(nil)

func TestTokenHasWhatTheBrokerSent(t *testing.T) {
	inBubble(t, time.Hour, func(t *testing.T, h *house) {
		began := time.Now()
		got, err := h.acme.Get(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		if got.AccessToken != access(1) || got.ID != id(1) || !slices.Equal(got.Scopes, []string{"a"}) ||
			got.APIBaseURL != "https://api.example/firm" || got.APIKey != "key-of-the-firm" || !got.Expires.Equal(began.Add(time.Hour)) {
			t.Errorf("got %v %s %v %s %s", got, got.AccessToken, got.Scopes, got.APIBaseURL, got.APIKey)
		}
		standard, err := h.acme.Token()
		if err != nil || standard.AccessToken != access(1) || standard.Type() != "Bearer" || !standard.Expiry.Equal(began.Add(59*time.Minute)) {
			t.Errorf("as oauth2.Token: %v, %v", standard, err)
		}
	})
}

func TestOneSourceForATenantAndItsScopes(t *testing.T) {
	inBubble(t, time.Hour, func(t *testing.T, h *house) {
		same := func(a, b *client.TokenSource, want bool) {
			t.Helper()
			if (a == b) != want {
				t.Errorf("same: %v, want %v", a == b, want)
			}
		}
		scoped := func(scopes ...string) *client.TokenSource {
			return h.client.TokenSource("acme", client.WithScopes(scopes...))
		}
		same(h.acme, h.client.TokenSource("tenants/acme"), true)
		same(h.acme, h.client.TokenSource("globex"), false)
		same(h.acme, scoped(), true)
		same(h.acme, scoped("a"), false)
		same(scoped("a", "b"), scoped("b", "a", "b"), true)
		same(scoped("a", "b"), scoped("a b"), false)
		same(scoped("a\x00b"), scoped("a", "b"), false)
		same(scoped(`a" "b`), scoped("a", "b"), false)

		if _, err := scoped("b", "a", "b").Token(); err != nil {
			t.Fatal(err)
		}
		synctest.Wait()
		if h.last.GetTenant() != "tenants/acme" || !slices.Equal(h.last.GetScopes(), []string{"a", "b"}) {
			t.Errorf("asked for %v of %s", h.last.GetScopes(), h.last.GetTenant())
		}
		if h.count("GetToken") != 1 {
			t.Error("a source that was not asked has asked")
		}
	})
}

func TestThousandColdCallersCostOneCall(t *testing.T) {
	inBubble(t, time.Hour, func(t *testing.T, h *house) {
		errs := make(chan error)
		for range 1000 {
			go func() {
				_, err := h.acme.Token()
				errs <- err
			}()
		}
		for range 1000 {
			if err := <-errs; err != nil {
				t.Fatal(err)
			}
		}
		if n := h.count("GetToken"); n != 1 {
			t.Errorf("%d calls", n)
		}
	})
}

func TestColdCallersWaitNoLongerThanTheyWant(t *testing.T) {
	inBubble(t, time.Hour, func(t *testing.T, h *house) {
		silent := make(chan struct{})
		defer close(silent)
		h.change(func(r *fake) { r.hold = silent })

		ctx, cancel := context.WithTimeout(t.Context(), time.Second)
		defer cancel()
		began := time.Now()
		if _, err := h.acme.Get(ctx); !errors.Is(err, context.DeadlineExceeded) || time.Since(began) != time.Second {
			t.Errorf("Get: %v after %v", err, time.Since(began))
		}
		if _, err := h.acme.Token(); err == nil || time.Since(began) > 11*time.Second {
			t.Errorf("Token: %v after %v", err, time.Since(began))
		}
		h.wantError(t, codes.DeadlineExceeded)
	})
}

func TestClosedClientHasNoTokens(t *testing.T) {
	inBubble(t, time.Hour, func(t *testing.T, h *house) {
		h.want(t, 1)
		idle := h.client.TokenSource("never-asked")
		waiting := make(chan error)
		silent := make(chan struct{})
		defer close(silent)
		h.change(func(r *fake) { r.hold = silent })
		go func() {
			_, err := h.client.TokenSource("globex").Token()
			waiting <- err
		}()
		synctest.Wait()
		if err := h.client.Close(); err != nil {
			t.Fatal(err)
		}
		if err := <-waiting; status.Code(err) != codes.Canceled {
			t.Errorf("who waited got %v", err)
		}
		for name, s := range map[string]*client.TokenSource{"warm": h.acme, "never asked": idle, "new": h.client.TokenSource("new")} {
			if _, err := s.Token(); status.Code(err) != codes.Canceled {
				t.Errorf("Token of %s: %v", name, err)
			}
			if _, err := s.Get(t.Context()); status.Code(err) != codes.Canceled {
				t.Errorf("Get of %s: %v", name, err)
			}
			if _, err := s.Replace(t.Context(), id(1)); status.Code(err) != codes.Canceled {
				t.Errorf("Replace of %s: %v", name, err)
			}
		}
	})
}

func TestWarmTokenCostsNoAllocation(t *testing.T) {
	h := newHouse(t, time.Hour)
	if _, err := h.acme.Token(); err != nil {
		t.Fatal(err)
	}
	if n := testing.AllocsPerRun(1000, func() { _, _ = h.acme.Token() }); n != 0 {
		t.Errorf("%v allocations", n)
	}
}

// BenchmarkToken compares a warm source with what oauth2 has for the purpose.
func BenchmarkToken(b *testing.B) {
	h := newHouse(b, time.Hour)
	first, err := h.acme.Token()
	if err != nil {
		b.Fatal(err)
	}
	copied := *first
	for _, side := range []struct {
		name   string
		source oauth2.TokenSource
	}{
		{"TokenSource", h.acme},
		{"oauth2.ReuseTokenSource", oauth2.ReuseTokenSource(&copied, h.acme)},
	} {
		b.Run(side.name, func(b *testing.B) {
			b.ReportAllocs()
			b.RunParallel(func(pb *testing.PB) {
				for pb.Next() {
					if t, err := side.source.Token(); err != nil || t == nil {
						b.Error(err)
					}
				}
			})
		})
	}
}

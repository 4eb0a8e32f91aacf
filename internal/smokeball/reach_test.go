package smokeball_test

import (
	"errors"
	"net/http"
	"net/http/httptest"
	"testing"
	"time"

	"smokeball.internal/tokenbroker/internal/smokeball"
	"smokeball.internal/tokenbroker/internal/tenant"
	"smokeball.internal/tokenbroker/internal/token"
)

func TestReachAsksForNoToken(t *testing.T) {
	t.Parallel()
	var method string
	var header http.Header
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		method, header = r.Method, r.Header
		w.Header().Set("Date", time.Now().Add(-time.Hour).UTC().Format(http.TimeFormat))
		w.WriteHeader(http.StatusMethodNotAllowed)
	}))
	defer server.Close()
	place := smokeball.Place{Region: tenant.AU, Environment: tenant.Staging}
	issuer := smokeball.New(smokeball.Overrides{place: {TokenEndpoint: server.URL + "/oauth2/token"}})
	got, err := issuer.Reach(t.Context(), place)
	if err != nil || got.Status != http.StatusMethodNotAllowed || got.Host != server.Listener.Addr().String() || !got.Dated || (got.Ahead+time.Hour).Abs() > time.Minute {
		t.Errorf("got %+v, %v", got, err)
	}
	if method != http.MethodHead || header.Get("Authorization") != "" || header.Get("Content-Type") != "" {
		t.Errorf("asked with %s and %v", method, header)
	}
	server.Close()
	if _, err := issuer.Reach(t.Context(), place); !errors.As(err, new(*token.Failure)) {
		t.Errorf("nobody there: %v", err)
	}
}

package ops_test

import (
	"context"
	"io"
	"log/slog"
	"net"
	"net/http"
	"slices"
	"strings"
	"testing"

	"smokeball.internal/tokenbroker/internal/ops"
)

// People get the page, and scripts what they always got.
func TestStatusIsAPageToThoseWhoReadHTML(t *testing.T) {
	page := http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) { _, _ = io.WriteString(w, "the page "+r.URL.RawQuery) })
	server := ops.NewServer(ops.Config{
		Version: "v1", Metrics: ops.NewMetrics(), PingRedis: func(context.Context) error { return nil }, Page: page, Logger: slog.New(slog.DiscardHandler),
	})
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	served := make(chan error, 1)
	go func() { served <- server.Serve(l) }()
	t.Cleanup(func() {
		server.Close(context.Background())
		if err := <-served; err != nil {
			t.Error(err)
		}
	})
	for accept, html := range map[string]bool{
		"": false, "*/*": false, "application/json": false, "text/plain, application/json;q=0.9": false, "text/htmlx": false,
		"text/html": true, "TEXT/HTML;q=0.9": true, "application/xhtml+xml, text/html; charset=utf-8, */*;q=0.8": true,
	} {
		req, err := http.NewRequestWithContext(t.Context(), http.MethodGet, "http://"+l.Addr().String()+"/status?q=a", nil)
		if err != nil {
			t.Fatal(err)
		}
		req.Header.Set("Accept", accept)
		resp, err := http.DefaultClient.Do(req)
		if err != nil {
			t.Fatal(err)
		}
		body, _ := io.ReadAll(resp.Body)
		_ = resp.Body.Close()
		if got := string(body); (got == "the page q=a") != html || !html && !strings.HasPrefix(got, `{"version":"v1"`) || resp.Header.Get("Vary") != "Accept" {
			t.Errorf("%q: %s, %v", accept, got, resp.Header)
		}
	}
	if why := server.Hindrances(); len(why) == 0 || !strings.HasPrefix(why[0], "not ready: starting") {
		t.Errorf("at first: %q", why)
	}
	for _, test := range []struct {
		tokens, tenants string
		want            []string
	}{
		{"", "", nil},
		{"Redis is away", "Redis is away", []string{"not ready: Redis is away"}},
		{"", "Redis is away", []string{"ready, but serves no administrators: Redis is away"}},
		{"deaf", "Redis is away", []string{"not ready: deaf", "serves no administrators: Redis is away"}},
	} {
		server.NotReady(test.tokens)
		server.NotAdministering(test.tenants)
		if got := server.Hindrances(); !slices.Equal(got, test.want) {
			t.Errorf("%+v: %q", test, got)
		}
	}
}

package ops_test

import (
	"context"
	"encoding/json"
	"errors"
	"io"
	"log/slog"
	"net"
	"net/http"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"smokeball.internal/tokenbroker/internal/broker"
	"smokeball.internal/tokenbroker/internal/ops"
	"smokeball.internal/tokenbroker/internal/token"
)

// office is a server to ask, of a Redis and a broker that can be chosen.
type office struct {
	server    *ops.Server
	url       string
	redisAway atomic.Bool
	stats     atomic.Pointer[broker.Stats]
	observer  *ops.BrokerObserver
	warnings  *ops.RedisWarnings
	wrong     atomic.Pointer[map[string]string] // with Redis
}

func newOffice(t *testing.T) *office {
	t.Helper()
	o := &office{}
	o.stats.Store(&broker.Stats{})
	metrics := ops.NewMetrics()
	o.observer = ops.NewBrokerObserver()
	metrics.MustRegister(ops.BrokerMetrics(func() broker.Stats { return *o.stats.Load() }), o.observer)
	o.warnings = ops.NewRedisWarnings([]string{"evicts", "unsaved"},
		func(context.Context) (map[string]string, error) { return *o.wrong.Load(), nil }, slog.New(slog.DiscardHandler))
	metrics.MustRegister(o.warnings)
	o.server = ops.NewServer(ops.Config{
		Version: "v1.2.3", Metrics: metrics, Logger: slog.New(slog.DiscardHandler), Warnings: o.warnings.Sentences,
		PingRedis: func(ctx context.Context) error {
			if _, bounded := ctx.Deadline(); !bounded {
				t.Error("Redis may take as long as it likes")
			}
			if o.redisAway.Load() {
				return errors.New("dial tcp: planted-host refused")
			}
			return nil
		},
	})
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	o.url = "http://" + l.Addr().String()
	served := make(chan error, 1)
	go func() { served <- o.server.Serve(l) }()
	t.Cleanup(func() {
		ctx, cancel := context.WithTimeout(context.Background(), 10*time.Second)
		defer cancel()
		o.server.Close(ctx)
		if err := <-served; err != nil {
			t.Errorf("Serve: %v", err)
		}
	})
	return o
}

func (o *office) ask(t *testing.T, method, path string) (status int, body string, header http.Header) {
	t.Helper()
	req, err := http.NewRequestWithContext(t.Context(), method, o.url+path, nil)
	if err != nil {
		t.Fatal(err)
	}
	resp, err := http.DefaultClient.Do(req)
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = resp.Body.Close() }()
	content, err := io.ReadAll(resp.Body)
	if err != nil {
		t.Fatal(err)
	}
	return resp.StatusCode, string(content), resp.Header
}

func (o *office) want(t *testing.T, path string, status int, body string) {
	t.Helper()
	gotStatus, gotBody, header := o.ask(t, http.MethodGet, path)
	if gotStatus != status || gotBody != body {
		t.Errorf("%s: %d %q, want %d %q", path, gotStatus, gotBody, status, body)
	}
	if header.Get("Cache-Control") != "no-store" || !strings.HasPrefix(header.Get("Content-Type"), "text/plain") {
		t.Errorf("%s: headers %v", path, header)
	}
}

func (o *office) metrics(t *testing.T) string {
	t.Helper()
	code, body, _ := o.ask(t, http.MethodGet, "/metrics")
	if code != 200 {
		t.Errorf("status %d", code)
	}
	return body
}

func TestReadiness(t *testing.T) {
	o := newOffice(t)
	o.want(t, "/livez", 200, "live\n")
	o.want(t, "/startupz", 200, "started\n")
	o.want(t, "/readyz", 503, "starting: Redis has not been reached yet\n")
	wantLines(t, o.metrics(t), "tokenbroker_ready 0")
	o.server.NotReady("")
	o.want(t, "/readyz", 200, "ready\n")
	wantLines(t, o.metrics(t), "tokenbroker_ready 1")
	o.redisAway.Store(true)
	o.want(t, "/readyz", 200, "ready\n") // A replica without Redis still has its tokens.
	o.server.NotReady("shutting down")
	o.want(t, "/readyz", 503, "shutting down\n")
	o.want(t, "/livez", 200, "live\n")
}

func TestStatus(t *testing.T) {
	type status struct {
		Version  string   `json:"version"`
		Uptime   string   `json:"uptime"`
		Ready    bool     `json:"ready"`
		NotReady *string  `json:"not_ready_because"`
		Tenants  *string  `json:"tenants_not_served_because"`
		Redis    string   `json:"redis"`
		Warnings []string `json:"redis_warnings"`
	}
	o := newOffice(t)
	read := func() status {
		t.Helper()
		code, body, header := o.ask(t, http.MethodGet, "/status")
		if code != 200 || header.Get("Content-Type") != "application/json" {
			t.Errorf("%d, %v", code, header)
		}
		if strings.Contains(body, "planted") {
			t.Errorf("the status tells where Redis is: %s", body)
		}
		var s status
		decoder := json.NewDecoder(strings.NewReader(body))
		decoder.DisallowUnknownFields()
		if err := decoder.Decode(&s); err != nil {
			t.Fatalf("%v: %s", err, body)
		}
		if _, err := time.ParseDuration(s.Uptime); err != nil {
			t.Errorf("uptime: %v", err)
		}
		return s
	}
	s := read()
	if s.Version != "v1.2.3" || s.Ready || s.NotReady == nil || !strings.HasPrefix(*s.NotReady, "starting") || s.Tenants == nil || *s.Tenants != *s.NotReady || s.Redis != "answers" {
		t.Errorf("at first: %+v", s)
	}
	o.server.NotReady("")
	o.redisAway.Store(true)
	if s := read(); !s.Ready || s.NotReady != nil || s.Tenants == nil || s.Redis != "out of reach" {
		t.Errorf("ready, without Redis: %+v", s)
	}
	o.server.NotAdministering("")
	if s := read(); !s.Ready || s.Tenants != nil {
		t.Errorf("with all: %+v", s)
	}
}

func TestMetrics(t *testing.T) {
	o := newOffice(t)
	read := func() string { t.Helper(); return o.metrics(t) }
	wantLines(t, read(), `tokenbroker_exchanges_total{outcome="ok"} 0`, `tokenbroker_answers_total{from="memory"} 0`,
		"go_goroutines ", "process_start_time_seconds ")
	o.stats.Store(&broker.Stats{FromMemory: 7, FromStore: 4, FromExchange: 2, Joined: 3, Bought: 2, Failed: map[token.Class]uint64{token.Throttled: 5, token.Malformed: 1},
		AheadFailed: 6, LeaseWaits: 9, Takeovers: 8, Watches: 11, ExchangeRate: 12.5, Issuers: map[string]broker.IssuerState{
			// On one host, as overrides may have them.
			"https://auth.test/us/token": broker.Serving, "https://auth.test/au/token": broker.Resting, "https://auth.test/uk/token": broker.Tried}})
	wantLines(t, read(),
		`tokenbroker_exchanges_total{outcome="ok"} 2`,
		`tokenbroker_exchanges_total{outcome="throttled"} 5`,
		`tokenbroker_exchanges_total{outcome="malformed"} 1`,
		`tokenbroker_exchanges_total{outcome="credentials_rejected"} 0`,
		"tokenbroker_exchange_rate_limit 12.5",
		`tokenbroker_answers_total{from="memory"} 7`,
		`tokenbroker_answers_total{from="store"} 4`,
		`tokenbroker_answers_total{from="exchange"} 2`,
		`tokenbroker_answers_total{from="waited"} 3`,
		"tokenbroker_refreshes_ahead_failed_total 6", "tokenbroker_lease_waits_total 9", "tokenbroker_lease_takeovers_total 8", "tokenbroker_watches 11",
		`tokenbroker_issuer_state{issuer="auth.test",state="resting"} 1`, `tokenbroker_issuer_state{issuer="auth.test",state="serving"} 0`)
}

func TestWhatABrokerTellsOfIsMeasured(t *testing.T) {
	o := newOffice(t)
	o.observer.Exchanged("https://auth.test/oauth2/token", "", 300*time.Millisecond)
	o.observer.Exchanged("https://auth.test/oauth2/token", token.Throttled, 3*time.Second)
	o.observer.Replaced(14 * time.Minute)
	_, body, _ := o.ask(t, http.MethodGet, "/metrics")
	wantLines(t, body,
		`tokenbroker_exchange_duration_seconds_bucket{issuer="auth.test",outcome="ok",le="0.2"} 0`,
		`tokenbroker_exchange_duration_seconds_bucket{issuer="auth.test",outcome="ok",le="0.4"} 1`,
		`tokenbroker_exchange_duration_seconds_sum{issuer="auth.test",outcome="throttled"} 3`,
		`tokenbroker_refresh_ahead_left_seconds_bucket{le="600"} 0`,
		`tokenbroker_refresh_ahead_left_seconds_bucket{le="900"} 1`)
}

func wantLines(t *testing.T, text string, lines ...string) {
	t.Helper()
	for _, line := range lines {
		if !strings.Contains(text, "\n"+line) {
			t.Errorf("no line %q", line)
		}
	}
}

func TestOtherRequests(t *testing.T) {
	o := newOffice(t)
	for _, path := range []string{"/", "/nothing", "/metrics/", "/livez/x", "/debug/pprof/cmdline", "/debug/pprof/trace", "/debug/pprof/symbol", "/debug/", "/status/../nothing"} {
		if code, _, _ := o.ask(t, http.MethodGet, path); code != http.StatusNotFound {
			t.Errorf("GET %s: %d", path, code)
		}
	}
	for _, path := range []string{"/livez", "/readyz", "/status", "/metrics"} {
		for _, method := range []string{http.MethodPost, http.MethodPut, http.MethodDelete} {
			code, _, header := o.ask(t, method, path)
			if code != http.StatusMethodNotAllowed || header.Get("Allow") != "GET, HEAD" {
				t.Errorf("%s %s: %d, Allow %q", method, path, code, header.Get("Allow"))
			}
		}
	}
}

func TestCloseBeforeServe(t *testing.T) {
	s := ops.NewServer(ops.Config{Metrics: ops.NewMetrics(), Logger: slog.New(slog.DiscardHandler),
		PingRedis: func(context.Context) error { return nil }})
	s.Close(t.Context())
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	if err := s.Serve(l); err != nil {
		t.Errorf("Serve after Close: %v", err)
	}
}

package statuspage_test

import (
	"context"
	"encoding/json"
	"fmt"
	"log/slog"
	"net"
	"net/http"
	"slices"
	"strings"
	"testing"

	"smokeball.internal/tokenbroker/internal/access"
	"smokeball.internal/tokenbroker/internal/audit"
	"smokeball.internal/tokenbroker/internal/statuspage"
)

// Who had to prove who it is, is in the audit log, whatever came of it. Strangers are
// a few records.
func TestViewsAreRecorded(t *testing.T) {
	s := newStreet(t)
	s.see(t, "/status") // On this machine: nobody is known.
	s.visit(t, "", s.bearer("oncall"))
	s.visit(t, acmeViewer, "")
	s.visit(t, reader, "")
	s.from = "192.0.2.7:50123"
	for range 30 {
		s.visit(t, "", "")
	}
	var got []string
	strangers := 0
	for line := range strings.Lines(s.records()) {
		var r struct{ Event, Principal, Peer, Method, Rule, Outcome string }
		if err := json.Unmarshal([]byte(line), &r); err != nil {
			t.Fatal(err)
		}
		switch {
		case r.Event == "refused":
			strangers++
			if r.Peer != s.from || r.Outcome != "denied" || r.Method != "GET /status" {
				t.Errorf("a stranger: %s", line)
			}
		case r.Method != "":
			got = append(got, fmt.Sprintf("%s %s %s %q %s", r.Event, r.Principal, r.Method, r.Rule, r.Outcome))
		}
	}
	want := []string{`view jwt:oncall GET /status "all" allowed`, `view ` + acmeViewer + ` GET /status "acme" allowed`, `view ` + reader + ` GET /status "" denied`}
	if !slices.Equal(got, want) {
		t.Errorf("recorded %q, want %q", got, want)
	}
	if strangers < 1 || strangers > 15 {
		t.Errorf("%d records of 30 strangers", strangers)
	}
}

// Nor can somebody who is known, and comes too often, fill the audit log.
func TestWhoComesTooOftenIsAFewRecords(t *testing.T) {
	s := newStreet(t)
	const visits = 40
	for range visits {
		r := request(t, "/status")
		r.Header.Set("Authorization", s.bearer("hasty"))
		serve(s.page, r)
	}
	if n := strings.Count(s.records(), `"method":"GET /status"`); n < 2 || n > visits/2 {
		t.Errorf("%d records of %d visits, of which one a second is allowed", n, visits)
	}
}

// Who may not be recorded sees nothing, where the log is strict.
func TestWithoutARecordNothingIsShown(t *testing.T) {
	s := newStreet(t)
	strict, err := audit.Open(audit.Config{Sink: "stdout", Stdout: brokenWriter{}, Logger: slog.New(slog.DiscardHandler), Strict: true, QueueLength: 1})
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan struct{})
	go func() { defer close(done); strict.Run(ctx) }()
	t.Cleanup(func() { cancel(); <-done })
	s.house = newHouse(t, func(c *statuspage.Config, h *house) {
		verifier := access.NewTokens("https://idp.example", []string{"tokenbroker"}, nil)
		if err := verifier.SetKeys(s.tokens.JWKS()); err != nil {
			t.Fatal(err)
		}
		c.Guard, c.Audit = guardOf(t, verifier, h.broker, rules), strict
	})
	var got answer
	for range 100 {
		r := request(t, "/status")
		r.Header.Set("Authorization", s.bearer("oncall"))
		if got = serve(s.page, r); got.status != 200 {
			break
		}
	}
	if got.status != http.StatusServiceUnavailable || got.header.Get("Retry-After") != "1" || !strings.Contains(got.body, "audit log") {
		t.Errorf("%d %s", got.status, got.body)
	}
	s.see(t, "/status") // On this machine nothing is recorded.
}

type brokenWriter struct{}

func (brokenWriter) Write([]byte) (int, error) { return 0, net.ErrClosed }

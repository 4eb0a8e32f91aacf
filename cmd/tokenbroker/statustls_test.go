package main_test

import (
	"crypto/tls"
	"io"
	"net/http"
	"os"
	"strings"
	"testing"
	"time"

	"smokeball.internal/tokenbroker/internal/access/accesstest"
)

// TestTheStatusPageOverTLS shows it to those whom the access file lets see tenants,
// by certificate and by token, and what probes ask to everybody.
func TestTheStatusPageOverTLS(t *testing.T) {
	t.Parallel()
	const viewer = "spiffe://test.example/viewer"
	g := startGuarded(t, `  - name: on call
    principals: ["`+viewer+`", "jwt:oncall"]
    roles: [tenant.viewer]
    tenants: [acme]
`, withTokens, "--ops-tls")
	for _, id := range []string{"acme", "globex"} {
		register(t, g.as(administrator), g.issuer, id, time.Hour)
	}
	ask := func(path, spiffe, bearer string) (int, string) {
		t.Helper()
		config := &tls.Config{RootCAs: g.authority.Pool()}
		if spiffe != "" {
			config.Certificates = []tls.Certificate{g.authority.Issue("", accesstest.SPIFFE(spiffe)).TLS}
		}
		req, err := http.NewRequestWithContext(t.Context(), http.MethodGet, "https://"+g.ops+path, nil)
		if err != nil {
			t.Fatal(err)
		}
		req.Header.Set("Accept", "text/html,application/xhtml+xml;q=0.9")
		if bearer != "" {
			req.Header.Set("Authorization", "Bearer "+g.tokens.Sign(g.tokens.Claims(bearer, tokenAudience)))
		}
		transport := &http.Transport{TLSClientConfig: config}
		defer transport.CloseIdleConnections()
		resp, err := transport.RoundTrip(req)
		if err != nil {
			t.Fatal(err)
		}
		defer func() { _ = resp.Body.Close() }()
		body, err := io.ReadAll(resp.Body)
		if err != nil {
			t.Fatal(err)
		}
		return resp.StatusCode, string(body)
	}
	for _, test := range []struct {
		path, spiffe, bearer string
		status               int
		want, not            string
	}{
		{"/readyz", "", "", 200, "ready", ""},
		{"/metrics", "", "", 200, "tokenbroker_", ""},
		{"/status", "", "", 200, ">globex<", "not seen"}, // On this machine.
		{"/debug/pprof/", "", "", 200, "\ngoroutine ", ""},
		{"/status", viewer, "", 200, ">acme<", ">globex<"},
		{"/status", "", "oncall", 200, ">acme<", ">globex<"},
		{"/status", administrator, "", 200, ">globex<", "not seen"},
		{"/status", "spiffe://test.example/nobody", "", 403, "tenant.viewer", "acme"},
		{"/status", "", "nobody", 403, "tenant.viewer", "acme"},
	} {
		status, body := ask(test.path, test.spiffe, test.bearer)
		if status != test.status || !strings.Contains(body, test.want) || test.not != "" && strings.Contains(body, test.not) {
			t.Errorf("%+v: %d %s", test, status, body)
		}
	}
	if _, stderr, code := verb(t, "", "health", "--ops-addr="+g.ops, "--ops-tls"); code != 0 {
		t.Errorf("health: exit code %d, %s", code, stderr)
	}
	if _, _, code := verb(t, "", "health", "--ops-addr="+g.ops); code == 0 {
		t.Error("health in plain text: exit code 0")
	}
	if code := g.terminate(); code != 0 {
		t.Errorf("exit code %d", code)
	}
	records, err := os.ReadFile(g.path("audit.log"))
	if err != nil {
		t.Fatal(err)
	}
	if !strings.Contains(string(records), `"event":"view"`) || !strings.Contains(string(records), `"principal":"jwt:oncall"`) || !strings.Contains(string(records), `"method":"GET /status"`) {
		t.Errorf("recorded: %s", records)
	}
}

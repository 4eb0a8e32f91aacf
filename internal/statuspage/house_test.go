package statuspage_test

import (
	"context"
	"errors"
	"io"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync/atomic"
	"testing"
	"testing/synctest"

	"smokeball.internal/tokenbroker/internal/access"
	"smokeball.internal/tokenbroker/internal/audit"
	"smokeball.internal/tokenbroker/internal/broker"
	"smokeball.internal/tokenbroker/internal/broker/brokertest"
	"smokeball.internal/tokenbroker/internal/secret"
	"smokeball.internal/tokenbroker/internal/statuspage"
	"smokeball.internal/tokenbroker/internal/tenant"
)

// house is a page, and what it shows, in memory.
type house struct {
	*brokertest.Fleet
	broker   *broker.Broker
	registry *broker.Registry
	redis    *redis
	page     *statuspage.Page
}

// redis is what the page shows of it.
type redis struct {
	away     atomic.Bool
	replicas []statuspage.Replica
	hold     chan struct{} // Ping waits for it to be closed; nil: it does not
	held     chan struct{} // has a value for each that waits
}

var errAway = errors.New("dial tcp: planted-host refused")

func (r *redis) Ping(ctx context.Context) error {
	if r.hold != nil {
		r.held <- struct{}{}
		<-r.hold
	}
	if _, bounded := ctx.Deadline(); !bounded {
		return errors.New("Redis may take as long as it likes")
	}
	if r.away.Load() {
		return errAway
	}
	return nil
}

func (r *redis) Warnings() []string { return []string{"Redis writes <nothing> to disk."} }

func (r *redis) CountTenants(context.Context) (int, error) {
	if r.away.Load() {
		return 0, errAway
	}
	return 123456, nil
}

func (r *redis) Replicas(context.Context) ([]statuspage.Replica, int, error) {
	if r.away.Load() {
		return nil, 0, errAway
	}
	return r.replicas, len(r.replicas), nil
}

func newHouse(t *testing.T, change func(*statuspage.Config, *house)) *house {
	t.Helper()
	h := &house{Fleet: brokertest.NewFleet(t, 1), redis: &redis{}}
	h.broker = h.Replicas[0]
	h.registry = broker.NewRegistry(h.broker, h.Store)
	config := statuspage.Config{
		Version: "v1.2.3", Registry: h.registry, Stats: h.broker.Stats, Hindrances: func() []string { return nil },
		Redis: h.redis, Logger: slog.New(slog.DiscardHandler),
	}
	if change != nil {
		change(&config, h)
	}
	h.page = statuspage.New(config)
	return h
}

// register registers tenants, with a label that is the first part of their ids.
func (h *house) register(t *testing.T, ids ...string) {
	t.Helper()
	for _, id := range ids {
		team, _, _ := strings.Cut(id, "-")
		_, err := h.registry.Create(t.Context(), tenant.Tenant{
			ID: id, DisplayName: "Firm of " + id, Region: tenant.US, Environment: tenant.Production, ClientID: "planted-client-" + id,
			Secret: tenant.Secret{Value: secret.New("planted-secret-" + id)}, APIKey: secret.New("planted-key-" + id), Labels: map[string]string{"team": team},
		}, false)
		if err != nil {
			t.Fatal(err)
		}
	}
}

// get has the broker hand out tokens, when it has heard of the tenants.
func (h *house) get(t *testing.T, ids ...string) {
	t.Helper()
	synctest.Wait()
	for _, id := range ids {
		if _, err := h.broker.Get(t.Context(), id, nil, 0); err != nil {
			t.Fatal(err)
		}
	}
}

// answer is what comes back for a request.
type answer struct {
	status int
	header http.Header
	body   string
}

// request returns a request from this machine.
func request(t *testing.T, path string) *http.Request {
	t.Helper()
	r := httptest.NewRequestWithContext(t.Context(), http.MethodGet, path, nil)
	r.RemoteAddr, r.Host = "127.0.0.1:50123", "127.0.0.1:9091"
	return r
}

func serve(page http.Handler, r *http.Request) answer {
	w := httptest.NewRecorder()
	page.ServeHTTP(w, r)
	body, _ := io.ReadAll(w.Result().Body)
	return answer{w.Code, w.Header(), string(body)}
}

// see returns the page as somebody on this machine sees it.
func (h *house) see(t *testing.T, path string) string {
	t.Helper()
	got := serve(h.page, request(t, path))
	if got.status != http.StatusOK {
		t.Fatalf("%s: status %d: %s", path, got.status, got.body)
	}
	return got.body
}

// wants says which of the texts are on a page, and which are not.
func wants(t *testing.T, page string, texts ...string) {
	t.Helper()
	for _, text := range texts {
		unwanted, not := strings.CutPrefix(text, "not:")
		if not && strings.Contains(page, unwanted) {
			t.Errorf("%q is on the page", unwanted)
		}
		if !not && !strings.Contains(page, text) {
			t.Errorf("%q is not on the page", text)
		}
	}
	if t.Failed() {
		_, body, _ := strings.Cut(page, "<body>")
		t.Logf("the page: %s", body)
	}
}

// row returns the row of a tenant in the list of all, or in that of troubles.
func row(t *testing.T, page, list, id string) string {
	t.Helper()
	_, section, _ := strings.Cut(page, `<section aria-labelledby="`+list+`">`)
	section, _, _ = strings.Cut(section, "</section>")
	for _, row := range strings.Split(section, "<tr role=\"row\"") {
		if strings.Contains(row, `<span class="id">`+id+`</span>`) {
			return row
		}
	}
	t.Fatalf("%s is not among %s: %s", id, list, section)
	return ""
}

// guardOf returns a guard with these rules.
func guardOf(t *testing.T, tokens *access.Tokens, tenants access.Tenants, rules string) *access.Guard {
	t.Helper()
	policy, err := access.ParsePolicy("access.yaml", []byte(rules))
	if err != nil {
		t.Fatal(err)
	}
	g := access.NewGuard(tokens, tenants)
	g.SetPolicy(policy)
	return g
}

// auditFile returns an audit log, and what is in its file when it has been closed.
func auditFile(t *testing.T) (_ *audit.Log, closed func() string) {
	t.Helper()
	var out strings.Builder
	log, err := audit.Open(audit.Config{Sink: "stdout", Stdout: &out, Logger: slog.New(slog.DiscardHandler)})
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan struct{})
	go func() { defer close(done); log.Run(ctx) }()
	end := func() { cancel(); <-done }
	t.Cleanup(end)
	return log, func() string { end(); return out.String() }
}

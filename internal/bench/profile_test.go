package bench_test

import (
	"bytes"
	"compress/gzip"
	"errors"
	"flag"
	"fmt"
	"io"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"golang.org/x/sync/errgroup"

	pb "smokeball.internal/tokenbroker/gen/tokenbroker/v1"
	"smokeball.internal/tokenbroker/internal/simulator"
)

var profiles = flag.String("profiles", "", "directory for profiles of the binary under load; empty: a trial that they can be taken")

// coldRate is how many tokens a second are bought while the cold path is looked at: what
// two cores do with the issuer and the callers on them, too.
const coldRate = 400

// TestProfiles takes profiles of the binary while its callers ask for a token from
// memory (hot), and for tokens of tenants that have none yet (cold).
func TestProfiles(t *testing.T) {
	s := newScene(t)
	kinds, seconds, dir, rate := []string{"profile", "allocs", "mutex", "block"}, 10, *profiles, float64(coldRate)
	p := plan{connections: 8, callers: 64}
	if dir == "" {
		kinds, seconds, dir, rate = kinds[:1], 1, t.TempDir(), 50
		p = plan{connections: 2, callers: 8}
	}
	p.period = time.Duration(seconds)*time.Second + 300*time.Millisecond
	broker := s.startBroker(t)
	s.register(t, broker)
	for _, kind := range kinds {
		content := s.profile(t, broker, p.order(broker), kind, seconds)
		if kind == "profile" && !bytes.Contains(content, []byte("TokenService_GetToken_Handler")) {
			t.Error("the profile of processors does not know the call")
		}
		keep(t, filepath.Join(dir, "hot-"+kind+".pb.gz"), content)
	}
	p.rate = rate
	cold := p.order(broker)
	cold.Once, cold.Tenants = true, int(p.rate*(cold.Warmup+cold.Period).Seconds())
	s.registerMany(t, broker, len(kinds)*cold.Tenants)
	// This one has seen none of them yet.
	broker = s.startBroker(t, "--exchange-rate=1000", "--audit=file:"+s.path("audit-cold.log"))
	cold.Address = broker.api
	for _, kind := range kinds {
		before := s.issuer.Bought(simulator.AllClients)
		keep(t, filepath.Join(dir, "cold-"+kind+".pb.gz"), s.profile(t, broker, cold, kind, seconds))
		if bought := s.issuer.Bought(simulator.AllClients) - before; bought != cold.Tenants {
			t.Errorf("%d tokens were bought for %d tenants", bought, cold.Tenants)
		}
		cold.First += cold.Tenants
	}
}

// profile returns a profile of a broker while callers do what o says.
func (s *scene) profile(t *testing.T, broker contender, o order, kind string, seconds int) (content []byte) {
	t.Helper()
	out := load(t, o, func() {
		status, body := get(t, broker.metrics, fmt.Sprintf("/debug/pprof/%s?seconds=%d", kind, seconds))
		packed, err := gzip.NewReader(bytes.NewReader(body))
		if err == nil {
			content, err = io.ReadAll(packed)
		}
		if err != nil || status != http.StatusOK {
			t.Fatalf("%s: status %d, %v", kind, status, err)
		}
	}, func() {})
	if out.Failed > 0 || out.Calls == 0 {
		t.Fatalf("%d calls, %d failed: %s", out.Calls, out.Failed, out.Failure)
	}
	t.Logf("%s: %.0f calls/s", kind, float64(out.Calls)/out.Took.Seconds())
	return content
}

// keep writes a profile as "go tool pprof" reads it, and if that is asked for, what it
// says of it.
func keep(t *testing.T, path string, content []byte) {
	t.Helper()
	f, err := os.Create(path)
	if err != nil {
		t.Fatal(err)
	}
	packed := gzip.NewWriter(f)
	_, err = packed.Write(content)
	if err := errors.Join(err, packed.Close(), f.Close()); err != nil {
		t.Fatal(err)
	}
	if *profiles == "" {
		return
	}
	var text []byte
	for _, order := range []string{"-flat", "-cum"} {
		args := []string{"tool", "pprof", "-top", order, "-nodecount=80"}
		if strings.Contains(path, "allocs") {
			args = append(args, "-sample_index=alloc_space") // It would show what is held.
		}
		out, err := exec.CommandContext(t.Context(), "go", append(args, path)...).Output()
		if err != nil {
			t.Fatalf("go tool pprof: %v", err)
		}
		text = append(append(text, out...), '\n')
	}
	if err := os.WriteFile(strings.TrimSuffix(path, ".pb.gz")+".txt", text, 0o600); err != nil {
		t.Fatal(err)
	}
}

// registerMany registers tenants that have no token, t000000 and so on.
func (s *scene) registerMany(t *testing.T, broker contender, count int) {
	t.Helper()
	conn, err := s.user.dial(broker.api)
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = conn.Close() }()
	group, ctx := errgroup.WithContext(t.Context())
	group.SetLimit(32)
	for n := range count {
		id := fmt.Sprintf("t%06d", n)
		s.issuer.SetClient(simulator.Client{Endpoint: "us/production", ID: "client-" + id, Secrets: []string{"secret"}, Scopes: []string{"matters/read"}, ExpiresIn: 24 * time.Hour})
		group.Go(func() error {
			_, err := pb.NewTenantServiceClient(conn).CreateTenant(ctx, &pb.CreateTenantRequest{TenantId: id, Tenant: &pb.Tenant{
				Region: pb.Region_REGION_US, ClientId: "client-" + id, ClientSecret: "secret", ApiKey: "key-of-" + id}})
			return err
		})
	}
	if err := group.Wait(); err != nil {
		t.Fatal(err)
	}
}

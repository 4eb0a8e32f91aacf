package rpc_test

import (
	"context"
	"fmt"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"google.golang.org/genproto/googleapis/rpc/errdetails"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/metadata"
	"google.golang.org/grpc/status"

	pb "smokeball.internal/tokenbroker/gen/tokenbroker/v1"
	"smokeball.internal/tokenbroker/internal/access"
	"smokeball.internal/tokenbroker/internal/access/accesstest"
	"smokeball.internal/tokenbroker/internal/broker"
	"smokeball.internal/tokenbroker/internal/simulator"
)

// gate lets callers in by bearer tokens, with rules.
type gate struct {
	issuer *accesstest.TokenIssuer
	guard  *access.Guard
}

const rootRules = `rules:
  - name: root
    principals: ["jwt:root"]
    roles: [tenant.admin]
    tenants: ["*"]
  - name: readers
    principals: ["jwt:reader", "jwt:other"]
    roles: [token.reader]
    tenants: ["*"]
`

// newGuardedHouse returns a house with rules, and the way in.
func newGuardedHouse(t testing.TB, f furniture, rules string) (*house, *gate) {
	t.Helper()
	g := &gate{issuer: accesstest.NewTokenIssuer(t, "idp", "key")}
	policy, err := access.ParsePolicy("access.yaml", []byte(rules))
	if err != nil {
		t.Fatal(err)
	}
	f.guard = func(b *broker.Broker) *access.Guard {
		tokens := access.NewTokens("idp", []string{"broker"}, nil)
		if err := tokens.SetKeys(g.issuer.JWKS()); err != nil {
			t.Fatal(err)
		}
		g.guard = access.NewGuard(tokens, b)
		g.guard.SetPolicy(policy)
		return g.guard
	}
	return newHouse(t, f), g
}

// as is a context for calls of somebody.
func (g *gate) as(t testing.TB, subject string) context.Context {
	t.Helper()
	return metadata.AppendToOutgoingContext(at(t), "authorization", "Bearer "+g.issuer.Sign(g.issuer.Claims(subject, "broker")))
}

// create registers a tenant that the issuer knows.
func (g *gate) create(t testing.TB, h *house, id string, labels map[string]string) {
	t.Helper()
	h.sim.SetClient(client(id))
	p := fresh(id)
	p.Labels = labels
	if _, err := h.tenants.CreateTenant(g.as(t, "root"), &pb.CreateTenantRequest{TenantId: id, Tenant: p}); err != nil {
		t.Fatal(err)
	}
}

func get(ctx context.Context, h *house, id string, scopes ...string) (*pb.Token, error) {
	resp, err := h.tokens.GetToken(ctx, &pb.GetTokenRequest{Tenant: "tenants/" + id, Scopes: scopes})
	return resp.GetToken(), err
}

func TestACallerHasItsOwnRate(t *testing.T) {
	t.Parallel()
	h, g := newGuardedHouse(t, furniture{}, rootRules+`
limits:
  - principals: ["jwt:reader"]
    calls_per_second: 5
    refreshes_per_minute: 6
`)
	g.create(t, h, "acme", nil)
	reader, other := g.as(t, "reader"), g.as(t, "other")
	good, retry := 0, time.Duration(0)
	for range 20 {
		if _, err := get(reader, h, "acme"); err == nil {
			good++
		} else {
			retry, _ = wantError(t, err, codes.ResourceExhausted, "CALLER_TOO_FAST")
		}
	}
	if good < 5 || good > 7 || retry <= 0 || retry > time.Second {
		t.Errorf("%d of 20 at once were answered, then in %v; want 5 or a little more", good, retry)
	}
	for range 20 {
		if _, err := get(other, h, "acme"); err != nil {
			t.Errorf("another caller: %v", err)
		}
	}
	time.Sleep(retry)
	eventually(t, "as fast as it may again", func() bool { _, err := get(reader, h, "acme"); return err == nil })

	refresh := func() error {
		_, err := h.tokens.RefreshToken(reader, &pb.RefreshTokenRequest{Tenant: "tenants/acme", RejectedTokenId: strings.Repeat("0", 32)})
		return err
	}
	time.Sleep(time.Second) // All five calls again.
	if err := refresh(); err != nil {
		t.Errorf("the first refresh: %v", err)
	}
	if retry, _ := wantError(t, refresh(), codes.ResourceExhausted, "CALLER_TOO_FAST"); retry < 4*time.Second || retry > 10*time.Second {
		t.Errorf("the second refresh may come in %v", retry)
	}
	if _, err := get(reader, h, "acme"); err != nil {
		t.Errorf("a call that is no refresh: %v", err)
	}
}

func TestACallerHasSoManyCallsOpen(t *testing.T) {
	t.Parallel()
	h, g := newGuardedHouse(t, furniture{}, rootRules+`
limits:
  - principals: ["jwt:reader"]
    open_calls: 2
`)
	for _, id := range []string{"acme", "globex", "initech", "other"} {
		g.create(t, h, id, nil)
	}
	var open sync.WaitGroup
	defer open.Wait()
	leave, cancel := context.WithCancel(g.as(t, "reader"))
	defer cancel()
	for _, id := range []string{"acme", "initech"} {
		if err := h.sim.SetFault(id+"-client", simulator.Fault{Kind: simulator.KindHang}); err != nil {
			t.Fatal(err)
		}
		open.Go(func() { _, _ = get(leave, h, id) })
		eventually(t, "open", func() bool { return h.sim.Requests(id+"-client") > 0 })
	}
	_, err := get(g.as(t, "reader"), h, "globex")
	wantError(t, err, codes.ResourceExhausted, "CALLER_TOO_FAST")
	if _, err := get(g.as(t, "other"), h, "globex"); err != nil {
		t.Errorf("another caller: %v", err)
	}
	cancel()
	eventually(t, "closed", func() bool { _, err := get(g.as(t, "reader"), h, "globex"); return err == nil })
}

// A call is open from its headers on, whether its message comes or not.
func TestACallWithoutAMessageIsOpen(t *testing.T) {
	t.Parallel()
	h, g := newGuardedHouse(t, furniture{}, rootRules+`
limits:
  - principals: ["jwt:reader"]
    open_calls: 2
`)
	g.create(t, h, "acme", nil)
	leave, cancel := context.WithCancel(g.as(t, "reader"))
	defer cancel()
	eventually(t, "open, as many as may", func() bool { // The answer may have come between two of them.
		if _, err := h.conn.NewStream(leave, &grpc.StreamDesc{}, pb.TokenService_GetToken_FullMethodName); err != nil {
			t.Fatal(err)
		}
		_, err := get(g.as(t, "reader"), h, "acme")
		return status.Code(err) == codes.ResourceExhausted
	})
	_, err := get(g.as(t, "reader"), h, "acme")
	wantError(t, err, codes.ResourceExhausted, "CALLER_TOO_FAST")
	if _, err := get(g.as(t, "other"), h, "acme"); err != nil {
		t.Errorf("another caller: %v", err)
	}
	cancel()
	eventually(t, "closed", func() bool { _, err := get(g.as(t, "reader"), h, "acme"); return err == nil })
	for range 5 { // Each counts once, and not any more when it has been answered.
		if _, err := get(g.as(t, "reader"), h, "acme"); err != nil {
			t.Error(err)
		}
	}
}

// Who administers by label cannot reach further than the label, nor lose a tenant
// to a place where it cannot be found.
func TestAnAdministratorByLabelStaysWithinIt(t *testing.T) {
	t.Parallel()
	h, g := newGuardedHouse(t, furniture{}, rootRules+`
  - principals: ["jwt:team"]
    roles: [tenant.admin]
    labels: {team: blue}
`)
	g.create(t, h, "blue", map[string]string{"team": "blue"})
	g.create(t, h, "red", map[string]string{"team": "red"})
	for n := range 5 {
		g.create(t, h, fmt.Sprint("more-", n), map[string]string{"team": "blue"})
	}
	team := g.as(t, "team")
	update := func(p *pb.Tenant) error {
		_, err := h.tenants.UpdateTenant(team, &pb.UpdateTenantRequest{Tenant: p})
		return err
	}
	if err := update(&pb.Tenant{Name: "tenants/blue", DisplayName: "Blue"}); err != nil {
		t.Error(err)
	}
	wantError(t, update(&pb.Tenant{Name: "tenants/red", DisplayName: "Red"}), codes.PermissionDenied, "NOT_ALLOWED")
	wantError(t, update(&pb.Tenant{Name: "tenants/blue", Labels: map[string]string{"team": "red"}}), codes.PermissionDenied, "NOT_ALLOWED")
	_, err := h.tenants.CreateTenant(team, &pb.CreateTenantRequest{TenantId: "new", Tenant: &pb.Tenant{Region: pb.Region_REGION_US, ClientId: "c", ClientSecret: "s",
		Labels: map[string]string{"team": "blue"}}})
	wantError(t, err, codes.PermissionDenied, "NOT_ALLOWED")

	var names []string
	for token, pages := "", 0; pages < 10; pages++ {
		page, err := h.tenants.ListTenants(team, &pb.ListTenantsRequest{PageSize: 2, PageToken: token})
		if err != nil {
			t.Fatal(err)
		}
		for _, p := range page.GetTenants() {
			names = append(names, p.GetName())
		}
		if token = page.GetNextPageToken(); token == "" {
			break
		}
	}
	if len(names) != 6 || slices.Contains(names, "tenants/red") || !slices.IsSorted(names) {
		t.Errorf("listed %v", names)
	}
}

// Rules by label cannot be asked while the registry is out of reach, which is said
// as it is to everybody else.
func TestLabelsThatCannotBeLookedUp(t *testing.T) {
	t.Parallel()
	h, g := newGuardedHouse(t, furniture{}, rootRules+`
  - principals: ["jwt:team"]
    roles: [token.reader]
    labels: {team: blue}
`)
	h.stopRedis()
	_, err := get(g.as(t, "team"), h, "acme")
	wantError(t, err, codes.Unavailable, "STORE_UNAVAILABLE")
}

func TestScopesAreAllowedOrNot(t *testing.T) {
	t.Parallel()
	h, g := newGuardedHouse(t, furniture{}, rootRules+`
  - principals: ["jwt:narrow"]
    roles: [token.reader]
    tenants: [acme]
    scopes: ["matters/*"]
`)
	g.create(t, h, "acme", nil)
	narrow := g.as(t, "narrow")
	if _, err := get(narrow, h, "acme", "matters/read"); err != nil {
		t.Error(err)
	}
	for _, scopes := range [][]string{nil, {"contacts/read"}, {"matters/read", "contacts/read"}} {
		_, err := get(narrow, h, "acme", scopes...)
		wantError(t, err, codes.PermissionDenied, "SCOPE_NOT_ALLOWED")
	}
	_, err := get(narrow, h, "other", "contacts/read")
	wantError(t, err, codes.PermissionDenied, "NOT_ALLOWED")
}

func TestRequestsHaveIDs(t *testing.T) {
	t.Parallel()
	h := newHouse(t, furniture{})
	id := func(given ...string) string {
		ctx := metadata.NewOutgoingContext(at(t), metadata.MD{"x-request-id": given})
		_, err := get(ctx, h, "nobody")
		for _, detail := range status.Convert(err).Details() {
			if info, ok := detail.(*errdetails.RequestInfo); ok {
				return info.GetRequestId()
			}
		}
		t.Fatalf("no id: %v", err)
		return ""
	}
	if got := id("a-Request_1.2:3"); got != "a-Request_1.2:3" {
		t.Errorf("the caller's id became %q", got)
	}
	for _, given := range [][]string{nil, {""}, {"a b"}, {`a"b`}, {strings.Repeat("a", 65)}, {"a", "b"}} {
		if got := id(given...); len(got) != 16 || slices.Contains(given, got) {
			t.Errorf("%q: got %q", given, got)
		}
	}
	_, err := h.tenants.GetTenant(metadata.AppendToOutgoingContext(at(t), "x-request-id", "of-the-log"), &pb.GetTenantRequest{Name: "tenants/nobody"})
	wantError(t, err, codes.NotFound, "TENANT_NOT_FOUND")
	eventually(t, "in the log", func() bool { return strings.Contains(h.log.String(), `"request_id":"of-the-log","principal":"anyone"`) })
}

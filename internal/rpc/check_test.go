package rpc_test

import (
	"fmt"
	"maps"
	"net"
	"slices"
	"strings"
	"testing"
	"time"

	pb "smokeball.internal/tokenbroker/gen/tokenbroker/v1"
	"smokeball.internal/tokenbroker/internal/simulator"
	"smokeball.internal/tokenbroker/internal/smokeball"
)

// Each finding, and what provokes it.
func TestCheckTenant(t *testing.T) {
	t.Parallel()
	fault := func(f simulator.Fault) func(*house, *testing.T) {
		return func(h *house, t *testing.T) { h.fault(t, "acme", f) }
	}
	for _, test := range []struct {
		name     string
		tenant   func(*pb.Tenant)
		provoke  func(*house, *testing.T)
		skip     bool // skip_other_regions
		want     pb.CheckTenantResponse_Finding
		region   pb.Region
		message  string // in part
		requests int
	}{
		{name: "good", want: pb.CheckTenantResponse_FINDING_OK, message: "live 1h0m0s", requests: 1},
		{name: "wrong secret", tenant: func(p *pb.Tenant) { p.ClientSecret = "planted-wrong" },
			want: pb.CheckTenantResponse_FINDING_CREDENTIALS_REJECTED, requests: 3},
		{name: "wrong secret, own region only", tenant: func(p *pb.Tenant) { p.ClientSecret = "planted-wrong" }, skip: true,
			want: pb.CheckTenantResponse_FINDING_CREDENTIALS_REJECTED, requests: 1},
		{name: "other environment", tenant: func(p *pb.Tenant) { p.Environment = pb.Environment_ENVIRONMENT_STAGING },
			want: pb.CheckTenantResponse_FINDING_CREDENTIALS_REJECTED, requests: 3},
		{name: "wrong region", tenant: func(p *pb.Tenant) { p.Region = pb.Region_REGION_AU },
			want: pb.CheckTenantResponse_FINDING_WRONG_REGION, region: pb.Region_REGION_US, message: "region US", requests: 2},
		{name: "wrong region, own region only", tenant: func(p *pb.Tenant) { p.Region = pb.Region_REGION_AU }, skip: true,
			want: pb.CheckTenantResponse_FINDING_CREDENTIALS_REJECTED, requests: 1},
		{name: "wrong region and scope", tenant: func(p *pb.Tenant) { p.Region, p.Scopes = pb.Region_REGION_UK, []string{"no/such"} },
			want: pb.CheckTenantResponse_FINDING_WRONG_REGION, region: pb.Region_REGION_US, requests: 2},
		{name: "unknown scope", tenant: func(p *pb.Tenant) { p.Scopes = []string{"no/such"} },
			want: pb.CheckTenantResponse_FINDING_SCOPE_REJECTED, requests: 1},
		{name: "grant not allowed", provoke: fault(simulator.Fault{Kind: simulator.KindStatus, Status: 400, Body: `{"error":"unauthorized_client"}`}),
			want: pb.CheckTenantResponse_FINDING_GRANT_NOT_ALLOWED, requests: 1},
		{name: "throttled", provoke: fault(simulator.Fault{Kind: simulator.KindStatus, Status: 429, RetryAfter: "60"}),
			want: pb.CheckTenantResponse_FINDING_ISSUER_THROTTLED, requests: 1},
		{name: "away", provoke: fault(simulator.Fault{Kind: simulator.KindReset}),
			want: pb.CheckTenantResponse_FINDING_ISSUER_UNREACHABLE, message: "could not be reached", requests: 3},
		{name: "garbage", provoke: fault(simulator.Fault{Kind: simulator.KindGarbage, Body: "planted-garbage"}),
			want: pb.CheckTenantResponse_FINDING_ISSUER_ANSWER_UNUSABLE, message: "not JSON", requests: 3},
		{name: "firewall", provoke: fault(simulator.Fault{Kind: simulator.KindWAF}),
			want: pb.CheckTenantResponse_FINDING_ISSUER_ANSWER_UNUSABLE, message: "firewall", requests: 1},
	} {
		t.Run(test.name, func(t *testing.T) {
			t.Parallel()
			h := newHouse(t, furniture{})
			h.register(t, "acme", func(p *pb.Tenant) {
				if test.tenant != nil {
					test.tenant(p)
				}
			})
			if test.provoke != nil {
				test.provoke(h, t)
			}
			got, err := h.tenants.CheckTenant(at(t), &pb.CheckTenantRequest{Name: "tenants/acme", SkipOtherRegions: test.skip})
			if err != nil {
				t.Fatal(err)
			}
			ok := test.want == pb.CheckTenantResponse_FINDING_OK
			if got.GetFinding() != test.want || got.GetAcceptedRegion() != test.region {
				t.Errorf("found %v", got)
			}
			if !strings.Contains(got.GetMessage(), test.message) || got.GetMessage() == "" || (got.GetAdvice() == "") != ok {
				t.Errorf("message %q, advice %q", got.GetMessage(), got.GetAdvice())
			}
			if strings.Contains(got.String(), "planted") || strings.Contains(got.String(), "secret\"") {
				t.Errorf("found %v", got)
			}
			if (got.GetTokenExpireTime() != nil) != ok || !strings.HasSuffix(got.GetTokenEndpoint(), "/oauth2/token") {
				t.Errorf("token_expire_time %v, token_endpoint %q", got.GetTokenExpireTime(), got.GetTokenEndpoint())
			}
			if n := h.sim.Requests("acme-client"); n != test.requests {
				t.Errorf("%d requests to the issuer, want %d", n, test.requests)
			}
			if ok {
				h.token(t, "acme")
				if n := h.sim.Bought("acme-client"); n != 1 {
					t.Errorf("the token of the check was not put to use: %d bought", n)
				}
			}
		})
	}
}

// A port that nobody listens on, as against a connection that is reset.
func TestCheckTenantUnreachable(t *testing.T) {
	t.Parallel()
	h := newHouse(t, furniture{places: closedPorts(t)})
	h.register(t, "acme")
	got, err := h.tenants.CheckTenant(at(t), &pb.CheckTenantRequest{Name: "tenants/acme"})
	if err != nil || got.GetFinding() != pb.CheckTenantResponse_FINDING_ISSUER_UNREACHABLE || got.GetAdvice() == "" {
		t.Errorf("got %v, %v", got, err)
	}
}

// The words are for people: no two findings have the same.
func TestCheckTenantSaysDifferentThings(t *testing.T) {
	t.Parallel()
	h := newHouse(t, furniture{})
	advices := map[string]bool{}
	faults := []simulator.Fault{
		{Kind: simulator.KindStatus, Status: 400, Body: `{"error":"invalid_client"}`},
		{Kind: simulator.KindStatus, Status: 400, Body: `{"error":"invalid_scope"}`},
		{Kind: simulator.KindStatus, Status: 400, Body: `{"error":"unauthorized_client"}`},
		{Kind: simulator.KindStatus, Status: 429, RetryAfter: "60"},
		{Kind: simulator.KindWAF},
		{Kind: simulator.KindStatus, Status: 503, RetryAfter: "60"},
		{Kind: simulator.KindStatus, Status: 404, RetryAfter: "60"},
	}
	for i, f := range faults {
		id := fmt.Sprintf("t%d", i)
		h.register(t, id)
		h.fault(t, id, f)
		got, err := h.tenants.CheckTenant(at(t), &pb.CheckTenantRequest{Name: "tenants/" + id, SkipOtherRegions: true})
		if err != nil {
			t.Fatal(err)
		}
		advices[got.GetAdvice()] = true
	}
	if len(advices) != len(faults) {
		t.Errorf("%d kinds of advice for %d troubles: %q", len(advices), len(faults), slices.Collect(maps.Keys(advices)))
	}
}

// closedPorts has tokens asked for where nobody listens.
func closedPorts(t *testing.T) func(smokeball.Overrides) {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	_ = l.Close()
	return func(o smokeball.Overrides) {
		for place := range o {
			o[place] = smokeball.Addresses{TokenEndpoint: "http://" + l.Addr().String() + "/oauth2/token"}
		}
	}
}

// The check says that it is the fallback which holds the roof up.
func TestCheckTenantWithFallback(t *testing.T) {
	t.Parallel()
	h := newHouse(t, furniture{})
	h.register(t, "acme")
	if _, err := h.rotate(t, &pb.RotateClientSecretRequest{ClientSecret: "new-secret", SkipVerification: true}); err != nil {
		t.Fatal(err)
	}
	got, err := h.tenants.CheckTenant(at(t), &pb.CheckTenantRequest{Name: "tenants/acme"})
	if err != nil || got.GetFinding() != pb.CheckTenantResponse_FINDING_CREDENTIALS_REJECTED {
		t.Fatalf("got %v, %v", got, err)
	}
	if until := h.tenant(t, "acme").GetFallbackSecretExpireTime().AsTime().Format(time.RFC3339); !strings.Contains(got.GetMessage(), "stands in until "+until) {
		t.Errorf("message %q does not name %s", got.GetMessage(), until)
	}
}

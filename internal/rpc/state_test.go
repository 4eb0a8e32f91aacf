package rpc_test

import (
	"strings"
	"testing"

	"google.golang.org/grpc/codes"
	"google.golang.org/protobuf/types/known/fieldmaskpb"

	pb "smokeball.internal/tokenbroker/gen/tokenbroker/v1"
)

// Nobody enables a tenant, or moves it to another environment, by leaving
// something out.
func TestWhatIsLeftOutEnablesNothing(t *testing.T) {
	t.Parallel()
	h := newHouse(t, furniture{})
	h.register(t, "acme", func(p *pb.Tenant) {
		p.State, p.Environment = pb.Tenant_STATE_DISABLED, pb.Environment_ENVIRONMENT_STAGING
	})
	for _, field := range []string{"state", "environment"} {
		_, err := h.tenants.UpdateTenant(at(t), &pb.UpdateTenantRequest{
			Tenant: &pb.Tenant{Name: "tenants/acme"}, UpdateMask: &fieldmaskpb.FieldMask{Paths: []string{field}}})
		if err == nil || !strings.Contains(err.Error(), "tenant."+field) {
			t.Errorf("%s named and left out: %v", field, err)
		}
	}
	resp, err := h.tenants.UpdateTenant(at(t), &pb.UpdateTenantRequest{
		Tenant:     &pb.Tenant{Name: "tenants/acme", Region: pb.Region_REGION_AU, ClientId: "other"},
		UpdateMask: &fieldmaskpb.FieldMask{Paths: []string{"*"}}})
	if err != nil {
		t.Fatal(err)
	}
	if got := resp.GetTenant(); got.GetState() != pb.Tenant_STATE_DISABLED || got.GetEnvironment() != pb.Environment_ENVIRONMENT_STAGING || got.GetClientId() != "other" {
		t.Errorf("all replaced: %v", got)
	}
	wantError(t, h.get(t, "acme"), codes.FailedPrecondition, "TENANT_DISABLED")
}

// A page is as long as it may be, but not longer than clients take.
func TestAPageOfLargeTenantsEndsEarly(t *testing.T) {
	t.Parallel()
	h := newHouse(t, furniture{})
	const tenants = 60
	for n := range tenants {
		h.register(t, "firm-"+string(rune('a'+n/26))+string(rune('a'+n%26)), func(p *pb.Tenant) {
			for s := range 50 {
				p.Scopes = append(p.Scopes, strings.Repeat("x", 250)+string(rune('a'+s%26))+string(rune('a'+s/26)))
			}
			p.Labels = map[string]string{}
			for l := range 64 {
				p.Labels["l"+strings.Repeat("x", 50)+string(rune('a'+l%26))+string(rune('a'+l/26))] = strings.Repeat("é", 60)
			}
		})
	}
	seen, pages, token := map[string]bool{}, 0, ""
	for pages < 10 {
		resp, err := h.tenants.ListTenants(at(t), &pb.ListTenantsRequest{PageSize: 1000, PageToken: token})
		if err != nil {
			t.Fatal(err)
		}
		pages++
		for _, p := range resp.GetTenants() {
			seen[p.GetName()] = true
		}
		if token = resp.GetNextPageToken(); token == "" {
			break
		}
	}
	if len(seen) != tenants || pages < 2 {
		t.Errorf("%d tenants in %d pages", len(seen), pages)
	}
}

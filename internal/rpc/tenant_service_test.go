package rpc_test

import (
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/redis/go-redis/v9"
	"google.golang.org/grpc/codes"
	"google.golang.org/protobuf/proto"

	pb "smokeball.internal/tokenbroker/gen/tokenbroker/v1"
)

func TestCreateTenant(t *testing.T) {
	t.Parallel()
	h := newHouse(t, furniture{})
	full := &pb.Tenant{
		Name: "tenants/ignored", DisplayName: "Zoë's Law 律師", Region: pb.Region_REGION_UK, Environment: pb.Environment_ENVIRONMENT_STAGING,
		ClientId: "full-client", ClientSecret: "full-secret", ApiKey: "full-key", AccountId: "Account-1",
		Scopes: []string{"matters/read", "contacts/read"}, State: pb.Tenant_STATE_DISABLED, KeepWarm: true,
		Labels: map[string]string{"team/owner": "a b ☂"},
		// These are not a caller's to set.
		Etag: "mine", CreateTime: timestamp(1), UpdateTime: timestamp(2), FallbackSecretExpireTime: timestamp(3), ClientSecretUpdateTime: timestamp(4),
		Status: &pb.TenantStatus{TokenId: "mine"},
	}
	before := time.Now().Add(-time.Second)
	resp, err := h.tenants.CreateTenant(at(t), &pb.CreateTenantRequest{TenantId: "full", Tenant: full})
	if err != nil {
		t.Fatal(err)
	}
	got := resp.GetTenant()
	if read := h.tenant(t, "full"); !proto.Equal(read, got) {
		t.Errorf("created %v\nread    %v", got, read)
	}
	if c, u := got.GetCreateTime().AsTime(), got.GetUpdateTime().AsTime(); c.Before(before) || u.Before(c) || got.GetEtag() == "mine" || got.GetEtag() == "" {
		t.Errorf("create_time %v, update_time %v, etag %q", c, u, got.GetEtag())
	}
	if !proto.Equal(got.GetClientSecretUpdateTime(), got.GetUpdateTime()) {
		t.Errorf("client_secret_update_time %v, update_time %v", got.GetClientSecretUpdateTime(), got.GetUpdateTime())
	}
	got.CreateTime, got.UpdateTime, got.ClientSecretUpdateTime, got.Etag = nil, nil, nil, ""
	want := proto.CloneOf(full)
	want.Name, want.ClientSecret, want.ApiKey, want.Scopes = "tenants/full", "", "", []string{"contacts/read", "matters/read"}
	want.Etag, want.CreateTime, want.UpdateTime, want.FallbackSecretExpireTime, want.ClientSecretUpdateTime, want.Status = "", nil, nil, nil, nil, nil
	if !proto.Equal(got, want) {
		t.Errorf("got  %v\nwant %v", got, want)
	}

	small := h.register(t, "small")
	if small.GetState() != pb.Tenant_STATE_ACTIVE || small.GetEnvironment() != pb.Environment_ENVIRONMENT_PRODUCTION {
		t.Errorf("unspecified fields became %v", small)
	}
	if n := h.sim.Requests("*"); n != 0 {
		t.Errorf("%d requests to the issuer: creating tries nothing", n)
	}
}

func TestCreateTenantValidateOnly(t *testing.T) {
	t.Parallel()
	h := newHouse(t, furniture{})
	resp, err := h.tenants.CreateTenant(at(t), &pb.CreateTenantRequest{TenantId: "acme", Tenant: fresh("acme"), ValidateOnly: true})
	if err != nil || resp.GetTenant().GetName() != "tenants/acme" || resp.GetTenant().GetEtag() != "" {
		t.Errorf("got %v, %v", resp, err)
	}
	h.wantNothingStored(t)
}

// GetTenant tells what the fleet knows of the token, without buying one.
func TestTenantStatus(t *testing.T) {
	t.Parallel()
	h := newHouse(t, furniture{})
	h.register(t, "acme")
	if s := h.tenant(t, "acme").GetStatus(); s != nil {
		t.Errorf("before anybody asked: %v", s)
	}
	held := h.token(t, "acme")
	s := h.tenant(t, "acme").GetStatus()
	if s.GetTokenId() != held.GetTokenId() || s.GetLastFailure() != nil {
		t.Errorf("status %v of token %s", s, held.GetTokenId())
	}
	refreshed, next, end := s.GetLastRefreshTime().AsTime(), s.GetNextRefreshTime().AsTime(), s.GetTokenExpireTime().AsTime()
	if life := end.Sub(refreshed); next.Before(refreshed.Add(life*69/100)) || next.After(refreshed.Add(life*81/100)) {
		t.Errorf("refreshed %v, next %v, end %v: want next at 70 to 80 %%", refreshed, next, end)
	}

	h.register(t, "wrong", func(p *pb.Tenant) { p.ClientSecret = "wrong" })
	wantError(t, h.get(t, "wrong"), codes.FailedPrecondition, "CREDENTIALS_REJECTED")
	f := h.tenant(t, "wrong").GetStatus().GetLastFailure()
	if f.GetReason() != "CREDENTIALS_REJECTED" || f.GetMessage() == "" || time.Until(f.GetRetryTime().AsTime()) < time.Minute {
		t.Errorf("last_failure %v", f)
	}
	if n := h.sim.Requests("*"); n != 2 {
		t.Errorf("%d requests to the issuer, want 2", n)
	}
}

func TestDeleteTenant(t *testing.T) {
	t.Parallel()
	h := newHouse(t, furniture{})
	h.register(t, "acme")
	h.token(t, "acme")
	remove := func(validateOnly bool) {
		t.Helper()
		_, err := h.tenants.DeleteTenant(at(t), &pb.DeleteTenantRequest{Name: "tenants/acme", ValidateOnly: validateOnly})
		if err != nil {
			t.Fatal(err)
		}
	}
	remove(true)
	h.token(t, "acme")
	remove(false)
	// The token that is held goes with the tenant.
	wantError(t, h.get(t, "acme"), codes.NotFound, "TENANT_NOT_FOUND")
	if n, err := h.redis.HLen(t.Context(), "tokenbroker:{tenants}:records").Result(); n != 0 || err != nil {
		t.Errorf("%d records left, %v", n, err)
	}
	h.register(t, "acme") // The name is free again.
}

// list reads all pages; between is called before each but the first.
func (h *house) list(t *testing.T, size int32, between func(page int)) (names []string, sizes []int) {
	t.Helper()
	token := ""
	for page := 0; ; page++ {
		if page > 0 && between != nil {
			between(page)
		}
		resp, err := h.tenants.ListTenants(at(t), &pb.ListTenantsRequest{PageSize: size, PageToken: token})
		if err != nil {
			t.Fatal(err)
		}
		for _, p := range resp.GetTenants() {
			names = append(names, strings.TrimPrefix(p.GetName(), "tenants/"))
		}
		if page > 100 {
			t.Fatalf("the listing does not end: %q", names[:100])
		}
		sizes = append(sizes, len(resp.GetTenants()))
		if token = resp.GetNextPageToken(); token == "" {
			return names, sizes
		}
	}
}

func TestListTenants(t *testing.T) {
	t.Parallel()
	h := newHouse(t, furniture{})
	for _, id := range []string{"m", "a0", "z", "a-0", "ab", "a", "b"} {
		h.register(t, id)
	}
	order := []string{"a", "a-0", "a0", "ab", "b", "m", "z"}
	for _, test := range []struct {
		size int32
		want []int
	}{
		{0, []int{7}}, {1, []int{1, 1, 1, 1, 1, 1, 1}}, {3, []int{3, 3, 1}}, {6, []int{6, 1}}, {7, []int{7}}, {8, []int{7}}, {1 << 30, []int{7}},
	} {
		if names, sizes := h.list(t, test.size, nil); !slices.Equal(names, order) || !slices.Equal(sizes, test.want) {
			t.Errorf("page_size %d: %q in pages of %v, want %q in %v", test.size, names, sizes, order, test.want)
		}
	}
	// The same fields as GetTenant, but for the status.
	h.token(t, "a")
	resp, err := h.tenants.ListTenants(at(t), &pb.ListTenantsRequest{PageSize: 1})
	want := h.tenant(t, "a")
	want.Status = nil
	if err != nil || len(resp.GetTenants()) != 1 || !proto.Equal(resp.GetTenants()[0], want) {
		t.Errorf("listed %v, %v, want %v", resp.GetTenants(), err, want)
	}
}

// What exists throughout is listed once, whatever comes and goes.
func TestListTenantsWhileTheyChange(t *testing.T) {
	t.Parallel()
	h := newHouse(t, furniture{})
	for _, id := range []string{"b", "d", "f", "h", "j", "l"} {
		h.register(t, id)
	}
	names, _ := h.list(t, 2, func(page int) {
		if page > 1 {
			return
		}
		h.register(t, "a") // Before what was listed: too late for this listing.
		h.register(t, "e") // Behind it: in time.
		for _, id := range []string{"d", "h"} {
			// d is the one the page token names.
			if _, err := h.tenants.DeleteTenant(at(t), &pb.DeleteTenantRequest{Name: "tenants/" + id}); err != nil {
				t.Fatal(err)
			}
		}
	})
	if want := []string{"b", "d", "e", "f", "j", "l"}; !slices.Equal(names, want) {
		t.Errorf("got %q, want %q", names, want)
	}
}

func TestListTenantsBounds(t *testing.T) {
	t.Parallel()
	h := newHouse(t, furniture{})
	if names, sizes := h.list(t, 0, nil); len(names) != 0 || !slices.Equal(sizes, []int{0}) {
		t.Errorf("of none: %q in pages of %v", names, sizes)
	}
	// To be counted, records need not be such that they can be opened.
	var records []any
	var index []redis.Z
	for i := range 1001 {
		id := fmt.Sprintf("t%04d", i)
		records, index = append(records, id, "sealed"), append(index, redis.Z{Member: id})
	}
	if err := h.redis.HSet(t.Context(), "tokenbroker:{tenants}:records", records...).Err(); err != nil {
		t.Fatal(err)
	}
	if err := h.redis.ZAdd(t.Context(), "tokenbroker:{tenants}:index", index...).Err(); err != nil {
		t.Fatal(err)
	}
	for size, want := range map[int32]int{0: 50, 1000: 1000, 1001: 1000, 1 << 30: 1000} {
		resp, err := h.tenants.ListTenants(at(t), &pb.ListTenantsRequest{PageSize: size})
		if err != nil || len(resp.GetTenants()) != want || resp.GetNextPageToken() == "" {
			t.Errorf("page_size %d: %d tenants, next %q, %v; want %d", size, len(resp.GetTenants()), resp.GetNextPageToken(), err, want)
		}
	}
}

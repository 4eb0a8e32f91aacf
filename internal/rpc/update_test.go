package rpc_test

import (
	"fmt"
	"sync"
	"testing"

	"google.golang.org/grpc/codes"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/fieldmaskpb"
	"google.golang.org/protobuf/types/known/timestamppb"

	pb "smokeball.internal/tokenbroker/gen/tokenbroker/v1"
)

func timestamp(seconds int64) *timestamppb.Timestamp { return &timestamppb.Timestamp{Seconds: seconds} }

// set is a tenant with something in every field that may be set.
func set(p *pb.Tenant) {
	p.DisplayName, p.AccountId, p.KeepWarm = "Acme Law", "account-1", true
	p.Environment, p.State = pb.Environment_ENVIRONMENT_PRODUCTION, pb.Tenant_STATE_ACTIVE
	p.Scopes = []string{"contacts/read", "matters/read"}
	p.Labels = map[string]string{"a": "1", "b": "2"}
}

func TestUpdateTenant(t *testing.T) {
	t.Parallel()
	for _, test := range []struct {
		name  string
		mask  []string // nil: absent
		given *pb.Tenant
		want  func(*pb.Tenant) // what changes
		key   string           // the api_key that callers get then
	}{
		{"nothing set", nil, &pb.Tenant{}, func(*pb.Tenant) {}, "acme-key"},
		{"what is set", nil, &pb.Tenant{DisplayName: "New", Labels: map[string]string{"c": "3"}, Scopes: []string{"matters/write"}, ApiKey: "new-key"},
			func(p *pb.Tenant) {
				p.DisplayName, p.Labels, p.Scopes = "New", map[string]string{"c": "3"}, []string{"matters/write"}
			}, "new-key"},
		{"star replaces all but the secrets", []string{"*"}, &pb.Tenant{Region: pb.Region_REGION_US, ClientId: "acme-client"},
			func(p *pb.Tenant) {
				p.DisplayName, p.AccountId, p.KeepWarm, p.Scopes, p.Labels = "", "", false, nil, nil
			}, "acme-key"},
		{"display_name", []string{"display_name"}, &pb.Tenant{DisplayName: "New", AccountId: "unheard"},
			func(p *pb.Tenant) { p.DisplayName = "New" }, "acme-key"},
		{"display_name cleared", []string{"display_name"}, &pb.Tenant{}, func(p *pb.Tenant) { p.DisplayName = "" }, "acme-key"},
		{"labels as a whole", []string{"labels"}, &pb.Tenant{Labels: map[string]string{"c": "3"}},
			func(p *pb.Tenant) { p.Labels = map[string]string{"c": "3"} }, "acme-key"},
		{"labels cleared", []string{"labels"}, &pb.Tenant{}, func(p *pb.Tenant) { p.Labels = nil }, "acme-key"},
		{"scopes in any order", []string{"scopes"}, &pb.Tenant{Scopes: []string{"matters/write", "contacts/read", "matters/write"}},
			func(p *pb.Tenant) { p.Scopes = []string{"contacts/read", "matters/write"} }, "acme-key"},
		{"scopes cleared", []string{"scopes"}, &pb.Tenant{}, func(p *pb.Tenant) { p.Scopes = nil }, "acme-key"},
		{"keep_warm off", []string{"keep_warm"}, &pb.Tenant{}, func(p *pb.Tenant) { p.KeepWarm = false }, "acme-key"},
		{"api_key", []string{"api_key"}, &pb.Tenant{ApiKey: "new-key"}, func(*pb.Tenant) {}, "new-key"},
		{"api_key cleared", []string{"api_key"}, &pb.Tenant{}, func(*pb.Tenant) {}, ""},
		{"client_secret to the same", []string{"client_secret"}, &pb.Tenant{ClientSecret: "acme-secret"}, func(*pb.Tenant) {}, "acme-key"},
		{"output only", []string{"name", "create_time", "update_time", "etag", "status", "fallback_secret_expire_time", "client_secret_update_time"},
			&pb.Tenant{ClientSecretUpdateTime: timestamp(1), CreateTime: timestamp(1), UpdateTime: timestamp(1), Status: &pb.TenantStatus{TokenId: "x"}, FallbackSecretExpireTime: timestamp(1)},
			func(*pb.Tenant) {}, "acme-key"},
		{"a field twice", []string{"account_id", "account_id"}, &pb.Tenant{AccountId: "B"}, func(p *pb.Tenant) { p.AccountId = "B" }, "acme-key"},
	} {
		t.Run(test.name, func(t *testing.T) {
			t.Parallel()
			h := newHouse(t, furniture{})
			before := h.register(t, "acme", set)
			want := proto.CloneOf(before)
			test.want(want)
			test.given.Name = "tenants/acme"
			req := &pb.UpdateTenantRequest{Tenant: test.given, ValidateOnly: true}
			if test.mask != nil {
				req.UpdateMask = &fieldmaskpb.FieldMask{Paths: test.mask}
			}
			dry, err := h.tenants.UpdateTenant(at(t), req)
			if err != nil || !proto.Equal(dry.GetTenant(), want) {
				t.Errorf("validate_only: got %v, %v\nwant %v", dry.GetTenant(), err, want)
			}
			now := h.tenant(t, "acme")
			now.Status = nil
			if !proto.Equal(now, before) {
				t.Errorf("validate_only stored %v", now)
			}
			req.ValidateOnly = false
			resp, err := h.tenants.UpdateTenant(at(t), req)
			if err != nil {
				t.Fatal(err)
			}
			got := resp.GetTenant()
			read := h.tenant(t, "acme")
			read.Status = nil // A tenant that is kept warm may have one by now.
			if !proto.Equal(read, got) {
				t.Errorf("answered %v\nread     %v", got, read)
			}
			if got.GetEtag() == before.GetEtag() || !got.GetUpdateTime().AsTime().After(before.GetUpdateTime().AsTime()) {
				t.Errorf("etag %q then %q, update_time %v then %v", before.GetEtag(), got.GetEtag(), before.GetUpdateTime(), got.GetUpdateTime())
			}
			want.Etag, want.UpdateTime = got.GetEtag(), got.GetUpdateTime()
			if !proto.Equal(got, want) {
				t.Errorf("got  %v\nwant %v", got, want)
			}
			// The secret is still there, and callers see the change.
			if token := h.token(t, "acme"); token.GetApiKey() != test.key {
				t.Errorf("api_key %q, want %q", token.GetApiKey(), test.key)
			}
		})
	}
}

// A tenant must stay one.
func TestUpdateTenantRefused(t *testing.T) {
	t.Parallel()
	h := newHouse(t, furniture{})
	before := h.register(t, "acme")
	for field, req := range map[string]*pb.UpdateTenantRequest{
		"tenant.name":          {Tenant: &pb.Tenant{DisplayName: "x"}},
		"tenant.region":        {Tenant: &pb.Tenant{Name: "tenants/acme"}, UpdateMask: &fieldmaskpb.FieldMask{Paths: []string{"region"}}},
		"tenant.client_id":     {Tenant: &pb.Tenant{Name: "tenants/acme"}, UpdateMask: &fieldmaskpb.FieldMask{Paths: []string{"client_id"}}},
		"tenant.client_secret": {Tenant: &pb.Tenant{Name: "tenants/acme"}, UpdateMask: &fieldmaskpb.FieldMask{Paths: []string{"client_secret"}}},
		"tenant.display_name":  {Tenant: &pb.Tenant{Name: "tenants/acme", DisplayName: "a\nb"}},
	} {
		_, err := h.tenants.UpdateTenant(at(t), req)
		wantBadRequest(t, err, field)
	}
	_, err := h.tenants.UpdateTenant(at(t), &pb.UpdateTenantRequest{Tenant: &pb.Tenant{Name: "tenants/acme"},
		UpdateMask: &fieldmaskpb.FieldMask{Paths: []string{"*"}}})
	wantBadRequest(t, err, "tenant.region")
	if after := h.tenant(t, "acme"); !proto.Equal(after, before) {
		t.Errorf("the tenant changed to %v", after)
	}
}

// A new secret counts at once, and has no fallback.
func TestUpdateClientSecret(t *testing.T) {
	t.Parallel()
	h := newHouse(t, furniture{})
	h.register(t, "acme")
	h.token(t, "acme")
	resp, err := h.tenants.UpdateTenant(at(t), &pb.UpdateTenantRequest{Tenant: &pb.Tenant{Name: "tenants/acme", ClientSecret: "wrong"}})
	if err != nil || resp.GetTenant().GetFallbackSecretExpireTime() != nil || !proto.Equal(resp.GetTenant().GetClientSecretUpdateTime(), resp.GetTenant().GetUpdateTime()) {
		t.Errorf("got %v, %v", resp, err)
	}
	wantError(t, h.get(t, "acme"), codes.FailedPrecondition, "CREDENTIALS_REJECTED")
	if n := h.sim.Requests("acme-client"); n != 2 {
		t.Errorf("%d requests to the issuer, want one for each secret", n)
	}
}

// A refusal is remembered for minutes, but not past the change that cures it.
func TestCorrectedSecretWorksAtOnce(t *testing.T) {
	t.Parallel()
	h := newHouse(t, furniture{})
	h.register(t, "acme", func(p *pb.Tenant) { p.ClientSecret = "wrong" })
	wantError(t, h.get(t, "acme"), codes.FailedPrecondition, "CREDENTIALS_REJECTED")
	if _, err := h.tenants.UpdateTenant(at(t), &pb.UpdateTenantRequest{Tenant: &pb.Tenant{Name: "tenants/acme", ClientSecret: "acme-secret"}}); err != nil {
		t.Fatal(err)
	}
	h.token(t, "acme")
}

// Who names no version changes what is there, and loses nothing of others.
func TestConcurrentUpdates(t *testing.T) {
	t.Parallel()
	h := newHouse(t, furniture{})
	h.register(t, "acme")
	fields := []*pb.Tenant{
		{DisplayName: "New"}, {AccountId: "account-2"}, {KeepWarm: true}, {Labels: map[string]string{"a": "1"}},
	}
	var updates sync.WaitGroup
	for i, p := range fields {
		p.Name = "tenants/acme"
		updates.Go(func() {
			if _, err := h.tenants.UpdateTenant(at(t), &pb.UpdateTenantRequest{Tenant: p}); err != nil {
				t.Errorf("update %d: %v", i, err)
			}
		})
	}
	updates.Wait()
	got := h.tenant(t, "acme")
	if got.GetDisplayName() != "New" || got.GetAccountId() != "account-2" || !got.GetKeepWarm() || got.GetLabels()["a"] != "1" {
		t.Errorf("an update was lost: %v", got)
	}
}

// With etags, of those who read the same version one wins.
func TestConcurrentUpdatesWithEtag(t *testing.T) {
	t.Parallel()
	h := newHouse(t, furniture{})
	read := h.register(t, "acme")
	var updates sync.WaitGroup
	errs := make([]error, 8)
	for i := range errs {
		updates.Go(func() {
			_, errs[i] = h.tenants.UpdateTenant(at(t), &pb.UpdateTenantRequest{
				Tenant: &pb.Tenant{Name: "tenants/acme", Etag: read.GetEtag(), DisplayName: fmt.Sprint(i)}})
		})
	}
	updates.Wait()
	won := 0
	for _, err := range errs {
		if err == nil {
			won++
			continue
		}
		wantError(t, err, codes.Aborted, "ETAG_MISMATCH")
	}
	if won != 1 {
		t.Errorf("%d won, want 1", won)
	}
}

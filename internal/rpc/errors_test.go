package rpc_test

import (
	"context"
	"strings"
	"testing"
	"time"

	"google.golang.org/genproto/googleapis/rpc/errdetails"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/types/known/durationpb"

	pb "smokeball.internal/tokenbroker/gen/tokenbroker/v1"
	"smokeball.internal/tokenbroker/internal/broker"
	"smokeball.internal/tokenbroker/internal/simulator"
	"smokeball.internal/tokenbroker/internal/tenant"
)

// details returns the details of a status but for the request's id, which all
// have.
func details(t *testing.T, s *status.Status) (others []any) {
	t.Helper()
	ids := 0
	for _, detail := range s.Details() {
		if info, ok := detail.(*errdetails.RequestInfo); ok && info.GetRequestId() != "" {
			ids++
		} else {
			others = append(others, detail)
		}
	}
	if ids != 1 {
		t.Errorf("details %v, want one request id among them", s.Details())
	}
	return others
}

// wantError checks code and reason, and that RetryInfo is there when waiting
// helps and is not when it does not. It returns the delay, and the message.
func wantError(t *testing.T, err error, code codes.Code, reason string) (time.Duration, string) {
	t.Helper()
	s := status.Convert(err)
	if s.Code() != code {
		t.Fatalf("got %v, want %v %s", err, code, reason)
	}
	var info *errdetails.ErrorInfo
	var retry *errdetails.RetryInfo
	for _, detail := range details(t, s) {
		switch d := detail.(type) {
		case *errdetails.ErrorInfo:
			info = d
		case *errdetails.RetryInfo:
			retry = d
		default:
			t.Errorf("detail %v of an unexpected kind", d)
		}
	}
	if info.GetReason() != reason || info.GetDomain() != "tokenbroker" {
		t.Errorf("ErrorInfo %v, want %s of tokenbroker (%v)", info, reason, err)
	}
	waiting := code == codes.Unavailable || code == codes.ResourceExhausted
	if waiting != (retry.GetRetryDelay().AsDuration() > 0) {
		t.Errorf("RetryInfo %v with %v", retry, code)
	}
	return retry.GetRetryDelay().AsDuration(), s.Message()
}

func (h *house) get(t *testing.T, id string, scopes ...string) error {
	t.Helper()
	_, err := h.tokens.GetToken(at(t), &pb.GetTokenRequest{Tenant: "tenants/" + id, Scopes: scopes})
	return err
}

func TestTenantNotFound(t *testing.T) {
	t.Parallel()
	h := newHouse(t, furniture{})
	const name = "tenants/nobody"
	_, refresh := h.tokens.RefreshToken(at(t), &pb.RefreshTokenRequest{Tenant: name})
	_, read := h.tenants.GetTenant(at(t), &pb.GetTenantRequest{Name: name})
	_, update := h.tenants.UpdateTenant(at(t), &pb.UpdateTenantRequest{Tenant: &pb.Tenant{Name: name, DisplayName: "x"}})
	_, remove := h.tenants.DeleteTenant(at(t), &pb.DeleteTenantRequest{Name: name})
	_, rotate := h.tenants.RotateClientSecret(at(t), &pb.RotateClientSecretRequest{Name: name, ClientSecret: "s"})
	_, check := h.tenants.CheckTenant(at(t), &pb.CheckTenantRequest{Name: name})
	for _, err := range []error{h.get(t, "nobody"), refresh, read, update, remove, rotate, check} {
		if _, message := wantError(t, err, codes.NotFound, "TENANT_NOT_FOUND"); !strings.Contains(message, name) {
			t.Errorf("message %q does not say who", message)
		}
	}
	if _, err := h.tenants.DeleteTenant(at(t), &pb.DeleteTenantRequest{Name: name, AllowMissing: true}); err != nil {
		t.Errorf("with allow_missing: %v", err)
	}
	h.wantNothingStored(t)
}

func TestTenantExists(t *testing.T) {
	t.Parallel()
	h := newHouse(t, furniture{})
	first := h.register(t, "acme")
	for _, validateOnly := range []bool{true, false} {
		_, err := h.tenants.CreateTenant(at(t), &pb.CreateTenantRequest{TenantId: "acme", Tenant: fresh("other"), ValidateOnly: validateOnly})
		wantError(t, err, codes.AlreadyExists, "TENANT_EXISTS")
	}
	if now := h.tenant(t, "acme"); now.GetEtag() != first.GetEtag() || now.GetClientId() != "acme-client" {
		t.Errorf("the tenant changed to %v", now)
	}
}

func TestStaleEtag(t *testing.T) {
	t.Parallel()
	h := newHouse(t, furniture{})
	before := h.register(t, "acme")
	const stale = "0123456789abcdef01234567"
	_, update := h.tenants.UpdateTenant(at(t), &pb.UpdateTenantRequest{Tenant: &pb.Tenant{Name: "tenants/acme", DisplayName: "x", Etag: stale}})
	_, remove := h.tenants.DeleteTenant(at(t), &pb.DeleteTenantRequest{Name: "tenants/acme", Etag: stale})
	_, rotate := h.tenants.RotateClientSecret(at(t), &pb.RotateClientSecretRequest{Name: "tenants/acme", ClientSecret: "s", Etag: stale})
	for _, err := range []error{update, remove, rotate} {
		wantError(t, err, codes.Aborted, "ETAG_MISMATCH")
	}
	if after := h.tenant(t, "acme"); after.GetEtag() != before.GetEtag() {
		t.Errorf("the tenant changed to %v", after)
	}
	if n := h.sim.Requests("acme-client"); n != 0 {
		t.Errorf("the secret for a stale version was tried: %d requests", n)
	}
	_, err := h.tenants.DeleteTenant(at(t), &pb.DeleteTenantRequest{Name: "tenants/acme", Etag: before.GetEtag()})
	if err != nil {
		t.Errorf("with the etag that is: %v", err)
	}
}

func TestTenantDisabled(t *testing.T) {
	t.Parallel()
	h := newHouse(t, furniture{})
	h.register(t, "acme")
	held := h.token(t, "acme")
	_, err := h.tenants.UpdateTenant(at(t), &pb.UpdateTenantRequest{Tenant: &pb.Tenant{Name: "tenants/acme", State: pb.Tenant_STATE_DISABLED}})
	if err != nil {
		t.Fatal(err)
	}
	_, refresh := h.tokens.RefreshToken(at(t), &pb.RefreshTokenRequest{Tenant: "tenants/acme", RejectedTokenId: held.GetTokenId()})
	for _, err := range []error{h.get(t, "acme"), refresh} {
		wantError(t, err, codes.FailedPrecondition, "TENANT_DISABLED")
	}
}

// What the issuer says becomes what a caller can act on.
func TestIssuerErrors(t *testing.T) {
	t.Parallel()
	status := func(code int, body string) simulator.Fault {
		return simulator.Fault{Kind: simulator.KindStatus, Status: code, Body: body}
	}
	for _, test := range []struct {
		name   string
		fault  simulator.Fault
		code   codes.Code
		reason string
	}{
		{"invalid_client", status(400, `{"error":"invalid_client"}`), codes.FailedPrecondition, "CREDENTIALS_REJECTED"},
		{"unauthorized_client", status(400, `{"error":"unauthorized_client"}`), codes.FailedPrecondition, "CREDENTIALS_REJECTED"},
		{"invalid_scope", status(400, `{"error":"invalid_scope"}`), codes.FailedPrecondition, "SCOPE_REJECTED"},
		{"throttled", status(429, ""), codes.Unavailable, "ISSUER_THROTTLED"},
		{"down", status(503, ""), codes.Unavailable, "ISSUER_UNAVAILABLE"},
		{"firewall", simulator.Fault{Kind: simulator.KindWAF}, codes.Unavailable, "ISSUER_UNAVAILABLE"},
		{"garbage", simulator.Fault{Kind: simulator.KindGarbage}, codes.Unavailable, "ISSUER_UNAVAILABLE"},
		{"reset", simulator.Fault{Kind: simulator.KindReset}, codes.Unavailable, "ISSUER_UNAVAILABLE"},
	} {
		t.Run(test.name, func(t *testing.T) {
			t.Parallel()
			h := newHouse(t, furniture{})
			h.register(t, "acme")
			h.fault(t, "acme", test.fault)
			// A refusal is checked against the registry once more; the second call
			// is answered from what is remembered.
			for range 2 {
				if _, message := wantError(t, h.get(t, "acme"), test.code, test.reason); !strings.HasPrefix(message, "tenants/acme: ") {
					t.Errorf("message %q does not say who", message)
				}
			}
			_, err := h.tokens.RefreshToken(at(t), &pb.RefreshTokenRequest{Tenant: "tenants/acme"})
			wantError(t, err, test.code, test.reason)
		})
	}
}

func TestRetryInfoFollowsRetryAfter(t *testing.T) {
	t.Parallel()
	h := newHouse(t, furniture{})
	h.register(t, "acme")
	h.fault(t, "acme", simulator.Fault{Kind: simulator.KindStatus, Status: 429, RetryAfter: "40"})
	_, rotate := h.tenants.RotateClientSecret(at(t), &pb.RotateClientSecretRequest{Name: "tenants/acme", ClientSecret: "new"})
	for name, err := range map[string]error{"GetToken": h.get(t, "acme"), "RotateClientSecret": rotate} {
		if after, _ := wantError(t, err, codes.Unavailable, "ISSUER_THROTTLED"); after < 35*time.Second || after > 40*time.Second {
			t.Errorf("%s: RetryInfo of %v, want the issuer's 40 s", name, after)
		}
	}
}

func TestScopeRejected(t *testing.T) {
	t.Parallel()
	h := newHouse(t, furniture{})
	h.register(t, "open")
	h.register(t, "bound", func(p *pb.Tenant) { p.Scopes = []string{"matters/read"} })
	wantError(t, h.get(t, "open", "no/such"), codes.FailedPrecondition, "SCOPE_REJECTED")
	wantError(t, h.get(t, "bound", "matters/read", "contacts/read"), codes.FailedPrecondition, "SCOPE_REJECTED")
	if n := h.sim.Requests("bound-client"); n != 0 {
		t.Errorf("the issuer was asked for scopes outside of the registration: %d requests", n)
	}
}

func TestMinRemainingUnreachable(t *testing.T) {
	t.Parallel()
	h := newHouse(t, furniture{})
	h.register(t, "acme")
	for range 3 {
		_, err := h.tokens.GetToken(at(t), &pb.GetTokenRequest{Tenant: "tenants/acme", MinRemaining: durationpb.New(2 * time.Hour)})
		wantError(t, err, codes.FailedPrecondition, "MIN_REMAINING_UNREACHABLE")
	}
	if n := h.sim.Bought("acme-client"); n != 1 {
		t.Errorf("%d tokens bought, want 1", n)
	}
}

func TestStoreUnavailable(t *testing.T) {
	t.Parallel()
	h := newHouse(t, furniture{})
	h.register(t, "acme")
	h.register(t, "cold")
	h.token(t, "acme")
	h.stopRedis()
	ctx := at(t)
	_, create := h.tenants.CreateTenant(ctx, &pb.CreateTenantRequest{TenantId: "new", Tenant: fresh("new")})
	_, read := h.tenants.GetTenant(ctx, &pb.GetTenantRequest{Name: "tenants/acme"})
	_, list := h.tenants.ListTenants(ctx, &pb.ListTenantsRequest{})
	_, check := h.tenants.CheckTenant(ctx, &pb.CheckTenantRequest{Name: "tenants/acme"})
	for name, err := range map[string]error{"create": create, "read": read, "list": list, "check": check, "get": h.get(t, "cold")} {
		if _, message := wantError(t, err, codes.Unavailable, "STORE_UNAVAILABLE"); strings.Contains(message, "127.0.0.1") {
			t.Errorf("%s: the message tells where the store is: %s", name, message)
		}
	}
	h.token(t, "acme") // What is held is handed out all the same.
}

// lostRecords is a registry that has lost a tenant.
type lostRecords struct{ broker.Records }

func (r lostRecords) Tenant(ctx context.Context, id string) (*tenant.Tenant, error) {
	if id == "gone" {
		return nil, tenant.ErrLost
	}
	return r.Records.Tenant(ctx, id)
}

func TestRegistryLost(t *testing.T) {
	t.Parallel()
	h := newHouse(t, furniture{records: func(r broker.Records) broker.Records { return lostRecords{r} }})
	const name = "tenants/gone"
	_, read := h.tenants.GetTenant(at(t), &pb.GetTenantRequest{Name: name})
	_, update := h.tenants.UpdateTenant(at(t), &pb.UpdateTenantRequest{Tenant: &pb.Tenant{Name: name, DisplayName: "x"}})
	_, remove := h.tenants.DeleteTenant(at(t), &pb.DeleteTenantRequest{Name: name})
	_, check := h.tenants.CheckTenant(at(t), &pb.CheckTenantRequest{Name: name})
	for _, err := range []error{h.get(t, "gone"), read, update, remove, check} {
		if _, message := wantError(t, err, codes.Unavailable, "REGISTRY_LOST"); !strings.Contains(message, name) {
			t.Errorf("message %q does not say who", message)
		}
	}
	// It may be registered anew.
	for _, validateOnly := range []bool{true, false} {
		if _, err := h.tenants.CreateTenant(at(t), &pb.CreateTenantRequest{TenantId: "gone", Tenant: fresh("gone"), ValidateOnly: validateOnly}); err != nil {
			t.Errorf("create, validate_only %v: %v", validateOnly, err)
		}
	}
}

func TestTenantUnreadable(t *testing.T) {
	t.Parallel()
	h := newHouse(t, furniture{})
	h.register(t, "acme")
	if err := h.redis.HSet(t.Context(), "tokenbroker:{tenants}:records", "acme", "etag.sealed for another").Err(); err != nil {
		t.Fatal(err)
	}
	_, read := h.tenants.GetTenant(at(t), &pb.GetTenantRequest{Name: "tenants/acme"})
	for _, err := range []error{read, h.get(t, "acme")} {
		wantError(t, err, codes.Internal, "TENANT_UNREADABLE")
	}
	// One broken record does not hide the others.
	resp, err := h.tenants.ListTenants(at(t), &pb.ListTenantsRequest{})
	if err != nil || len(resp.GetTenants()) != 1 || resp.GetTenants()[0].GetName() != "tenants/acme" {
		t.Errorf("listed %v, %v", resp.GetTenants(), err)
	}
	// It is in nobody's way for good.
	if _, err := h.tenants.DeleteTenant(at(t), &pb.DeleteTenantRequest{Name: "tenants/acme"}); err != nil {
		t.Errorf("delete: %v", err)
	}
	h.register(t, "acme")
	h.token(t, "acme")
}

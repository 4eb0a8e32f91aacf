package rpc_test

import (
	"context"
	"fmt"
	"math"
	"slices"
	"strings"
	"testing"
	"time"

	"google.golang.org/genproto/googleapis/rpc/errdetails"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/durationpb"
	"google.golang.org/protobuf/types/known/fieldmaskpb"

	pb "smokeball.internal/tokenbroker/gen/tokenbroker/v1"
)

// A status travels in the trailers, which clients and proxies bound at 8 KiB.
const largestStatus = 2 << 10

// wantBadRequest checks that err is INVALID_ARGUMENT and names this field, in a
// few words.
func wantBadRequest(t *testing.T, err error, field string) {
	t.Helper()
	s := status.Convert(err)
	if s.Code() != codes.InvalidArgument {
		t.Fatalf("got %v, want INVALID_ARGUMENT for %s", err, field)
	}
	if size := proto.Size(s.Proto()); size > largestStatus {
		t.Errorf("the status has %d bytes", size)
	}
	found := details(t, s)
	if len(found) != 1 {
		t.Fatalf("details %v, want one", found)
	}
	bad, ok := found[0].(*errdetails.BadRequest)
	if !ok || len(bad.GetFieldViolations()) != 1 {
		t.Fatalf("details %v, want a BadRequest with one violation", found)
	}
	if v := bad.GetFieldViolations()[0]; v.GetField() != field || v.GetDescription() == "" {
		t.Errorf("violation %.300v, want one of %s", v, field)
	}
	if !strings.HasPrefix(s.Message(), field+": ") {
		t.Errorf("message %.300q does not begin with %s", s.Message(), field)
	}
}

// wantNothingStored looks past the API too.
func (h *house) wantNothingStored(t *testing.T) {
	t.Helper()
	resp, err := h.tenants.ListTenants(at(t), &pb.ListTenantsRequest{})
	if err != nil || len(resp.GetTenants()) != 0 {
		t.Errorf("tenants %v, %v, want none", resp.GetTenants(), err)
	}
	if keys, err := h.redis.Keys(t.Context(), "*").Result(); err != nil || len(keys) != 0 {
		t.Errorf("keys %q, %v, want none", keys, err)
	}
	if n := h.sim.Requests("*"); n != 0 {
		t.Errorf("%d requests to the issuer, want none", n)
	}
}

func TestBadTenantID(t *testing.T) {
	t.Parallel()
	h := newHouse(t, furniture{})
	for _, id := range []string{
		"", strings.Repeat("a", 64), "Acme", "ACME", "açme", "аcme", "acme\u200b", "../x", "a\r\nb", "a\n", "-a", "a-", "1a",
		"a/b", "a b", "a.b", "a_b", "*", "a\x00", "tenants/a", strings.Repeat("a", 1<<16),
	} {
		t.Run(fmt.Sprintf("%.20q", id), func(t *testing.T) {
			_, err := h.tenants.CreateTenant(at(t), &pb.CreateTenantRequest{TenantId: id, Tenant: fresh("a")})
			wantBadRequest(t, err, "tenant_id")
		})
	}
	h.wantNothingStored(t)
	for _, id := range []string{"a", "a0", "a-0", strings.Repeat("a", 63)} {
		if _, err := h.tenants.CreateTenant(at(t), &pb.CreateTenantRequest{TenantId: id, Tenant: fresh("a")}); err != nil {
			t.Errorf("%s: %v", id, err)
		}
	}
}

// Every request that names a tenant has the same rule for the name.
func TestBadName(t *testing.T) {
	t.Parallel()
	h := newHouse(t, furniture{})
	for _, name := range []string{
		"", "acme", "tenants/", "tenants/A", "tenants/a/b", "tenants/../x", "/tenants/a", "tenants/a\r\nb", "tenants/a\n",
		"tenants/-", "tenants/*", "Tenants/a", "tenants/" + strings.Repeat("a", 64), "tenants/" + strings.Repeat("a", 1<<16),
	} {
		t.Run(fmt.Sprintf("%.20q", name), func(t *testing.T) {
			ctx := at(t)
			for _, call := range []struct {
				field string
				do    func() error
			}{
				{"tenant", func() error { _, err := h.tokens.GetToken(ctx, &pb.GetTokenRequest{Tenant: name}); return err }},
				{"tenant", func() error { _, err := h.tokens.RefreshToken(ctx, &pb.RefreshTokenRequest{Tenant: name}); return err }},
				{"name", func() error { _, err := h.tenants.GetTenant(ctx, &pb.GetTenantRequest{Name: name}); return err }},
				{"name", func() error {
					_, err := h.tenants.DeleteTenant(ctx, &pb.DeleteTenantRequest{Name: name, AllowMissing: true})
					return err
				}},
				{"name", func() error {
					_, err := h.tenants.RotateClientSecret(ctx, &pb.RotateClientSecretRequest{Name: name, ClientSecret: "s"})
					return err
				}},
				{"name", func() error { _, err := h.tenants.CheckTenant(ctx, &pb.CheckTenantRequest{Name: name}); return err }},
				{"tenant.name", func() error {
					_, err := h.tenants.UpdateTenant(ctx, &pb.UpdateTenantRequest{Tenant: &pb.Tenant{Name: name, DisplayName: "x"}})
					return err
				}},
			} {
				wantBadRequest(t, call.do(), call.field)
			}
		})
	}
	h.wantNothingStored(t)
}

func TestBadTenant(t *testing.T) {
	t.Parallel()
	h := newHouse(t, furniture{})
	manyLabels := map[string]string{}
	for i := range 65 {
		manyLabels[fmt.Sprintf("k%d", i)] = "v"
	}
	for _, test := range []struct {
		name   string
		field  string
		change func(*pb.Tenant)
	}{
		{"name of nothing", "tenant.name", func(p *pb.Tenant) { p.Name = "acme" }},
		{"display name too long", "tenant.display_name", func(p *pb.Tenant) { p.DisplayName = strings.Repeat("ä", 129) }},
		{"display name of two lines", "tenant.display_name", func(p *pb.Tenant) { p.DisplayName = "a\nb" }},
		{"display name with C1 control", "tenant.display_name", func(p *pb.Tenant) { p.DisplayName = "a\u0085b" }},
		{"no region", "tenant.region", func(p *pb.Tenant) { p.Region = 0 }},
		{"region of nowhere", "tenant.region", func(p *pb.Tenant) { p.Region = 99 }},
		{"environment of nowhere", "tenant.environment", func(p *pb.Tenant) { p.Environment = 99 }},
		{"no client_id", "tenant.client_id", func(p *pb.Tenant) { p.ClientId = "" }},
		{"client_id with colon", "tenant.client_id", func(p *pb.Tenant) { p.ClientId = "a:b" }},
		{"client_id with control character", "tenant.client_id", func(p *pb.Tenant) { p.ClientId = "a\x01b" }},
		{"client_id with line break", "tenant.client_id", func(p *pb.Tenant) { p.ClientId = "ab\n" }},
		{"client_id with space", "tenant.client_id", func(p *pb.Tenant) { p.ClientId = "a b" }},
		{"client_id not ASCII", "tenant.client_id", func(p *pb.Tenant) { p.ClientId = "äb" }},
		{"client_id too long", "tenant.client_id", func(p *pb.Tenant) { p.ClientId = strings.Repeat("a", 129) }},
		{"no client_secret", "tenant.client_secret", func(p *pb.Tenant) { p.ClientSecret = "" }},
		{"client_secret too long", "tenant.client_secret", func(p *pb.Tenant) { p.ClientSecret = strings.Repeat("a", 257) }},
		{"client_secret with line break", "tenant.client_secret", func(p *pb.Tenant) { p.ClientSecret = "secret\n" }},
		{"client_secret with space", "tenant.client_secret", func(p *pb.Tenant) { p.ClientSecret = " secret" }},
		{"client_secret not ASCII", "tenant.client_secret", func(p *pb.Tenant) { p.ClientSecret = "sécret" }},
		{"api_key too long", "tenant.api_key", func(p *pb.Tenant) { p.ApiKey = strings.Repeat("a", 257) }},
		{"api_key with line break", "tenant.api_key", func(p *pb.Tenant) { p.ApiKey = "a\r\nX-Evil: 1" }},
		{"account_id with slash", "tenant.account_id", func(p *pb.Tenant) { p.AccountId = "a/b" }},
		{"account_id with dots", "tenant.account_id", func(p *pb.Tenant) { p.AccountId = ".." }},
		{"account_id with line break", "tenant.account_id", func(p *pb.Tenant) { p.AccountId = "a\n" }},
		{"account_id too long", "tenant.account_id", func(p *pb.Tenant) { p.AccountId = strings.Repeat("a", 65) }},
		{"10,000 scopes", "tenant.scopes", func(p *pb.Tenant) { p.Scopes = slices.Repeat([]string{"a/b"}, 10_000) }},
		{"scope with space", "tenant.scopes[1]", func(p *pb.Tenant) { p.Scopes = []string{"a", "a b"} }},
		{"state of mind", "tenant.state", func(p *pb.Tenant) { p.State = 99 }},
		{"65 labels", "tenant.labels", func(p *pb.Tenant) { p.Labels = manyLabels }},
		{"label key with capital", `tenant.labels["Key"]`, func(p *pb.Tenant) { p.Labels = map[string]string{"Key": "v"} }},
		{"label value with control character", `tenant.labels["key"]`, func(p *pb.Tenant) { p.Labels = map[string]string{"key": "a\x1bb"} }},
		{"label value too long", `tenant.labels["key"]`, func(p *pb.Tenant) { p.Labels = map[string]string{"key": strings.Repeat("v", 64)} }},
		// The path of a map's field has the key in it, whatever that is.
		{"label key of 100 KB", `tenant.labels["` + strings.Repeat("K", 113) + "…", func(p *pb.Tenant) {
			p.Labels = map[string]string{strings.Repeat("K", 100_000): "v"}
		}},
		{"etag too long", "tenant.etag", func(p *pb.Tenant) { p.Etag = strings.Repeat("a", 65) }},
	} {
		t.Run(test.name, func(t *testing.T) {
			p := fresh("acme")
			test.change(p)
			for _, validateOnly := range []bool{true, false} {
				_, err := h.tenants.CreateTenant(at(t), &pb.CreateTenantRequest{TenantId: "acme", Tenant: p, ValidateOnly: validateOnly})
				wantBadRequest(t, err, test.field)
			}
		})
	}
	_, err := h.tenants.CreateTenant(at(t), &pb.CreateTenantRequest{TenantId: "acme"})
	wantBadRequest(t, err, "tenant")
	h.wantNothingStored(t)
}

func TestBadTokenRequest(t *testing.T) {
	t.Parallel()
	h := newHouse(t, furniture{})
	many := make([]string, 10_000)
	for i := range many {
		many[i] = fmt.Sprintf("scope/%d", i)
	}
	for _, test := range []struct {
		name   string
		scopes []string
		field  string
	}{
		{"10,000 good scopes", many, "scopes"},
		{"10,000 bad scopes", slices.Repeat([]string{"a b"}, 10_000), "scopes"},
		{"51 scopes", many[:51], "scopes"},
		{"space", []string{"a b"}, "scopes[0]"},
		{"quote", []string{"ok", `a"b`}, "scopes[1]"},
		{"backslash", []string{`a\b`}, "scopes[0]"},
		{"line break", []string{"a\n"}, "scopes[0]"},
		{"empty", []string{""}, "scopes[0]"},
		{"not ASCII", []string{"é"}, "scopes[0]"},
		{"257 characters", []string{strings.Repeat("a", 257)}, "scopes[0]"},
	} {
		t.Run(test.name, func(t *testing.T) {
			_, err := h.tokens.GetToken(at(t), &pb.GetTokenRequest{Tenant: "tenants/acme", Scopes: test.scopes})
			wantBadRequest(t, err, test.field)
			_, err = h.tokens.RefreshToken(at(t), &pb.RefreshTokenRequest{Tenant: "tenants/acme", Scopes: test.scopes})
			wantBadRequest(t, err, test.field)
		})
	}
	for name, d := range map[string]*durationpb.Duration{
		"negative":             durationpb.New(-time.Second),
		"a nanosecond too few": {Nanos: -1},
		"25 hours":             durationpb.New(25 * time.Hour),
		"mismatched signs":     {Seconds: 1, Nanos: -1},
		"too many nanoseconds": {Seconds: 1, Nanos: math.MaxInt32},
		"longer than time":     {Seconds: math.MaxInt64},
		"shorter than time":    {Seconds: math.MinInt64},
	} {
		t.Run("min_remaining "+name, func(t *testing.T) {
			_, err := h.tokens.GetToken(at(t), &pb.GetTokenRequest{Tenant: "tenants/acme", MinRemaining: d})
			wantBadRequest(t, err, "min_remaining")
		})
	}
	for _, id := range []string{"x", strings.Repeat("g", 32), strings.Repeat("A", 32), strings.Repeat("0", 31), strings.Repeat("0", 33), strings.Repeat("0", 32) + "\n"} {
		t.Run(fmt.Sprintf("rejected_token_id %q", id), func(t *testing.T) {
			_, err := h.tokens.RefreshToken(at(t), &pb.RefreshTokenRequest{Tenant: "tenants/acme", RejectedTokenId: id})
			wantBadRequest(t, err, "rejected_token_id")
		})
	}
	h.wantNothingStored(t)
}

func TestBadAdministration(t *testing.T) {
	t.Parallel()
	h := newHouse(t, furniture{})
	update := func(paths ...string) func(context.Context) error {
		return func(ctx context.Context) error {
			_, err := h.tenants.UpdateTenant(ctx, &pb.UpdateTenantRequest{
				Tenant: &pb.Tenant{Name: "tenants/acme"}, UpdateMask: &fieldmaskpb.FieldMask{Paths: paths}})
			return err
		}
	}
	page := func(size int32, token string) func(context.Context) error {
		return func(ctx context.Context) error {
			_, err := h.tenants.ListTenants(ctx, &pb.ListTenantsRequest{PageSize: size, PageToken: token})
			return err
		}
	}
	rotate := func(secret string, ttl *durationpb.Duration) func(context.Context) error {
		return func(ctx context.Context) error {
			_, err := h.tenants.RotateClientSecret(ctx, &pb.RotateClientSecretRequest{Name: "tenants/acme", ClientSecret: secret, FallbackTtl: ttl})
			return err
		}
	}
	for _, test := range []struct {
		name, field string
		call        func(context.Context) error
	}{
		{"no tenant", "tenant", func(ctx context.Context) error {
			_, err := h.tenants.UpdateTenant(ctx, &pb.UpdateTenantRequest{})
			return err
		}},
		{"mask of an unknown field", "update_mask", update("nickname")},
		{"mask of part of a field", "update_mask", update("labels.x")},
		{"mask of part of a message", "update_mask", update("status.token_id")},
		{"mask in JSON's spelling", "update_mask", update("displayName")},
		{"mask with star and more", "update_mask", update("*", "labels")},
		{"mask of nothing", "update_mask", update("")},
		{"mask of 100 KB", "update_mask", update(strings.Repeat("é", 50_000))},
		{"mask with 65 paths", "update_mask", update(slices.Repeat([]string{"labels"}, 65)...)},
		{"page of -1", "page_size", page(-1, "")},
		{"page token of garbage", "page_token", page(0, "!!!")},
		{"page token of another version", "page_token", page(0, "Mi9hY21l")}, // 2/acme
		{"page token without version", "page_token", page(0, "YWNtZQ")},      // acme
		{"page token of another shape", "page_token", page(0, "MS9BY21l")},   // 1/Acme
		{"page token with line break", "page_token", page(0, "MS9hCg")},      // 1/a\n
		{"page token of nothing", "page_token", page(0, "MS8")},              // 1/
		{"page token cut off", "page_token", page(0, "MS9hY21lc")},           // 1/acme and a bit
		{"page token with padding", "page_token", page(0, "MS9hYw==")},       // 1/ac, by another encoder
		{"page token too long", "page_token", page(0, strings.Repeat("a", 257))},
		{"no secret", "client_secret", rotate("", nil)},
		{"secret with line break", "client_secret", rotate("s\n", nil)},
		{"secret too long", "client_secret", rotate(strings.Repeat("s", 257), nil)},
		{"negative fallback_ttl", "fallback_ttl", rotate("s", durationpb.New(-time.Second))},
		{"fallback_ttl of 31 days", "fallback_ttl", rotate("s", durationpb.New(31*24*time.Hour))},
		{"fallback_ttl with mismatched signs", "fallback_ttl", rotate("s", &durationpb.Duration{Seconds: 1, Nanos: -1})},
	} {
		t.Run(test.name, func(t *testing.T) { wantBadRequest(t, test.call(at(t)), test.field) })
	}
	h.wantNothingStored(t)
}

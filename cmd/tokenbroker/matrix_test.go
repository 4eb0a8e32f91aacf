package main_test

import (
	"context"
	"crypto/x509"
	"errors"
	"fmt"
	"io"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/go-jose/go-jose/v4/jwt"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	healthpb "google.golang.org/grpc/health/grpc_health_v1"
	reflectionpb "google.golang.org/grpc/reflection/grpc_reflection_v1"
	"google.golang.org/grpc/status"

	pb "smokeball.internal/tokenbroker/gen/tokenbroker/v1"
	"smokeball.internal/tokenbroker/internal/access/accesstest"
	"smokeball.internal/tokenbroker/internal/simulator"
)

const matrixRules = `
  - principals: ["spiffe://test.example/reader", "jwt:system:serviceaccount:apps:reader"]
    roles: [token.reader]
    tenants: [acme]
  - principals: ["spiffe://test.example/viewer"]
    roles: [tenant.viewer]
    tenants: [acme]
  - principals: ["spiffe://test.example/admin"]
    roles: [tenant.admin]
    tenants: [acme, "new-*"]
  - principals: ["spiffe://test.example/other-reader"]
    roles: [token.reader]
    tenants: [globex]
`

// calls are all methods of the server. Each is called for tenants/acme.
var calls = map[string]func(context.Context, *grpc.ClientConn) error{
	"GetToken": func(ctx context.Context, conn *grpc.ClientConn) error {
		_, err := pb.NewTokenServiceClient(conn).GetToken(ctx, &pb.GetTokenRequest{Tenant: "tenants/acme"})
		return err
	},
	"RefreshToken": func(ctx context.Context, conn *grpc.ClientConn) error {
		_, err := pb.NewTokenServiceClient(conn).RefreshToken(ctx, &pb.RefreshTokenRequest{Tenant: "tenants/acme", RejectedTokenId: strings.Repeat("0", 32)})
		return err
	},
	"WatchToken": func(ctx context.Context, conn *grpc.ClientConn) error {
		ctx, cancel := context.WithCancel(ctx)
		defer cancel()
		stream, err := pb.NewTokenServiceClient(conn).WatchToken(ctx, &pb.WatchTokenRequest{Tenant: "tenants/acme"})
		if err == nil {
			_, err = stream.Recv()
		}
		return err
	},
	"CreateTenant": func(ctx context.Context, conn *grpc.ClientConn) error {
		_, err := pb.NewTenantServiceClient(conn).CreateTenant(ctx, &pb.CreateTenantRequest{TenantId: fmt.Sprintf("new-%x", time.Now().UnixNano()), Tenant: &pb.Tenant{
			Region: pb.Region_REGION_US, ClientId: "client-acme", ClientSecret: "secret-of-acme"}})
		return err
	},
	"GetTenant": func(ctx context.Context, conn *grpc.ClientConn) error {
		_, err := pb.NewTenantServiceClient(conn).GetTenant(ctx, &pb.GetTenantRequest{Name: "tenants/acme"})
		return err
	},
	"ListTenants": func(ctx context.Context, conn *grpc.ClientConn) error {
		_, err := pb.NewTenantServiceClient(conn).ListTenants(ctx, &pb.ListTenantsRequest{})
		return err
	},
	"UpdateTenant": func(ctx context.Context, conn *grpc.ClientConn) error {
		_, err := pb.NewTenantServiceClient(conn).UpdateTenant(ctx, &pb.UpdateTenantRequest{Tenant: &pb.Tenant{Name: "tenants/acme", DisplayName: "Acme"}})
		return err
	},
	"DeleteTenant": func(ctx context.Context, conn *grpc.ClientConn) error {
		_, err := pb.NewTenantServiceClient(conn).DeleteTenant(ctx, &pb.DeleteTenantRequest{Name: "tenants/acme"})
		return err
	},
	"RotateClientSecret": func(ctx context.Context, conn *grpc.ClientConn) error {
		_, err := pb.NewTenantServiceClient(conn).RotateClientSecret(ctx, &pb.RotateClientSecretRequest{Name: "tenants/acme", ClientSecret: "secret-of-acme"})
		return err
	},
	"CheckTenant": func(ctx context.Context, conn *grpc.ClientConn) error {
		_, err := pb.NewTenantServiceClient(conn).CheckTenant(ctx, &pb.CheckTenantRequest{Name: "tenants/acme"})
		return err
	},
	"Health/Check": func(ctx context.Context, conn *grpc.ClientConn) error {
		_, err := healthpb.NewHealthClient(conn).Check(ctx, &healthpb.HealthCheckRequest{})
		return err
	},
	"Health/List": func(ctx context.Context, conn *grpc.ClientConn) error {
		_, err := healthpb.NewHealthClient(conn).List(ctx, &healthpb.HealthListRequest{})
		return err
	},
	"Health/Watch": func(ctx context.Context, conn *grpc.ClientConn) error {
		stream, err := healthpb.NewHealthClient(conn).Watch(ctx, &healthpb.HealthCheckRequest{})
		if err != nil {
			return err
		}
		_, err = stream.Recv()
		return err
	},
	"ServerReflection": func(ctx context.Context, conn *grpc.ClientConn) error {
		stream, err := reflectionpb.NewServerReflectionClient(conn).ServerReflectionInfo(ctx)
		if err != nil {
			return err
		}
		err = stream.Send(&reflectionpb.ServerReflectionRequest{MessageRequest: &reflectionpb.ServerReflectionRequest_ListServices{}})
		if err != nil && !errors.Is(err, io.EOF) { // EOF: Recv says why.
			return err
		}
		_, err = stream.Recv()
		return err
	},
}

// TestOnlyWhatARuleAllowsSucceeds calls everything as everyone.
func TestOnlyWhatARuleAllowsSucceeds(t *testing.T) {
	t.Parallel()
	g := startGuarded(t, matrixRules, withTokens)
	root := g.as(everything)
	for _, tenant := range []string{"acme", "globex"} {
		register(t, root, g.issuer, tenant, time.Hour)
	}
	stranger := accesstest.NewAuthority(t)
	namesake := accesstest.NewTokenIssuer(t, tokenIssuer, "key")

	health := []string{"Health/Check", "Health/List", "Health/Watch"}
	anybody := append([]string{"ServerReflection"}, health...)
	reader := append([]string{"GetToken", "RefreshToken", "WatchToken"}, anybody...)
	viewer := append([]string{"GetTenant", "ListTenants"}, anybody...)
	admin := append([]string{"CreateTenant", "UpdateTenant", "DeleteTenant", "RotateClientSecret", "CheckTenant"}, viewer...)
	issue := func(a *accesstest.Authority, id string, change func(*x509.Certificate)) *accesstest.Certificate {
		certificate := a.Issue("caller", func(template *x509.Certificate) {
			accesstest.SPIFFE("spiffe://test.example/" + id)(template)
			if change != nil {
				change(template)
			}
		})
		return &certificate
	}
	claims := func(change func(*jwt.Claims)) jwt.Claims {
		c := g.tokens.Claims("system:serviceaccount:apps:reader", tokenAudience)
		if change != nil {
			change(&c)
		}
		return c
	}
	for _, who := range []struct {
		name        string
		certificate *accesstest.Certificate
		token       string
		allowed     []string
		otherwise   codes.Code
	}{
		{"no certificate", nil, "", nil, codes.Unauthenticated},
		{"wrong CA", issue(stranger, "admin", nil), "", nil, codes.Unavailable},
		{"expired", issue(g.authority, "admin", func(c *x509.Certificate) { c.NotAfter = time.Now().Add(-time.Second) }), "", nil, codes.Unavailable},
		{"not yet valid", issue(g.authority, "admin", func(c *x509.Certificate) { c.NotBefore = time.Now().Add(time.Hour) }), "", nil, codes.Unavailable},
		{"without a rule", issue(g.authority, "nobody", nil), "", health, codes.PermissionDenied},
		{"reader", issue(g.authority, "reader", nil), "", reader, codes.PermissionDenied},
		{"viewer", issue(g.authority, "viewer", nil), "", viewer, codes.PermissionDenied},
		{"admin", issue(g.authority, "admin", nil), "", admin, codes.PermissionDenied},
		{"reader of another tenant", issue(g.authority, "other-reader", nil), "", anybody, codes.PermissionDenied},
		{"JWT", nil, g.tokens.Sign(claims(nil)), reader, codes.PermissionDenied},
		{"JWT beside a certificate that may more", issue(g.authority, "admin", nil), g.tokens.Sign(claims(nil)), reader, codes.PermissionDenied},
		{"expired JWT", nil, g.tokens.Sign(claims(func(c *jwt.Claims) { c.Expiry = jwt.NewNumericDate(time.Now().Add(-time.Second)) })), nil, codes.Unauthenticated},
		{"JWT for another audience", nil, g.tokens.Sign(claims(func(c *jwt.Claims) { c.Audience = jwt.Audience{"vault"} })), nil, codes.Unauthenticated},
		{"JWT of algorithm none", nil, accesstest.Unsigned(t, claims(nil)), nil, codes.Unauthenticated},
		{"JWT of the wrong key", nil, namesake.Sign(claims(nil)), nil, codes.Unauthenticated},
		{"bad JWT beside a good certificate", issue(g.authority, "admin", nil), namesake.Sign(claims(nil)), nil, codes.Unauthenticated},
	} {
		allowed := 0
		conn := g.dial(who.certificate, who.token, grpc.WithDisableRetry())
		for method, call := range calls {
			err := call(soon(t), conn)
			want := who.otherwise
			if slices.Contains(who.allowed, method) {
				want = codes.OK
				allowed++
			}
			if status.Code(err) != want {
				t.Errorf("%s: %s: got %v, want %v", who.name, method, err, want)
			}
			if method == "DeleteTenant" && err == nil {
				register(t, root, g.issuer, "acme", time.Hour)
			}
		}
		if allowed != len(who.allowed) {
			t.Errorf("%s: %d methods of %v were called", who.name, allowed, who.allowed)
		}
		t.Logf("%-40s %2d of %d allowed, all others %v", who.name, allowed, len(calls), who.otherwise)
	}
	services := []grpc.ServiceDesc{pb.TokenService_ServiceDesc, pb.TenantService_ServiceDesc}
	for _, service := range services {
		for _, method := range service.Methods {
			if calls[method.MethodName] == nil {
				t.Errorf("%s/%s was not called", service.ServiceName, method.MethodName)
			}
		}
		for _, method := range service.Streams {
			if calls[method.StreamName] == nil {
				t.Errorf("%s/%s was not called", service.ServiceName, method.StreamName)
			}
		}
	}
}

// A caller who may not read a tenant learns nothing of it, by whatever it asks.
func TestATenantThatIsHiddenLooksLikeNone(t *testing.T) {
	t.Parallel()
	g := startGuarded(t, `
  - principals: ["spiffe://test.example/by-name"]
    roles: [token.reader, tenant.admin]
    tenants: [mine]
  - principals: ["spiffe://test.example/by-label"]
    roles: [token.reader, tenant.admin]
    labels: {team: mine}
`)
	root := g.as(everything)
	for _, id := range []string{"mine", "hidden", "disabled", "broken"} {
		register(t, root, g.issuer, id, time.Hour)
	}
	admin := pb.NewTenantServiceClient(root)
	for _, change := range []*pb.Tenant{
		{Name: "tenants/mine", Labels: map[string]string{"team": "mine"}},
		{Name: "tenants/disabled", State: pb.Tenant_STATE_DISABLED},
	} {
		if _, err := admin.UpdateTenant(soon(t), &pb.UpdateTenantRequest{Tenant: change}); err != nil {
			t.Fatal(err)
		}
	}
	g.issuer.SetClient(simulator.Client{Endpoint: "us/production", ID: "client-broken", Secrets: []string{"another"}})
	for _, id := range []string{"hidden", "broken"} { // Held in memory, one with a refusal.
		_, _ = pb.NewTokenServiceClient(root).GetToken(soon(t), &pb.GetTokenRequest{Tenant: "tenants/" + id})
	}
	for _, who := range []string{"by-name", "by-label"} {
		conn := g.as("spiffe://test.example/" + who)
		tokens, tenants := pb.NewTokenServiceClient(conn), pb.NewTenantServiceClient(conn)
		ask := map[string]func(name string) error{
			"GetToken": func(name string) error {
				_, err := tokens.GetToken(soon(t), &pb.GetTokenRequest{Tenant: name})
				return err
			},
			"GetToken with scopes": func(name string) error {
				_, err := tokens.GetToken(soon(t), &pb.GetTokenRequest{Tenant: name, Scopes: []string{"no/such"}})
				return err
			},
			"RefreshToken": func(name string) error {
				_, err := tokens.RefreshToken(soon(t), &pb.RefreshTokenRequest{Tenant: name})
				return err
			},
			"GetTenant": func(name string) error {
				_, err := tenants.GetTenant(soon(t), &pb.GetTenantRequest{Name: name})
				return err
			},
			"CheckTenant": func(name string) error {
				_, err := tenants.CheckTenant(soon(t), &pb.CheckTenantRequest{Name: name})
				return err
			},
			"DeleteTenant": func(name string) error {
				_, err := tenants.DeleteTenant(soon(t), &pb.DeleteTenantRequest{Name: name, Etag: "stale", AllowMissing: true})
				return err
			},
			"UpdateTenant": func(name string) error {
				_, err := tenants.UpdateTenant(soon(t), &pb.UpdateTenantRequest{Tenant: &pb.Tenant{Name: name, Etag: "stale", DisplayName: "x"}})
				return err
			},
			"CreateTenant": func(name string) error {
				_, err := tenants.CreateTenant(soon(t), &pb.CreateTenantRequest{TenantId: strings.TrimPrefix(name, "tenants/"), Tenant: &pb.Tenant{
					Region: pb.Region_REGION_US, ClientId: "c", ClientSecret: "s"}})
				return err
			},
			"RotateClientSecret": func(name string) error {
				_, err := tenants.RotateClientSecret(soon(t), &pb.RotateClientSecretRequest{Name: name, ClientSecret: "x"})
				return err
			},
		}
		if err := ask["GetToken"]("tenants/mine"); err != nil {
			t.Errorf("%s: its own: %v", who, err)
		}
		for what, call := range ask {
			want := status.Convert(call("tenants/nobody"))
			if want.Code() != codes.PermissionDenied {
				t.Errorf("%s: %s of nobody: %v", who, what, want)
			}
			for _, id := range []string{"hidden", "disabled", "broken"} {
				if got := status.Convert(call("tenants/" + id)); got.Code() != want.Code() || got.Message() != want.Message() || fmt.Sprint(got.Details()[0]) != fmt.Sprint(want.Details()[0]) {
					t.Errorf("%s: %s of %s: %v, but of nobody: %v", who, what, id, got, want)
				}
			}
		}
		// By time: by name, before anything is looked up; by label, on a grid.
		slowest := func(id string) (least, most time.Duration) {
			for n := range 9 {
				began := time.Now()
				_ = ask["GetToken"]("tenants/" + id)
				if took := time.Since(began); n == 0 {
					least, most = took, took
				} else {
					least, most = min(least, took), max(most, took)
				}
			}
			return least, most
		}
		hiddenLeast, _ := slowest("hidden")
		nobodyLeast, _ := slowest("nobody")
		t.Logf("%s: the fastest of 9 refusals took %v for a hidden tenant and %v for none", who, hiddenLeast, nobodyLeast)
		if who == "by-label" && (hiddenLeast < 50*time.Millisecond || nobodyLeast < 50*time.Millisecond) {
			t.Error("faster than the grid")
		}
		list, err := tenants.ListTenants(soon(t), &pb.ListTenantsRequest{PageSize: 1})
		if err != nil || len(list.GetTenants()) != 1 || list.GetTenants()[0].GetName() != "tenants/mine" || list.GetNextPageToken() != "" {
			t.Errorf("%s: list %v, %v", who, list, err)
		}
	}
}

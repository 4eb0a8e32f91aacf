package main_test

import (
	"encoding/base64"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/encoding/prototext"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/durationpb"
	"google.golang.org/protobuf/types/known/fieldmaskpb"

	pb "smokeball.internal/tokenbroker/gen/tokenbroker/v1"
	"smokeball.internal/tokenbroker/internal/simulator"
)

// TestNoSecretIsFoundAnywhere takes secrets through every call, with success and
// with failure, and then looks for them in everything that was written.
func TestNoSecretIsFoundAnywhere(t *testing.T) {
	f := startFleet(t, 2, "--appendonly", "yes", "--appendfsync", "always", "--save", "3600 1")
	ctx := t.Context()
	tokens, tenants := pb.NewTokenServiceClient(f.conns[0]), pb.NewTenantServiceClient(f.conns[1])

	planted := map[string]string{} // :: what it is → the text
	plant := func(what string) string {
		planted[what] = "planted-" + strings.ReplaceAll(what, " ", "-") + "-Zx81"
		return planted[what]
	}
	var said strings.Builder // what the API says, but for the tokens it is asked for
	tell := func(m proto.Message, err error) {
		if err != nil {
			said.WriteString(err.Error() + "\n")
			said.WriteString(prototext.Format(status.Convert(err).Proto()) + "\n")
			for _, detail := range status.Convert(err).Details() {
				fmt.Fprintln(&said, detail)
			}
			return
		}
		said.WriteString(prototext.Format(m) + "\n")
	}
	got := 0
	obtain := func(tok *pb.Token, err error) {
		if err != nil {
			tell(nil, err)
			return
		}
		got++
		planted[fmt.Sprint("access token ", got)] = tok.GetAccessToken()
	}

	first, second := plant("client secret"), plant("rotated client secret")
	client := simulator.Client{Endpoint: "us/production", ID: "acme-client", Secrets: []string{first, second}, Scopes: []string{"matters/read"}, ExpiresIn: 8 * time.Second}
	f.issuer.SetClient(client)
	created, err := tenants.CreateTenant(ctx, &pb.CreateTenantRequest{TenantId: "acme", Tenant: &pb.Tenant{
		Region: pb.Region_REGION_US, ClientId: "acme-client", ClientSecret: first, ApiKey: plant("api key")}})
	tell(created, err)
	tell(tenants.CreateTenant(ctx, &pb.CreateTenantRequest{TenantId: "acme", Tenant: &pb.Tenant{
		Region: pb.Region_REGION_US, ClientId: "acme-client", ClientSecret: plant("secret of a duplicate"), ApiKey: plant("api key of a duplicate")}}))
	tell(tenants.CreateTenant(ctx, &pb.CreateTenantRequest{TenantId: "broken", Tenant: &pb.Tenant{
		Region: pb.Region_REGION_US, ClientId: "a:b", ClientSecret: plant("secret of an invalid request"), ApiKey: "x"}}))
	tell(tenants.CreateTenant(ctx, &pb.CreateTenantRequest{TenantId: "broken", Tenant: &pb.Tenant{
		Region: pb.Region_REGION_US, ClientId: "ab", ClientSecret: plant("invalid secret") + " \n", ApiKey: "x"}}))

	ask := func() {
		resp, err := tokens.GetToken(ctx, &pb.GetTokenRequest{Tenant: "tenants/acme"})
		obtain(resp.GetToken(), err)
	}
	ask()
	for range 2 { // The second time it is too soon.
		fresh, err := tokens.RefreshToken(ctx, &pb.RefreshTokenRequest{Tenant: "tenants/acme"})
		obtain(fresh.GetToken(), err)
	}
	tell(tenants.RotateClientSecret(ctx, &pb.RotateClientSecretRequest{Name: "tenants/acme", ClientSecret: plant("refused secret")}))
	tell(tenants.RotateClientSecret(ctx, &pb.RotateClientSecretRequest{Name: "tenants/acme", ClientSecret: second, FallbackTtl: durationpb.New(time.Hour)}))
	ask()
	tell(tenants.CheckTenant(ctx, &pb.CheckTenantRequest{Name: "tenants/acme"}))
	tell(tenants.UpdateTenant(ctx, &pb.UpdateTenantRequest{Tenant: &pb.Tenant{Name: "tenants/acme", ApiKey: plant("second api key"), ClientSecret: plant("updated wrong secret")},
		UpdateMask: &fieldmaskpb.FieldMask{Paths: []string{"api_key", "client_secret"}}}))
	tell(tenants.CheckTenant(ctx, &pb.CheckTenantRequest{Name: "tenants/acme"}))
	ask()
	// Now the issuer fails in every way it knows, some of them with a token in hand.
	tell(tenants.UpdateTenant(ctx, &pb.UpdateTenantRequest{Tenant: &pb.Tenant{Name: "tenants/acme", ClientSecret: second}}))
	leak := fmt.Sprintf(`{"error": %q, "access_token": %q}`, plant("error of the issuer"), plant("token in an error"))
	for _, fault := range []simulator.Fault{
		{Kind: simulator.KindStatus, Status: 400, Body: leak, ContentType: "application/json"},
		{Kind: simulator.KindStatus, Status: 500, Body: leak},
		{Kind: simulator.KindStatus, Status: 200, Body: leak, ContentType: "application/json"},
		{Kind: simulator.KindStatus, Status: 200, Body: "{" + leak},
		{Kind: simulator.KindTruncate}, {Kind: simulator.KindOversize}, {Kind: simulator.KindTokenType, TokenType: "mac"},
		{Kind: simulator.KindRedirect, Location: f.issuer.url + "/elsewhere"}, {Kind: simulator.KindReset},
	} {
		if err := f.issuer.SetFault("acme-client", fault); err != nil {
			t.Fatal(err)
		}
		tell(tenants.CheckTenant(ctx, &pb.CheckTenantRequest{Name: "tenants/acme"}))
		ask()
		got, err := tenants.GetTenant(ctx, &pb.GetTenantRequest{Name: "tenants/acme"})
		tell(got, err)
	}
	f.issuer.ClearFaults()
	tell(tenants.ListTenants(ctx, &pb.ListTenantsRequest{}))
	if got < 3 {
		t.Fatalf("%d tokens went through, want some:\n%s", got, said.String())
	}
	if err := f.redis.Client().Save(ctx).Err(); err != nil {
		t.Fatal(err)
	}

	places := map[string]string{"what the API said": said.String()}
	for n, replica := range f.replicas {
		places[fmt.Sprint("metrics of replica ", n)] = replica.get("/metrics")
		places[fmt.Sprint("status of replica ", n)] = replica.get("/status")
	}
	for n, replica := range f.replicas {
		if code := replica.terminate(); code != 0 {
			t.Errorf("replica %d exits with %d", n, code)
		}
		places[fmt.Sprint("log of replica ", n)] = replica.log.String()
	}
	err = filepath.WalkDir(f.redis.Dir(), func(path string, d os.DirEntry, err error) error {
		if err != nil || d.IsDir() {
			return err
		}
		content, err := os.ReadFile(path)
		places[path] = string(content)
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	rdb, aof := false, false
	for place, text := range places {
		rdb, aof = rdb || strings.HasSuffix(place, "dump.rdb"), aof || strings.HasSuffix(place, ".aof")
		if text == "" {
			t.Errorf("%s is empty: nothing was looked at", place)
		}
		for what, secret := range planted {
			basic := base64.StdEncoding.EncodeToString([]byte("acme-client:" + secret))
			if strings.Contains(text, secret) || strings.Contains(text, basic) {
				t.Errorf("%s is in %s", what, place)
			}
		}
	}
	if !rdb || !aof {
		t.Errorf("no RDB or no AOF among %d places", len(places))
	}
	t.Logf("%d secrets looked for in %d places", len(planted), len(places))
}

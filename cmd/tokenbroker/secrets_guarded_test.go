package main_test

import (
	"context"
	"encoding/base64"
	"encoding/pem"
	"fmt"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/encoding/prototext"
	"google.golang.org/protobuf/types/known/durationpb"

	pb "smokeball.internal/tokenbroker/gen/tokenbroker/v1"
	"smokeball.internal/tokenbroker/internal/simulator"
)

// TestNoSecretLeavesAProductionReplica is the hunt once more for what only a
// replica with TLS, rules, bearer tokens, an audit log and secrets in files has.
func TestNoSecretLeavesAProductionReplica(t *testing.T) {
	t.Parallel()
	planted := map[string]string{} // :: what it is → the text
	plant := func(what string) string {
		planted[what] = "planted-" + strings.ReplaceAll(what, " ", "-") + "-Qk27"
		return planted[what]
	}
	password := filepath.Join(t.TempDir(), "redis-password")
	if err := os.WriteFile(password, []byte(plant("redis password")+"\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	g := startGuarded(t, readerRule, withTokens, "--redis-password-file="+password)
	if err := g.redis.Client().ConfigSet(t.Context(), "requirepass", planted["redis password"]).Err(); err != nil {
		t.Fatal(err)
	}
	for name, file := range map[string]string{"server key": g.path("server-key.pem")} {
		content, err := os.ReadFile(file)
		if err != nil {
			t.Fatal(err)
		}
		block, _ := pem.Decode(content)
		planted[name] = base64.StdEncoding.EncodeToString(block.Bytes)[:60]
	}
	keyset, err := os.ReadFile(g.keyset)
	if err != nil {
		t.Fatal(err)
	}
	for n, value := range regexp.MustCompile(`"value":\s*"([^"]{30,})"`).FindAllStringSubmatch(string(keyset), -1) {
		planted[fmt.Sprint("key of the keyset ", n)] = value[1]
	}

	var said strings.Builder // what the API says, but for the tokens it is asked for
	tell := func(err error) {
		if err != nil {
			said.WriteString(prototext.Format(status.Convert(err).Proto()) + "\n")
		}
	}
	root := g.as(everything)
	tokens, tenants := pb.NewTokenServiceClient(root), pb.NewTenantServiceClient(root)
	got := 0
	obtain := func(resp interface{ GetToken() *pb.Token }, err error) {
		tell(err)
		if err == nil {
			got++
			planted[fmt.Sprint("access token ", got)] = resp.GetToken().GetAccessToken()
		}
	}
	first, second := plant("client secret"), plant("rotated client secret")
	client := simulator.Client{Endpoint: "us/production", ID: "client-acme", Secrets: []string{first, second}, Scopes: []string{"matters/read"}, ExpiresIn: time.Hour}
	g.issuer.SetClient(client)
	everyCall := func(conn *grpc.ClientConn) {
		for _, call := range calls {
			ctx, cancel := context.WithTimeout(t.Context(), 10*time.Second)
			tell(call(ctx, conn))
			cancel()
		}
	}
	create := func() {
		_, err := tenants.CreateTenant(soon(t), &pb.CreateTenantRequest{TenantId: "acme", Tenant: &pb.Tenant{
			Region: pb.Region_REGION_US, ClientId: "client-acme", ClientSecret: first, ApiKey: plant("api key")}})
		tell(err)
	}
	create()
	obtain(tokens.GetToken(soon(t), &pb.GetTokenRequest{Tenant: "tenants/acme"}))
	obtain(tokens.RefreshToken(soon(t), &pb.RefreshTokenRequest{Tenant: "tenants/acme"}))
	_, err = tenants.RotateClientSecret(soon(t), &pb.RotateClientSecretRequest{Name: "tenants/acme", ClientSecret: second, FallbackTtl: durationpb.New(time.Hour)})
	tell(err)
	obtain(tokens.GetToken(soon(t), &pb.GetTokenRequest{Tenant: "tenants/acme"}))
	everyCall(root)
	create()
	// Callers who prove nothing, or too little, in every way.
	for _, token := range []string{
		g.tokens.Sign(g.tokens.Claims("reader", tokenAudience)), g.tokens.Sign(g.tokens.Claims("nobody", tokenAudience)),
		g.tokens.Sign(g.tokens.Claims("reader", "vault")), plant("bearer token"),
	} {
		planted[fmt.Sprint("bearer token ", len(planted))] = token
		everyCall(g.dial(nil, token))
	}
	everyCall(g.dial(nil, ""))
	everyCall(g.as("spiffe://test.example/nobody"))
	// Files that are not what they should be, with secrets in them.
	for file, setting := range map[string]string{"access.yaml": "access-file", "jwks.json": "jwt-keys", "ca.pem": "client-ca-file", "server-key.pem": "tls-cert-file"} {
		g.write(file, []byte(plant("content of "+file)+": [\n"))
		until(t, setting+" stale", func() bool {
			return strings.Contains(g.get("/metrics"), fmt.Sprintf(`tokenbroker_setting_stale{setting=%q} 1`, setting))
		})
	}
	if err := os.WriteFile(g.keyset, []byte(plant("content of the keyset file")), 0o600); err != nil {
		t.Fatal(err)
	}
	until(t, "the keyset stale", func() bool { return strings.Contains(g.get("/metrics"), `{setting="keyset-file"} 1`) })
	everyCall(root)
	if got < 3 || len(planted) < 15 {
		t.Fatalf("%d tokens went through, %d secrets planted", got, len(planted))
	}

	places := map[string]string{"what the API said": said.String(), "metrics": g.get("/metrics"), "status": g.get("/status"), "readiness": g.get("/readyz")}
	for _, file := range []string{"cmdline", "environ"} {
		content, err := os.ReadFile(fmt.Sprintf("/proc/%d/%s", g.cmd.Process.Pid, file))
		if err != nil {
			t.Fatal(err)
		}
		places["/proc/PID/"+file] = string(content)
	}
	if code := g.terminate(); code != 0 {
		t.Errorf("exits with %d", code)
	}
	places["log"] = g.log.String()
	for _, path := range []string{g.path("audit.log")} {
		content, err := os.ReadFile(path)
		if err != nil {
			t.Fatal(err)
		}
		places["audit log"] = string(content)
	}
	err = filepath.WalkDir(g.redis.Dir(), func(path string, d os.DirEntry, err error) error {
		if err != nil || d.IsDir() || strings.HasSuffix(path, ".conf") {
			return err
		}
		content, err := os.ReadFile(path)
		places[filepath.Base(path)] = string(content)
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	for place, text := range places {
		if text == "" {
			t.Errorf("%s is empty", place)
		}
		for what, secret := range planted {
			if strings.Contains(text, secret) {
				t.Errorf("%s is in %s", what, place)
			}
		}
	}
	t.Logf("%d secrets looked for in %d places", len(planted), len(places))
	for _, want := range []string{"GetToken", "RotateClientSecret", `"outcome":"denied"`, `"event":"refused"`} {
		if !strings.Contains(places["audit log"], want) {
			t.Errorf("%s is not in the audit log", want)
		}
	}
}

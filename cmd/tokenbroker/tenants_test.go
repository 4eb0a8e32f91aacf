package main_test

import (
	"bytes"
	"encoding/base64"
	"encoding/hex"
	"fmt"
	"log/slog"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/durationpb"

	pb "smokeball.internal/tokenbroker/gen/tokenbroker/v1"
	"smokeball.internal/tokenbroker/internal/redisstore"
	"smokeball.internal/tokenbroker/internal/redisstore/redistest"
	"smokeball.internal/tokenbroker/internal/seal"
	"smokeball.internal/tokenbroker/internal/secret"
	"smokeball.internal/tokenbroker/internal/simulator"
	"smokeball.internal/tokenbroker/internal/tenant"
)

// verb runs the binary to its end. What an import may do is for the command line
// alone to say.
func verb(t *testing.T, stdin string, args ...string) (stdout, stderr string, code int) {
	t.Helper()
	cmd := exec.CommandContext(t.Context(), binary, args...)
	cmd.Env = []string{"TOKENBROKER_OVERWRITE=true", "TOKENBROKER_DRY_RUN=true"}
	var out, said bytes.Buffer
	cmd.Stdin, cmd.Stdout, cmd.Stderr = strings.NewReader(stdin), &out, &said
	_ = cmd.Run()
	return out.String(), said.String(), cmd.ProcessState.ExitCode()
}

// wantVerb runs the binary, which must say exactly this and exit with 0.
func wantVerb(t *testing.T, says string, args ...string) {
	t.Helper()
	if stdout, stderr, code := verb(t, "", args...); stdout != says+"\n" || stderr != "" || code != 0 {
		t.Errorf("%v: exit code %d, %q, %q; want %q", args, code, stdout, stderr, says)
	}
}

// where are the arguments that name a Redis and a keyset.
func where(redis *redistest.Server, keyset string, more ...string) []string {
	return append([]string{"--redis-url=" + redis.URL(), "--keyset-file=" + keyset}, more...)
}

func export(redis *redistest.Server, keyset, file string) []string {
	return append([]string{"tenants", "export", file}, where(redis, keyset)...)
}

func importing(redis *redistest.Server, keyset, file string, more ...string) []string {
	return append([]string{"tenants", "import", file}, where(redis, keyset, more...)...)
}

// registered puts tenants straight into Redis: firm-N for each N of a range.
func registered(t *testing.T, redis *redistest.Server, keyset string, first, behind int) {
	t.Helper()
	keys, err := seal.Load(t.Context(), keyset)
	if err != nil {
		t.Fatal(err)
	}
	store, err := redisstore.Open(redisstore.Config{URL: redis.URL(), Prefix: "tokenbroker:", Keyset: keys, Logger: slog.New(slog.DiscardHandler)})
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = store.Close() }()
	var creators sync.WaitGroup
	for c := range 4 {
		creators.Go(func() {
			for i := first + c; i < behind; i += 4 {
				_, err := store.CreateTenant(t.Context(), tenant.Tenant{ID: fmt.Sprint("firm-", i), Region: tenant.US, Environment: tenant.Production,
					ClientID: "client", Secret: tenant.Secret{Value: secret.New("planted-secret")}})
				if err != nil {
					t.Error(err)
				}
			}
		})
	}
	creators.Wait()
}

func flush(t *testing.T, redis *redistest.Server) {
	t.Helper()
	if err := redis.Client().FlushAll(t.Context()).Err(); err != nil {
		t.Fatal(err)
	}
}

// registerEveryKind registers tenants that have every field there is, and
// returns the secrets in them.
func registerEveryKind(t *testing.T, conn *grpc.ClientConn, issuer *issuer) (planted []string) {
	t.Helper()
	for _, id := range []string{"held-a", "held-b", "never-asked"} {
		register(t, conn, issuer, id, time.Hour)
		planted = append(planted, "secret-of-"+id, "api-key-of-"+id)
	}
	tenants := pb.NewTenantServiceClient(conn)
	issuer.SetClient(simulator.Client{Endpoint: "au/staging", ID: "client-full", Secrets: []string{"second-secret-of-full"}, Scopes: []string{"matters/read"}})
	if _, err := tenants.CreateTenant(t.Context(), &pb.CreateTenantRequest{TenantId: "full", Tenant: &pb.Tenant{
		DisplayName: "Full & Söhne", Region: pb.Region_REGION_AU, Environment: pb.Environment_ENVIRONMENT_STAGING, ClientId: "client-full",
		ClientSecret: "first-secret-of-full", ApiKey: "api-key-of-full", AccountId: "4b8d", Scopes: []string{"matters/read"}, KeepWarm: true,
		State: pb.Tenant_STATE_DISABLED, Labels: map[string]string{"team": "billing"}}}); err != nil {
		t.Fatal(err)
	}
	if _, err := tenants.RotateClientSecret(t.Context(), &pb.RotateClientSecretRequest{Name: "tenants/full", ClientSecret: "second-secret-of-full",
		FallbackTtl: durationpb.New(time.Hour)}); err != nil {
		t.Fatal(err)
	}
	return append(planted, "first-secret-of-full", "second-secret-of-full", "api-key-of-full")
}

func TestReplicasServeThroughALossAndAllTenantsAfterTheImport(t *testing.T) {
	redis, issuer, keyset := redistest.Start(t), startIssuer(t), keysetFile(t)
	var replicas []*process
	var conns []*grpc.ClientConn
	for range 2 {
		replicas = append(replicas, start(t, serveArgs(redis.URL(), keyset, issuer)...))
		conns = append(conns, replicas[len(replicas)-1].ready().connect())
	}
	planted := registerEveryKind(t, conns[0], issuer)
	list := func(conn *grpc.ClientConn) *pb.ListTenantsResponse {
		resp, err := pb.NewTenantServiceClient(conn).ListTenants(t.Context(), &pb.ListTenantsRequest{})
		if err != nil {
			t.Fatal(err)
		}
		return resp
	}
	before, held := list(conns[0]), map[string]string{} // :: tenant → token id
	wantHeld := func(when string) {
		t.Helper()
		for n, conn := range conns {
			for _, id := range []string{"held-a", "held-b"} {
				tok, err := get(t.Context(), conn, id)
				if held[id] == "" {
					held[id] = tok.GetTokenId()
				}
				if err != nil || tok.GetTokenId() != held[id] || issuer.Bought("client-"+id) != 1 {
					t.Errorf("%s: %s on replica %d: %v, %d tokens bought", when, id, n, err, issuer.Bought("client-"+id))
				}
			}
		}
	}
	wantHeld("before the loss")
	file := filepath.Join(t.TempDir(), "tenants.jsonl")
	wantVerb(t, "exported 4 to "+file+", unreadable 0: keep it apart from the keyset, which opens it", export(redis, keyset, file)...)
	wantNoneIn(t, file, planted)

	flush(t, redis)
	all := func(says string) bool {
		return !slices.ContainsFunc(replicas, func(p *process) bool { return !strings.Contains(p.log.String(), says) })
	}
	until(t, "told of the loss", func() bool { return all("the registry of tenants is gone from redis") })
	status := func(lost bool) {
		t.Helper()
		for n, p := range replicas {
			if got := p.get("/status"); strings.Contains(got, "The registry of tenants is gone") != lost {
				t.Errorf("status of replica %d: %s", n, got)
			}
		}
	}
	status(true)
	wantHeld("after the loss")
	if _, err := get(t.Context(), conns[1], "never-asked"); err == nil {
		t.Error("a tenant that is nowhere is served")
	}

	wantVerb(t, "imported 4, already there 0, different and left 0, unreadable 0", importing(redis, keyset, file)...)
	wantHeld("after the import")
	for n, conn := range conns {
		if _, err := get(t.Context(), conn, "never-asked"); err != nil {
			t.Errorf("one that replica %d had never been asked for: %v", n, err)
		}
		if _, err := get(t.Context(), conn, "full"); reason(err) != "FailedPrecondition/TENANT_DISABLED" {
			t.Errorf("one that is disabled: %v", err)
		}
		if after := list(conn); !proto.Equal(after, before) {
			t.Errorf("tenants on replica %d:\n%v\nbefore the loss:\n%v", n, after, before)
		}
	}
	until(t, "told that the registry is back", func() bool { return all("the registry of tenants is back") })
	status(false)
	wantHeld("in the end")
	wantVerb(t, "imported 0, already there 4, different and left 0, unreadable 0", importing(redis, keyset, file)...)
	// The secrets came back too: the one before is tried when the new one is refused.
	issuer.SetClient(simulator.Client{Endpoint: "au/staging", ID: "client-full", Secrets: []string{"first-secret-of-full"}, Scopes: []string{"matters/read"}})
	if _, err := pb.NewTenantServiceClient(conns[0]).UpdateTenant(t.Context(), &pb.UpdateTenantRequest{Tenant: &pb.Tenant{Name: "tenants/full", State: pb.Tenant_STATE_ACTIVE}}); err != nil {
		t.Fatal(err)
	}
	if tok, err := get(t.Context(), conns[0], "full"); err != nil || tok.GetApiKey() != "api-key-of-full" {
		t.Errorf("with the secret before: %v", err)
	}
}

// wantNoneIn looks for secrets in a file that only its owner may read.
func wantNoneIn(t *testing.T, file string, planted []string) {
	t.Helper()
	content, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	if info, err := os.Stat(file); err != nil || info.Mode().Perm() != 0o600 {
		t.Errorf("%v, %v", info.Mode(), err)
	}
	for _, secret := range planted {
		for _, form := range []string{secret, hex.EncodeToString([]byte(secret)), strings.TrimRight(base64.StdEncoding.EncodeToString([]byte(secret)), "=")} {
			if bytes.Contains(content, []byte(form)) {
				t.Errorf("%s is in the file", secret)
			}
		}
	}
}

func TestAnImportThatIsKilledIsFinishedByTheNext(t *testing.T) {
	redis, keyset := redistest.Start(t), keysetFile(t)
	const n = 5000
	registered(t, redis, keyset, 0, n)
	file := filepath.Join(t.TempDir(), "tenants.jsonl")
	wantVerb(t, fmt.Sprintf("exported %d to %s, unreadable 0: keep it apart from the keyset, which opens it", n, file), export(redis, keyset, file)...)
	flush(t, redis)
	connected := func() int { return strings.Count(redis.Client().ClientList(t.Context()).Val(), "\n") }
	others := connected()
	cmd := exec.CommandContext(t.Context(), binary, importing(redis, keyset, file)...)
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	count := func(key string) int64 { return redis.Client().HLen(t.Context(), key).Val() }
	const records = "tokenbroker:{tenants}:records"
	for deadline := time.Now().Add(20 * time.Second); count(records) == 0 && time.Now().Before(deadline); {
	}
	_ = cmd.Process.Kill()
	_ = cmd.Wait()
	// What it had sent by then is done before its connections end.
	until(t, "rid of who was killed", func() bool { return connected() <= others })
	done := count(records)
	if done == 0 || done == n {
		t.Fatalf("not killed in the middle: %d imported", done)
	}
	// Who held the others does not take them for deleted.
	if name := redis.Client().Exists(t.Context(), "tokenbroker:{tenants}:registry").Val(); name != 0 {
		t.Error("half a registry has the name of the whole")
	}
	t.Logf("killed after %d tenants", done)
	wantVerb(t, fmt.Sprintf("imported %d, already there %d, different and left 0, unreadable 0", n-done, done), importing(redis, keyset, file)...)
	wantVerb(t, fmt.Sprintf("imported 0, already there %d, different and left 0, unreadable 0", n), importing(redis, keyset, file)...)
	if index := redis.Client().ZCard(t.Context(), "tokenbroker:{tenants}:index").Val(); index != n {
		t.Errorf("%d in the index", index)
	}
}

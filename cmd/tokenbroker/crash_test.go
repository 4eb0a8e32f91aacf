package main_test

import (
	"context"
	"fmt"
	"maps"
	"slices"
	"sync"
	"testing"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/proto"

	pb "smokeball.internal/tokenbroker/gen/tokenbroker/v1"
	"smokeball.internal/tokenbroker/internal/redisstore/redistest"
	"smokeball.internal/tokenbroker/internal/simulator"
)

// registrations is what creators of tenants were told.
type registrations struct {
	mu           sync.Mutex
	acknowledged map[string]*pb.Tenant // as the answer had them
	unknown      map[string]error      // without an answer that says whether they are registered
}

// TestWhatWasAcknowledgedSurvivesFiftyCrashesOfRedis kills Redis again and again
// while tenants are registered. With appendfsync always, what was acknowledged is
// there afterwards, whole; of the rest there is all or nothing.
func TestWhatWasAcknowledgedSurvivesFiftyCrashesOfRedis(t *testing.T) {
	t.Parallel()
	const crashes, replicas, creators = 50, 2, 6
	store := redistest.Start(t, "--appendonly", "yes", "--appendfsync", "always")
	keyset, issuer := keysetFile(t), startIssuer(t)
	var conns []*grpc.ClientConn
	for range replicas {
		conns = append(conns, start(t, serveArgs(store.URL(), keyset, issuer, "--log-level=info", "--exchange-rate=1000")...).ready().connect())
	}
	told := &registrations{acknowledged: map[string]*pb.Tenant{}, unknown: map[string]error{}}
	ctx, cancel := context.WithCancel(t.Context())
	var creating sync.WaitGroup
	for n := range creators {
		creating.Go(func() { told.create(ctx, t, conns[n%replicas], issuer, fmt.Sprintf("firm-%d", n)) })
	}
	for range crashes {
		before := told.count()
		// Each crash is in the middle of work: some were registered since the last.
		until(t, "registering", func() bool { return told.count() > before+creators })
		store.Kill()
		store.Restart()
	}
	cancel()
	creating.Wait()
	for _, conn := range conns { // For a second, the replicas do not try to reach it.
		until(t, "in reach of Redis", func() bool {
			_, err := pb.NewTenantServiceClient(conn).ListTenants(t.Context(), &pb.ListTenantsRequest{})
			return err == nil
		})
	}

	records := store.Client().HKeys(t.Context(), "tokenbroker:{tenants}:records").Val()
	slices.Sort(records)
	listed := list(t, conns[0])
	warm := maps.Clone(listed)
	maps.DeleteFunc(warm, func(_ string, tenant *pb.Tenant) bool { return !tenant.GetKeepWarm() })
	for index, want := range map[string][]string{"index": records, "warm": slices.Sorted(maps.Keys(warm)), "secrets": records} {
		got := store.Client().ZRange(t.Context(), "tokenbroker:{tenants}:"+index, 0, -1).Val()
		slices.Sort(got)
		if len(got) == 0 || !slices.Equal(got, want) {
			t.Errorf("%s: %d places for %d records, or not of the same tenants", index, len(got), len(want))
		}
	}
	if got := slices.Sorted(maps.Keys(listed)); !slices.Equal(got, records) {
		t.Errorf("%d tenants listed, %d stored", len(got), len(records))
	}
	for id, want := range told.acknowledged {
		compare(t, conns[1], id, listed[id], want)
	}
	surprising := 0 // Registered, though nobody was told.
	for id := range told.unknown {
		if slices.Contains(records, id) {
			surprising++
		}
	}
	t.Logf("%d crashes: %d tenants acknowledged, %d not; %d present, of which %d were not acknowledged",
		crashes, len(told.acknowledged), len(told.unknown), len(records), surprising)
	if len(records) != len(told.acknowledged)+surprising {
		t.Errorf("%d tenants, %d expected", len(records), len(told.acknowledged)+surprising)
	}
	if len(told.unknown) == 0 {
		t.Error("no crash was in the middle of a registration: nothing was shown")
	}
}

// compare says whether a tenant is in a list, and is served, as it was
// acknowledged. Its secrets are not shown: whether they are right shows at the
// issuer, and in what comes with its token.
func compare(t *testing.T, conn *grpc.ClientConn, id string, listed, want *pb.Tenant) {
	t.Helper()
	resp, err := pb.NewTenantServiceClient(conn).GetTenant(t.Context(), &pb.GetTenantRequest{Name: "tenants/" + id})
	if err != nil {
		t.Errorf("%s was acknowledged: %v", id, err)
		return
	}
	got := resp.GetTenant()
	got.Status = nil // Not part of the record.
	if !proto.Equal(got, want) || !proto.Equal(listed, want) {
		t.Errorf("%s was acknowledged as\n%v\nis\n%v\nand listed as\n%v", id, want, got, listed)
	}
	if tok, err := get(t.Context(), conn, id); err != nil || tok.GetApiKey() != "api-key-of-"+id {
		t.Errorf("%s: a token with the api key %q, %v", id, tok.GetApiKey(), err)
	}
}

// create registers one tenant after the other, each under an id of its own, and
// notes what it is told.
func (r *registrations) create(ctx context.Context, t *testing.T, conn *grpc.ClientConn, issuer *issuer, name string) {
	admin := pb.NewTenantServiceClient(conn)
	for n := 0; ctx.Err() == nil; n++ {
		id := fmt.Sprintf("%s-%d", name, n)
		issuer.SetClient(simulator.Client{Endpoint: "au/staging", ID: "client-" + id, Secrets: []string{"secret-of-" + id}, Scopes: []string{"matters/read"}})
		resp, err := admin.CreateTenant(ctx, &pb.CreateTenantRequest{TenantId: id, Tenant: &pb.Tenant{
			DisplayName: "The firm " + id, Region: pb.Region_REGION_AU, Environment: pb.Environment_ENVIRONMENT_STAGING,
			ClientId: "client-" + id, ClientSecret: "secret-of-" + id, ApiKey: "api-key-of-" + id,
			AccountId: "account-of-" + id, Scopes: []string{"matters/read"}, KeepWarm: n%10 == 0, Labels: map[string]string{"id": id},
		}})
		r.note(id, resp.GetTenant(), err)
		switch status.Code(err) {
		case codes.OK:
		case codes.Unavailable, codes.Canceled:
			// Redis is away, and ids are not to be wasted by the thousand.
			select {
			case <-time.After(20 * time.Millisecond):
			case <-ctx.Done():
			}
		default: // ALREADY_EXISTS above all: nobody else uses this id.
			t.Errorf("CreateTenant(%s): %v", id, err)
		}
	}
}

func (r *registrations) note(id string, acknowledged *pb.Tenant, err error) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if err != nil {
		r.unknown[id] = err
		return
	}
	r.acknowledged[id] = acknowledged
}

func (r *registrations) count() int {
	r.mu.Lock()
	defer r.mu.Unlock()
	return len(r.acknowledged)
}

// list returns all tenants, page by page.
func list(t *testing.T, conn *grpc.ClientConn) map[string]*pb.Tenant {
	t.Helper()
	tenants := map[string]*pb.Tenant{}
	for token := ""; ; {
		resp, err := pb.NewTenantServiceClient(conn).ListTenants(t.Context(), &pb.ListTenantsRequest{PageSize: 100, PageToken: token})
		if err != nil {
			t.Fatal(err)
		}
		for _, tenant := range resp.GetTenants() {
			tenants[tenant.GetName()[len("tenants/"):]] = tenant
		}
		if token = resp.GetNextPageToken(); token == "" {
			return tenants
		}
	}
}

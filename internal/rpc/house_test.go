package rpc_test

import (
	"bytes"
	"context"
	"log/slog"
	"net"
	"net/http/httptest"
	"sync"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/redis/go-redis/v9"
	"go.opentelemetry.io/otel/trace"
	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials/insecure"
	healthpb "google.golang.org/grpc/health/grpc_health_v1"
	"google.golang.org/grpc/test/bufconn"

	pb "smokeball.internal/tokenbroker/gen/tokenbroker/v1"
	"smokeball.internal/tokenbroker/internal/access"
	"smokeball.internal/tokenbroker/internal/audit"
	"smokeball.internal/tokenbroker/internal/broker"
	"smokeball.internal/tokenbroker/internal/logging"
	"smokeball.internal/tokenbroker/internal/redisstore"
	"smokeball.internal/tokenbroker/internal/rpc"
	"smokeball.internal/tokenbroker/internal/seal"
	"smokeball.internal/tokenbroker/internal/simulator"
	"smokeball.internal/tokenbroker/internal/smokeball"
	"smokeball.internal/tokenbroker/internal/tenant"
)

// house is the whole service as cmd puts it together, behind a gRPC connection
// in memory, with the simulated issuer and the embedded store.
type house struct {
	tokens  pb.TokenServiceClient
	tenants pb.TenantServiceClient
	health  healthpb.HealthClient
	conn    *grpc.ClientConn

	server  *rpc.Server
	metrics *prometheus.Registry
	sim     *simulator.Simulator
	redis   *redis.Client // past the store, to see and to spoil what is in it
	log     *record

	stopRedis func() // returns when nothing listens any more
}

// furniture is what a test may have otherwise than in production.
type furniture struct {
	level   slog.Level                          // of the log; zero: info
	issuer  func(broker.Issuer) broker.Issuer   // puts itself before the real one
	records func(broker.Records) broker.Records // the same
	places  func(smokeball.Overrides)           // changes where tokens are asked for
	guard   func(*broker.Broker) *access.Guard  // nil: everyone may do everything
	audit   *audit.Log                          // nil: kept nowhere
	tracer  trace.Tracer                        // nil: there are no traces
	bare    bool                                // calls are not counted
}

// at is a context for calls, with more time than any of them needs.
func at(t testing.TB) context.Context {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), 20*time.Second)
	t.Cleanup(cancel)
	return ctx
}

func newHouse(t testing.TB, f furniture) *house {
	t.Helper()
	h := &house{log: &record{}, sim: simulator.New(), metrics: prometheus.NewRegistry()}
	log := logging.New(h.log, logging.JSON, f.level)

	issuing := httptest.NewServer(h.sim)
	t.Cleanup(issuing.Close)
	t.Cleanup(h.sim.Close) // Before the server, which waits for its requests.
	overrides := smokeball.Overrides{}
	for _, region := range tenant.Regions() {
		for _, environment := range tenant.Environments() {
			place := smokeball.Place{Region: region, Environment: environment}
			overrides[place] = smokeball.Addresses{TokenEndpoint: issuing.URL + "/" + place.String() + "/oauth2/token"}
		}
	}
	if f.places != nil {
		f.places(overrides)
	}

	embedded, err := redisstore.StartEmbedded()
	if err != nil {
		t.Fatal(err)
	}
	url := embedded.URL()
	h.stopRedis = sync.OnceFunc(embedded.Close)
	t.Cleanup(h.stopRedis)
	options, err := redis.ParseURL(url)
	if err != nil {
		t.Fatal(err)
	}
	h.redis = redis.NewClient(options)
	t.Cleanup(func() { _ = h.redis.Close() })
	keyset, err := seal.Ephemeral()
	if err != nil {
		t.Fatal(err)
	}
	store, err := redisstore.Open(redisstore.Config{URL: url, Prefix: "tokenbroker:", Keyset: keyset, Logger: log})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = store.Close() })

	var issuer broker.Issuer = smokeball.New(overrides)
	if f.issuer != nil {
		issuer = f.issuer(issuer)
	}
	var records broker.Records = store
	if f.records != nil {
		records = f.records(records)
	}
	tokens := broker.New(broker.Config{Issuer: issuer, Store: store, Tenants: records, Logger: log, Tracer: f.tracer})
	t.Cleanup(tokens.Close)
	guard := access.Unguarded(tokens)
	if f.guard != nil {
		guard = f.guard(tokens)
	}
	config := rpc.Config{
		Broker: tokens, Registry: broker.NewRegistry(tokens, records), Logger: log, Metrics: h.metrics, Guard: guard, Audit: f.audit, Tracer: f.tracer,
	}
	if f.bare {
		config.Metrics = nil
	}
	h.server, err = rpc.NewServer(config)
	if err != nil {
		t.Fatal(err)
	}
	h.connect(t)
	return h
}

// connect serves on a connection in memory and makes the clients.
func (h *house) connect(t testing.TB) {
	t.Helper()
	listener := bufconn.Listen(1 << 20)
	served := make(chan error, 1)
	go func() { served <- h.server.Serve(listener) }()
	t.Cleanup(func() {
		now, cancel := context.WithCancel(context.Background())
		cancel()
		h.server.Drain(now)
		if err := <-served; err != nil {
			t.Errorf("Serve: %v", err)
		}
	})
	conn, err := grpc.NewClient("passthrough:///bufconn",
		grpc.WithContextDialer(func(ctx context.Context, _ string) (net.Conn, error) { return listener.DialContext(ctx) }),
		grpc.WithTransportCredentials(insecure.NewCredentials()),
		// What a call was answered is looked at here, not what a repetition was.
		grpc.WithDisableRetry())
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = conn.Close() })
	h.conn = conn
	h.tokens = pb.NewTokenServiceClient(conn)
	h.tenants = pb.NewTenantServiceClient(conn)
	h.health = healthpb.NewHealthClient(conn)
}

// The scopes that simulated clients may ask for.
var approved = []string{"contacts/read", "documents/read", "matters/read", "matters/write"}

// fresh is a tenant that can be registered under this id; client tells the
// simulator of its credentials.
func fresh(id string) *pb.Tenant {
	return &pb.Tenant{Region: pb.Region_REGION_US, ClientId: id + "-client", ClientSecret: id + "-secret", ApiKey: id + "-key"}
}

func client(id string) simulator.Client {
	return simulator.Client{Endpoint: "us/production", ID: id + "-client", Secrets: []string{id + "-secret"}, Scopes: approved}
}

// register registers a fresh tenant, as changed, that the issuer knows.
func (h *house) register(t testing.TB, id string, change ...func(*pb.Tenant)) *pb.Tenant {
	t.Helper()
	h.sim.SetClient(client(id))
	p := fresh(id)
	for _, c := range change {
		c(p)
	}
	resp, err := h.tenants.CreateTenant(at(t), &pb.CreateTenantRequest{TenantId: id, Tenant: p})
	if err != nil {
		t.Fatalf("CreateTenant %s: %v", id, err)
	}
	return resp.GetTenant()
}

// token gets a token that there must be.
func (h *house) token(t testing.TB, id string, scopes ...string) *pb.Token {
	t.Helper()
	resp, err := h.tokens.GetToken(at(t), &pb.GetTokenRequest{Tenant: "tenants/" + id, Scopes: scopes})
	if err != nil {
		t.Fatalf("GetToken %s: %v", id, err)
	}
	return resp.GetToken()
}

// tenant reads a tenant that there must be.
func (h *house) tenant(t testing.TB, id string) *pb.Tenant {
	t.Helper()
	resp, err := h.tenants.GetTenant(at(t), &pb.GetTenantRequest{Name: "tenants/" + id})
	if err != nil {
		t.Fatalf("GetTenant %s: %v", id, err)
	}
	return resp.GetTenant()
}

// fault makes the issuer fail for the tenant's client.
func (h *house) fault(t testing.TB, id string, f simulator.Fault) {
	t.Helper()
	if err := h.sim.SetFault(id+"-client", f); err != nil {
		t.Fatal(err)
	}
}

// record is a log that can be read while it is written.
type record struct {
	mu   sync.Mutex
	text bytes.Buffer
}

func (r *record) Write(p []byte) (int, error) {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.text.Write(p)
}

func (r *record) String() string {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.text.String()
}

// eventually waits until it is so.
func eventually(t testing.TB, what string, so func() bool) {
	t.Helper()
	deadline := time.After(10 * time.Second)
	again := time.NewTicker(5 * time.Millisecond)
	defer again.Stop()
	for !so() {
		select {
		case <-again.C:
		case <-deadline:
			t.Fatalf("not within 10 s: %s", what)
		}
	}
}

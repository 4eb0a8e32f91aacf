package main_test

import (
	"context"
	"fmt"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"google.golang.org/genproto/googleapis/rpc/errdetails"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/types/known/durationpb"

	pb "smokeball.internal/tokenbroker/gen/tokenbroker/v1"
	"smokeball.internal/tokenbroker/internal/redisstore/redistest"
	"smokeball.internal/tokenbroker/internal/simulator"
)

// fleet is some replicas on one Redis.
type fleet struct {
	redis    *redistest.Server
	issuer   *issuer
	replicas []*process
	conns    []*grpc.ClientConn
}

func startFleet(t *testing.T, n int, redisArgs ...string) *fleet {
	t.Helper()
	f := &fleet{redis: redistest.Start(t, redisArgs...), issuer: startIssuer(t)}
	keyset := keysetFile(t)
	for range n {
		f.replicas = append(f.replicas, start(t, serveArgs(f.redis.URL(), keyset, f.issuer)...))
	}
	for _, replica := range f.replicas {
		f.conns = append(f.conns, replica.ready().connect())
	}
	return f
}

// get asks a replica for a token.
func get(ctx context.Context, conn *grpc.ClientConn, id string) (*pb.Token, error) {
	resp, err := pb.NewTokenServiceClient(conn).GetToken(ctx, &pb.GetTokenRequest{Tenant: "tenants/" + id})
	return resp.GetToken(), err
}

// reason returns the code and ErrorInfo.reason of an error.
func reason(err error) string {
	for _, detail := range status.Convert(err).Details() {
		if info, ok := detail.(*errdetails.ErrorInfo); ok {
			return status.Code(err).String() + "/" + info.GetReason()
		}
	}
	return status.Code(err).String()
}

func TestThreeReplicasBuyOneTokenForThousandsOfCallers(t *testing.T) {
	f := startFleet(t, 3)
	const tenants, callers = 20, 1000
	for n := range tenants {
		register(t, f.conns[0], f.issuer, fmt.Sprintf("firm-%d", n), time.Hour)
	}
	var waiting sync.WaitGroup
	var answered atomic.Int64
	begin := make(chan struct{})
	tokens := make([]sync.Map, tenants) // :: token id → true
	for _, conn := range f.conns {
		for n := range callers {
			waiting.Go(func() {
				<-begin
				tok, err := get(t.Context(), conn, fmt.Sprintf("firm-%d", n%tenants))
				if err != nil || tok.GetAccessToken() == "" || tok.GetApiKey() != fmt.Sprintf("api-key-of-firm-%d", n%tenants) {
					t.Errorf("GetToken(firm-%d) = %v", n%tenants, err)
					return
				}
				tokens[n%tenants].Store(tok.GetTokenId(), true)
				answered.Add(1)
			})
		}
	}
	close(begin)
	waiting.Wait()
	bought := 0
	for n := range tenants {
		bought += f.issuer.Bought(fmt.Sprintf("client-firm-%d", n))
		different := 0
		tokens[n].Range(func(any, any) bool { different++; return true })
		if different != 1 {
			t.Errorf("firm-%d: %d different tokens", n, different)
		}
	}
	t.Logf("%d callers on 3 replicas answered, %d tenants, %d exchanges", answered.Load(), tenants, bought)
	if bought != tenants || f.issuer.Requests(simulator.AllClients) != tenants {
		t.Errorf("%d tokens bought with %d requests, want %d", bought, f.issuer.Requests(simulator.AllClients), tenants)
	}
}

func TestAReplicaKilledInTheMiddleOfAnExchangeIsReplaced(t *testing.T) {
	f := startFleet(t, 2)
	register(t, f.conns[0], f.issuer, "acme", time.Hour)
	if err := f.issuer.SetFault("client-acme", simulator.Fault{Kind: simulator.KindHang, Times: 1}); err != nil {
		t.Fatal(err)
	}
	go func() { _, _ = get(context.Background(), f.conns[0], "acme") }()
	until(t, "in the middle of an exchange", func() bool { return f.issuer.Requests("client-acme") == 1 })
	keys := f.redis.Client().Keys(t.Context(), "tokenbroker:lease:*").Val()
	if len(keys) != 1 {
		t.Fatalf("leases: %v", keys)
	}
	left := f.redis.Client().PTTL(t.Context(), keys[0]).Val()
	f.replicas[0].kill()
	killed := time.Now()
	if _, err := get(t.Context(), f.conns[1], "acme"); err != nil {
		t.Fatal(err)
	}
	took := time.Since(killed)
	t.Logf("another replica answered %v after the kill, the lease had %v left", took.Round(10*time.Millisecond), left)
	// It cannot have been sooner but by ignoring the lease, and then it would have
	// taken no time; the second beyond is for a slow machine.
	if took > left+time.Second {
		t.Errorf("took %v", took)
	}
}

func TestAWrongSecretIsTriedOnceByTheFleetUntilItIsRotated(t *testing.T) {
	f := startFleet(t, 3)
	register(t, f.conns[0], f.issuer, "acme", time.Hour)
	f.issuer.SetClient(simulator.Client{Endpoint: "us/production", ID: "client-acme", Secrets: []string{"the-right-one"}})
	for range 10 {
		for _, conn := range f.conns {
			if _, err := get(t.Context(), conn, "acme"); reason(err) != "FailedPrecondition/CREDENTIALS_REJECTED" {
				t.Errorf("GetToken: %v", err)
			}
		}
	}
	if got := f.issuer.Requests("client-acme"); got != 1 {
		t.Errorf("%d exchanges with a wrong secret", got)
	}
	admin := pb.NewTenantServiceClient(f.conns[1])
	rotate := func(secret string) error {
		_, err := admin.RotateClientSecret(t.Context(), &pb.RotateClientSecretRequest{Name: "tenants/acme", ClientSecret: secret, FallbackTtl: durationpb.New(0)})
		return err
	}
	if err := rotate("another-wrong-one"); reason(err) != "FailedPrecondition/CREDENTIALS_REJECTED" {
		t.Errorf("rotation to a wrong secret: %v", err)
	}
	if err := rotate("the-right-one"); err != nil {
		t.Fatal(err)
	}
	for n, conn := range f.conns {
		if _, err := get(t.Context(), conn, "acme"); err != nil {
			t.Errorf("replica %d right after the rotation: %v", n, err)
		}
	}
	// One try of the wrong one, one of the other wrong one, and one of the right
	// one, by the rotation itself.
	if got := f.issuer.Requests("client-acme"); got != 3 || f.issuer.Bought("client-acme") != 1 {
		t.Errorf("%d exchanges, %d tokens", got, f.issuer.Bought("client-acme"))
	}
}

func TestWhatIsStoredLivesAsLongAsTheIssuerSays(t *testing.T) {
	f := startFleet(t, 1)
	for _, seconds := range []int{3600, 300, 5} {
		id := fmt.Sprintf("firm-%d", seconds)
		register(t, f.conns[0], f.issuer, id, time.Duration(seconds)*time.Second)
		before := f.redis.Client().Keys(t.Context(), "tokenbroker:token:*").Val()
		asked := time.Now()
		tok, err := get(t.Context(), f.conns[0], id)
		if err != nil {
			t.Fatal(err)
		}
		lifetime := time.Duration(seconds) * time.Second
		if left := tok.GetRemaining().AsDuration(); left > lifetime || left < lifetime-time.Since(asked)-time.Second {
			t.Errorf("%v: remaining %v", lifetime, left)
		}
		for _, key := range f.redis.Client().Keys(t.Context(), "tokenbroker:token:*").Val() {
			ttl := f.redis.Client().PTTL(t.Context(), key).Val()
			if slices.Contains(before, key) {
				continue
			}
			t.Logf("expires_in %d: PTTL %v", seconds, ttl)
			// exp and Date of the answer are whole seconds: one may be lost between.
			if ttl > lifetime || ttl < lifetime-time.Since(asked)-time.Second {
				t.Errorf("%v: PTTL %v", lifetime, ttl)
			}
		}
	}
	// A refusal, too.
	f.issuer.SetClient(simulator.Client{Endpoint: "us/production", ID: "client-wrong", Secrets: []string{"x"}})
	register(t, f.conns[0], f.issuer, "wrong", time.Hour)
	f.issuer.SetClient(simulator.Client{Endpoint: "us/production", ID: "client-wrong", Secrets: []string{"x"}})
	_, _ = get(t.Context(), f.conns[0], "wrong")
	for _, key := range f.redis.Client().Keys(t.Context(), "*").Val() {
		registry := strings.HasPrefix(key, "tokenbroker:{tenants}:")
		if ttl := f.redis.Client().PTTL(t.Context(), key).Val(); ttl <= 0 && !registry {
			t.Errorf("%s has no TTL", key)
		}
	}
}

func TestACallerThatGivesUpDoesNotFailTheOthers(t *testing.T) {
	f := startFleet(t, 1)
	register(t, f.conns[0], f.issuer, "acme", time.Hour)
	if err := f.issuer.SetFault("client-acme", simulator.Fault{Kind: simulator.KindDelay, Delay: 1500 * time.Millisecond}); err != nil {
		t.Fatal(err)
	}
	var callers sync.WaitGroup
	callers.Go(func() {
		ctx, cancel := context.WithTimeout(t.Context(), 300*time.Millisecond)
		defer cancel()
		if _, err := get(ctx, f.conns[0], "acme"); status.Code(err) != codes.DeadlineExceeded {
			t.Errorf("the impatient caller: %v", err)
		}
	})
	until(t, "asked", func() bool { return f.issuer.Requests("client-acme") == 1 })
	for range 50 {
		callers.Go(func() {
			if _, err := get(t.Context(), f.conns[0], "acme"); err != nil {
				t.Errorf("a patient caller: %v", err)
			}
		})
	}
	callers.Wait()
	if got := f.issuer.Requests("client-acme"); got != 1 {
		t.Errorf("%d exchanges", got)
	}
}

func TestAnIssuerThatRepeatsATokenIsNotAskedAgainAndAgain(t *testing.T) {
	f := startFleet(t, 2)
	register(t, f.conns[0], f.issuer, "acme", 8*time.Second)
	if err := f.issuer.SetFault("client-acme", simulator.Fault{Kind: simulator.KindSameToken}); err != nil {
		t.Fatal(err)
	}
	tok, err := get(t.Context(), f.conns[0], "acme")
	if err != nil {
		t.Fatal(err)
	}
	ends := time.Now().Add(tok.GetRemaining().AsDuration())
	until(t, "near the token's end", func() bool {
		for _, conn := range f.conns {
			now, err := get(t.Context(), conn, "acme")
			if time.Until(ends) < time.Second {
				return true
			}
			if err != nil || now.GetTokenId() != tok.GetTokenId() || time.Now().Add(now.GetRemaining().AsDuration()).After(ends.Add(time.Second)) {
				t.Fatalf("%v before the end: %v, %v", time.Until(ends), now.GetRemaining().AsDuration(), err)
			}
		}
		return false
	})
	// At 75 % of what is left, each time: after 6, 7.5 and 7.9 of 8 seconds.
	if got := f.issuer.Requests("client-acme"); got > 5 {
		t.Errorf("%d exchanges for one token", got)
	}
}

func TestADisabledTenantIsDisabledOnEveryReplica(t *testing.T) {
	f := startFleet(t, 3)
	register(t, f.conns[0], f.issuer, "acme", time.Hour)
	for _, conn := range f.conns {
		if _, err := get(t.Context(), conn, "acme"); err != nil {
			t.Fatal(err)
		}
	}
	_, err := pb.NewTenantServiceClient(f.conns[0]).UpdateTenant(t.Context(), &pb.UpdateTenantRequest{
		Tenant: &pb.Tenant{Name: "tenants/acme", State: pb.Tenant_STATE_DISABLED}})
	if err != nil {
		t.Fatal(err)
	}
	for n, conn := range f.conns {
		until(t, fmt.Sprintf("disabled on replica %d", n), func() bool {
			_, err := get(t.Context(), conn, "acme")
			return reason(err) == "FailedPrecondition/TENANT_DISABLED"
		})
	}
}

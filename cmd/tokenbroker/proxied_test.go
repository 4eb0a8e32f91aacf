package main_test

import (
	"context"
	"sync"
	"testing"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/metadata"
	"google.golang.org/grpc/status"

	pb "smokeball.internal/tokenbroker/gen/tokenbroker/v1"
	"smokeball.internal/tokenbroker/internal/access/accesstest"
)

// Through a proxy come the calls of many on one connection. However many of them are
// refused, and however long they would have had, the others go on, and nothing of the refused ones stays.
func TestRefusedCallsEndNobodyElsesOnAProxysConnection(t *testing.T) {
	t.Parallel()
	g := startGuarded(t, `
  - principals: ["jwt:system:serviceaccount:apps:reader"]
    roles: [token.reader]
    tenants: [acme]
`, withTokens, "--log-level=info")
	register(t, g.as(everything), g.issuer, "acme", time.Hour)
	proxy := g.authority.Issue("proxy", accesstest.SPIFFE("spiffe://test.example/proxy"))
	conn := g.dial(&proxy, "", grpc.WithDisableRetry())
	tokens := pb.NewTokenServiceClient(conn)
	with := func(ctx context.Context, token string) context.Context {
		return metadata.AppendToOutgoingContext(ctx, "authorization", "Bearer "+token)
	}
	honest := with(t.Context(), g.tokens.Sign(g.tokens.Claims("system:serviceaccount:apps:reader", tokenAudience)))
	stream, err := tokens.WatchToken(honest, &pb.WatchTokenRequest{Tenant: "tenants/acme"})
	if err == nil {
		_, err = stream.Recv()
	}
	if err != nil {
		t.Fatal(err)
	}

	ages, cancel := context.WithTimeout(t.Context(), 1000*time.Hour)
	defer cancel()
	attack := func(calls int) {
		var attackers sync.WaitGroup
		for range 10 {
			attackers.Go(func() {
				for range calls / 10 {
					if _, err := tokens.GetToken(with(ages, "junk"), &pb.GetTokenRequest{Tenant: "tenants/acme"}); status.Code(err) != codes.Unauthenticated {
						t.Errorf("a call of nobody: %v", err)
						return
					}
				}
			})
		}
		attackers.Wait()
	}
	attack(5000)
	before := g.process.memory()
	const calls = 20_000
	attack(calls)
	grown := g.process.memory() - before
	t.Logf("%.1f MiB before, %.1f MiB more after %d refused calls", before, grown, calls)
	if grown > 10 { // gRPC's part of a call is more than a kilobyte.
		t.Errorf("refused calls leave %.0f bytes each", grown*(1<<20)/calls)
	}
	// One whose message does not come is not waited for.
	begun := time.Now()
	mute, err := conn.NewStream(with(ages, "junk"), &grpc.StreamDesc{ClientStreams: true}, pb.TokenService_GetToken_FullMethodName)
	if err == nil {
		err = mute.RecvMsg(&pb.GetTokenResponse{})
	}
	if took := time.Since(begun); err == nil || took > 10*time.Second {
		t.Errorf("a call without a message: %v after %v", err, took)
	}

	if _, err := tokens.RefreshToken(honest, &pb.RefreshTokenRequest{Tenant: "tenants/acme"}); err != nil {
		t.Errorf("an honest call: %v", err)
	}
	if resp, err := stream.Recv(); err != nil || resp.GetToken() == nil {
		t.Errorf("an honest stream: %v", err)
	}
}

package rpc_test

import (
	"testing"
	"time"

	"buf.build/go/protovalidate"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/metadata"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/types/known/durationpb"

	pb "smokeball.internal/tokenbroker/gen/tokenbroker/v1"
	"smokeball.internal/tokenbroker/internal/rpc"
)

// typical is what a calling service asks for.
var typical = &pb.GetTokenRequest{
	Tenant: "tenants/acme-law", Scopes: []string{"contacts/read", "matters/read"}, MinRemaining: durationpb.New(2 * time.Minute),
}

// BenchmarkUnaryCall is a GetToken that is answered from memory, with both ends
// of the connection in this process: the yardstick for BenchmarkValidateGetToken.
func BenchmarkUnaryCall(b *testing.B) {
	h := newHouse(b, furniture{})
	h.register(b, "acme-law")
	ctx := b.Context()
	if _, err := h.tokens.GetToken(ctx, typical); err != nil {
		b.Fatal(err)
	}
	b.ReportAllocs()
	for b.Loop() {
		if _, err := h.tokens.GetToken(ctx, typical); err != nil {
			b.Fatal(err)
		}
	}
}

// BenchmarkValidateGetToken is what the rules of the API cost that call, by protovalidate
// and by the short way.
func BenchmarkValidateGetToken(b *testing.B) {
	validator, err := protovalidate.New(protovalidate.WithFailFast(), protovalidate.WithMessages(typical))
	if err != nil {
		b.Fatal(err)
	}
	for name, req := range map[string]*pb.GetTokenRequest{"bare": {Tenant: typical.GetTenant()}, "typical": typical} {
		b.Run(name, func(b *testing.B) {
			b.ReportAllocs()
			for b.Loop() {
				if err := validator.Validate(req); err != nil {
					b.Fatal(err)
				}
			}
		})
		b.Run(name+"/short", func(b *testing.B) {
			b.ReportAllocs()
			for b.Loop() {
				if !rpc.KeepsRules(req) {
					b.Fatal("it does not keep the rules")
				}
			}
		})
	}
}

// BenchmarkRefusedCall is a call of somebody who is not known.
func BenchmarkRefusedCall(b *testing.B) {
	h, _ := newGuardedHouse(b, furniture{}, rootRules)
	ctx := metadata.AppendToOutgoingContext(b.Context(), "authorization", "Bearer nonsense")
	b.ReportAllocs()
	for b.Loop() {
		if _, err := h.tokens.GetToken(ctx, typical); status.Code(err) != codes.Unauthenticated {
			b.Fatal(err)
		}
	}
}

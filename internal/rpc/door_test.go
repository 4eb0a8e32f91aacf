package rpc_test

import (
	"net"
	"testing"

	"smokeball.internal/tokenbroker/internal/access"
	"smokeball.internal/tokenbroker/internal/access/accesstest"
	"smokeball.internal/tokenbroker/internal/rpc"
)

// A connection that had to go just before it was known whose it is does not count
// as theirs: gRPC does not say when it is done with it.
func TestAConnectionThatHadToGoIsNobodys(t *testing.T) {
	t.Parallel()
	issuer := accesstest.NewTokenIssuer(t, "idp", "key")
	tokens := access.NewTokens("idp", []string{"broker"}, nil)
	if err := tokens.SetKeys(issuer.JWKS()); err != nil {
		t.Fatal(err)
	}
	policy, err := access.ParsePolicy("access.yaml", []byte("limits: [{principals: ['jwt:reader'], connections: 1}]"))
	if err != nil {
		t.Fatal(err)
	}
	guard := access.NewGuard(tokens, nil)
	guard.SetPolicy(policy)
	caller, err := guard.Identify(nil, []string{"Bearer " + issuer.Sign(issuer.Claims("reader", "broker"))})
	if err != nil {
		t.Fatal(err)
	}
	var crowd rpc.Crowd
	enter := func() func(*access.Guard, *access.Caller) error {
		server, client := net.Pipe()
		t.Cleanup(func() { _, _ = server.Close(), client.Close() })
		return crowd.Enter(server)
	}
	first := enter()
	for range rpc.MaxStrangers - 1 {
		enter()
	}
	last := enter()
	if first(guard, caller) == nil {
		t.Error("it is let in, and it is closed")
	}
	if err := last(guard, caller); err != nil {
		t.Errorf("the only one that there is: %v", err)
	}
}

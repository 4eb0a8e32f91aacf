package rpc_test

import (
	"context"
	"errors"
	"strings"
	"testing"
	"time"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	pb "smokeball.internal/tokenbroker/gen/tokenbroker/v1"
	"smokeball.internal/tokenbroker/internal/broker"
	"smokeball.internal/tokenbroker/internal/tenant"
	"smokeball.internal/tokenbroker/internal/token"
)

// oddIssuer answers as the real one never does.
type oddIssuer struct {
	broker.Issuer
	err   error
	panic any
}

func (i *oddIssuer) Exchange(context.Context, token.Credential) (*token.Token, error) {
	if i.panic != nil {
		panic(i.panic)
	}
	return nil, i.err
}

func odd(i *oddIssuer) furniture {
	return furniture{issuer: func(real broker.Issuer) broker.Issuer { i.Issuer = real; return i }}
}

func TestUnknownErrorIsInternal(t *testing.T) {
	t.Parallel()
	h := newHouse(t, odd(&oddIssuer{err: errors.New("driver: planted text")}))
	h.register(t, "acme")
	_, check := h.tenants.CheckTenant(at(t), &pb.CheckTenantRequest{Name: "tenants/acme"})
	_, rotate := h.tenants.RotateClientSecret(at(t), &pb.RotateClientSecretRequest{Name: "tenants/acme", ClientSecret: "new"})
	for _, err := range []error{check, rotate} {
		if s := status.Convert(err); s.Code() != codes.Internal || s.Message() != "internal error" || len(details(t, s)) != 0 {
			t.Errorf("got %v %v, want INTERNAL, internal error and no more", err, s.Details())
		}
	}
	if !strings.Contains(h.log.String(), "driver: planted text") {
		t.Error("what happened is not in the log")
	}
}

// A replica of a later version may leave a failure in the store that this one
// has no word for.
func TestFailureOfUnknownClass(t *testing.T) {
	t.Parallel()
	h := newHouse(t, odd(&oddIssuer{err: &token.Failure{Class: "from the future", Message: "in a way not seen before"}}))
	h.register(t, "acme")
	wantError(t, h.get(t, "acme"), codes.Unavailable, "ISSUER_UNAVAILABLE")
	if reason := h.tenant(t, "acme").GetStatus().GetLastFailure().GetReason(); reason != "ISSUER_UNAVAILABLE" {
		t.Errorf("status says %q", reason)
	}
}

// slowRecords does not answer before the caller gives up.
type slowRecords struct{ broker.Records }

func (slowRecords) Tenant(ctx context.Context, _ string) (*tenant.Tenant, error) {
	<-ctx.Done()
	return nil, ctx.Err()
}

// panickyRecords panics at one tenant.
type panickyRecords struct{ broker.Records }

func (r panickyRecords) Tenant(ctx context.Context, id string) (*tenant.Tenant, error) {
	if id == "panic" {
		panic("planted-panic")
	}
	return r.Records.Tenant(ctx, id)
}

// A caller that gives up is not an outage of the store, and nobody is to be woken
// for it.
func TestCallerLeaves(t *testing.T) {
	t.Parallel()
	h := newHouse(t, furniture{records: func(real broker.Records) broker.Records { return slowRecords{real} }})
	ctx, cancel := context.WithTimeout(t.Context(), 50*time.Millisecond)
	defer cancel()
	_, err := h.tenants.GetTenant(ctx, &pb.GetTenantRequest{Name: "tenants/acme"})
	if status.Code(err) != codes.DeadlineExceeded {
		t.Errorf("got %v", err)
	}
	eventually(t, "a record of the call", func() bool { return strings.Contains(h.log.String(), "finished call") })
	if log := h.log.String(); strings.Contains(log, "out of reach") || strings.Contains(log, "ERROR") {
		t.Errorf("log:\n%s", log)
	}
}

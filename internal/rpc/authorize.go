package rpc

import (
	"context"
	"log/slog"
	"strings"

	"google.golang.org/grpc"
	healthpb "google.golang.org/grpc/health/grpc_health_v1"

	pb "smokeball.internal/tokenbroker/gen/tokenbroker/v1"
	"smokeball.internal/tokenbroker/internal/access"
)

// authorizer has the guard decide on calls of callers who are known.
type authorizer struct {
	guard *access.Guard
	log   *slog.Logger
}

// may says, by a status, if no rule allows a call. Its request is valid by now.
func (a authorizer) may(ctx context.Context, c *call, method string) error {
	if isHealth(method) {
		return nil // For everyone who is known.
	}
	name, known := access.MethodNamed(method)
	err := access.ErrNotAllowed
	if known {
		// Who may list at all is shown by the handler what it may see.
		c.rule, err = a.guard.Decide(ctx, c.caller, access.Query{Method: name, Tenant: tenantID(c.tenant), Scopes: c.scopes})
	}
	if err != nil {
		return toStatus(ctx, a.log, c.tenant, err)
	}
	return nil
}

// hold lets a stream go on, and have a message, only while its caller may have it.
// Health is for everyone who is known, reflection for whom any rule is for.
func (a authorizer) hold(srv any, stream grpc.ServerStream, info *grpc.StreamServerInfo, handler grpc.StreamHandler) error {
	c := callOf(stream.Context())
	may := func() error {
		if !isHealth(info.FullMethod) && !a.guard.Known(c.caller) {
			return access.ErrNotAllowed
		}
		return nil
	}
	if name, known := access.MethodNamed(info.FullMethod); known {
		q := access.Query{Method: name, Tenant: tenantID(c.tenant), Scopes: c.scopes}
		may = func() error { return a.guard.Standing(stream.Context(), c.caller, q) }
	}
	ctx, release := a.guard.Hold(stream.Context(), c.caller, may)
	defer release()
	if ctx.Err() == nil {
		c.standing = func() error {
			if err := may(); err != nil {
				return toStatus(ctx, a.log, c.tenant, err)
			}
			return nil
		}
		err := handler(srv, held{endable{stream, ctx}, c})
		if ctx.Err() == nil || stream.Context().Err() != nil {
			return err
		}
	}
	return toStatus(stream.Context(), a.log, c.tenant, context.Cause(ctx))
}

// held is a stream whose messages are for a caller who may have them.
type held struct {
	endable
	call *call
}

// SendMsg implements grpc.ServerStream.
func (s held) SendMsg(m any) error {
	if err := s.call.standing(); err != nil {
		return err
	}
	return s.endable.SendMsg(m)
}

func isHealth(method string) bool {
	return strings.HasPrefix(method, "/"+healthpb.Health_ServiceDesc.ServiceName+"/")
}

// name notes the tenant and scopes, valid by now, that a call is about.
func (c *call) name(req any) {
	switch r := req.(type) {
	case interface{ GetTenant() string }:
		c.tenant = r.GetTenant()
	case interface{ GetName() string }:
		c.tenant = r.GetName()
	case *pb.CreateTenantRequest:
		c.tenant = collection + r.GetTenantId()
	case *pb.UpdateTenantRequest:
		c.tenant = r.GetTenant().GetName()
	}
	if r, ok := req.(interface{ GetScopes() []string }); ok {
		c.scopes = r.GetScopes()
	}
}

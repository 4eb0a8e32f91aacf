package rpc

import (
	"context"
	"log/slog"
	"slices"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/reflect/protoreflect"

	pb "smokeball.internal/tokenbroker/gen/tokenbroker/v1"
	"smokeball.internal/tokenbroker/internal/audit"
)

// recorder writes the audit log.
type recorder struct {
	audit *audit.Log
	log   *slog.Logger
}

// Events of the audit log.
const (
	eventToken  = "token"  // a token was asked for
	eventView   = "view"   // tenants were looked at
	eventCheck  = "check"  // credentials were tried, or a change that was not made
	eventChange = "change" // a tenant was changed
)

// eventOf returns what a request is in the audit log; empty: nothing.
func eventOf(req any) string {
	switch r := req.(type) {
	case *pb.GetTokenRequest, *pb.RefreshTokenRequest:
		return eventToken
	case *pb.GetTenantRequest, *pb.ListTenantsRequest:
		return eventView
	case *pb.CheckTenantRequest:
		return eventCheck
	case interface{ GetValidateOnly() bool }: // All that change something have it.
		if r.GetValidateOnly() {
			return eventCheck
		}
		return eventChange
	}
	return ""
}

// unary records what has become of a call, and returns that. If nothing can be
// recorded, a token is not given where Config.Audit is strict; a change has been made
// by then, and its begin recorded.
func (r recorder) unary(ctx context.Context, c *call, method string, req, resp any, err error) (any, error) {
	if event := eventOf(req); event != "" {
		record := c.record(method)
		record.Event = event
		record.Outcome, record.Code, record.Reason = outcomeOf(err)
		if t, ok := resp.(interface{ GetToken() *pb.Token }); ok && err == nil {
			record.TokenID = t.GetToken().GetTokenId()
		}
		if event == eventChange && c.rule != "" { // Its begin may be written still, if it was not in time.
			record.Phase, record.Fields = "end", fieldsOf(req)
		}
		switch {
		case c.begun:
			if unwritten := r.audit.Change(context.WithoutCancel(ctx), record); unwritten != nil {
				r.log.ErrorContext(ctx, "the end of a change is not in the audit log", "request_id", c.id, "tenant", c.tenant,
					"principal", record.Principal, "outcome", record.Outcome, "error", unwritten)
			}
		default:
			if unwritten := r.audit.Decision(record); unwritten != nil && err == nil {
				resp, err = nil, toStatus(ctx, r.log, c.tenant, unwritten)
			}
		}
	}
	if err != nil {
		err = withRequestID(err, c.id)
	}
	return resp, err
}

// stream records each token that a stream has, and why it has none, or no more.
func (r recorder) stream(srv any, stream grpc.ServerStream, info *grpc.StreamServerInfo, handler grpc.StreamHandler) error {
	c := callOf(stream.Context())
	watch := info.FullMethod == pb.TokenService_WatchToken_FullMethodName
	if watch {
		stream = recorded{stream, r, c, info.FullMethod}
	}
	err := handler(srv, stream)
	if err == nil {
		return nil
	}
	// That the caller or the replica has gone is no decision.
	if reason := reasonOf(err); watch && stream.Context().Err() == nil && reason != reasonShuttingDown && reason != reasonAudit {
		record := c.record(info.FullMethod)
		record.Event = eventToken
		record.Outcome, record.Code, record.Reason = outcomeOf(err)
		_ = r.audit.Decision(record) // It has none either way.
	}
	return withRequestID(err, c.id)
}

// recorded is a stream whose tokens are recorded.
type recorded struct {
	grpc.ServerStream
	recorder recorder
	call     *call
	method   string
}

// SendMsg implements grpc.ServerStream. If nothing can be recorded, a token is
// not given where the audit log is strict.
func (s recorded) SendMsg(m any) error {
	if t := m.(*pb.WatchTokenResponse).GetToken(); t != nil {
		record := s.call.record(s.method)
		record.Event, record.Outcome, record.TokenID = eventToken, "allowed", t.GetTokenId()
		if err := s.recorder.audit.Decision(record); err != nil {
			return toStatus(s.Context(), s.recorder.log, s.call.tenant, err)
		}
	}
	return s.ServerStream.SendMsg(m)
}

// begin records a change before it is made; if that cannot be done, it is not made.
func (r recorder) begin(ctx context.Context, c *call, method string, req any) error {
	if eventOf(req) != eventChange {
		return nil
	}
	record := c.record(method)
	record.Event, record.Phase, record.Fields, record.Outcome = eventChange, "begin", fieldsOf(req), "allowed"
	if err := r.audit.Change(ctx, record); err != nil {
		return toStatus(ctx, r.log, c.tenant, err)
	}
	c.begun = true
	return nil
}

func outcomeOf(err error) (outcome, code, reason string) {
	switch code := status.Code(err); code {
	case codes.OK:
		return "allowed", "", ""
	case codes.PermissionDenied, codes.Unauthenticated:
		return "denied", code.String(), reasonOf(err)
	default:
		return "failed", code.String(), reasonOf(err)
	}
}

// fieldsOf returns the names of the fields that a request sets, in order.
func fieldsOf(req any) []string {
	if r, ok := req.(*pb.UpdateTenantRequest); ok && len(r.GetUpdateMask().GetPaths()) > 0 {
		return r.GetUpdateMask().GetPaths()
	}
	message := req.(protoreflect.ProtoMessage).ProtoReflect()
	if r, ok := req.(interface{ GetTenant() *pb.Tenant }); ok {
		message = r.GetTenant().ProtoReflect()
	}
	var fields []string
	message.Range(func(field protoreflect.FieldDescriptor, _ protoreflect.Value) bool {
		fields = append(fields, string(field.Name()))
		return true
	})
	slices.Sort(fields)
	return fields
}

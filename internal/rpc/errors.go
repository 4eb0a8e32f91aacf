package rpc

import (
	"context"
	"errors"
	"log/slog"
	"strings"
	"time"

	"buf.build/gen/go/bufbuild/protovalidate/protocolbuffers/go/buf/validate"
	"buf.build/go/protovalidate"
	"google.golang.org/genproto/googleapis/rpc/errdetails"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/protoadapt"
	"google.golang.org/protobuf/types/known/durationpb"

	"smokeball.internal/tokenbroker/internal/access"
	"smokeball.internal/tokenbroker/internal/audit"
	"smokeball.internal/tokenbroker/internal/broker"
	"smokeball.internal/tokenbroker/internal/tenant"
	"smokeball.internal/tokenbroker/internal/token"
)

// domain is the ErrorInfo.domain of every error of this service.
const domain = "tokenbroker"

// A caller is asked to come back no sooner than this.
const minRetryDelay = 100 * time.Millisecond

// Another replica may have the tenant in memory; none does if this takes people.
const lostRetryDelay = 5 * time.Second

// failure is what callers are told of a token.Class.
type failure struct {
	code   codes.Code
	reason string
}

var failures = map[token.Class]failure{
	token.CredentialsRejected: {codes.FailedPrecondition, "CREDENTIALS_REJECTED"},
	token.GrantRejected:       {codes.FailedPrecondition, "CREDENTIALS_REJECTED"},
	token.ScopeRejected:       {codes.FailedPrecondition, "SCOPE_REJECTED"},
	token.Throttled:           {codes.Unavailable, "ISSUER_THROTTLED"},
	token.Blocked:             {codes.Unavailable, "ISSUER_UNAVAILABLE"},
	token.Unavailable:         {codes.Unavailable, "ISSUER_UNAVAILABLE"},
	token.Malformed:           {codes.Unavailable, "ISSUER_UNAVAILABLE"},
}

// failureOf returns what callers are told of c. A class that is not known here
// comes from a replica of a later version, by way of the store.
func failureOf(c token.Class) failure {
	if f, known := failures[c]; known {
		return f
	}
	return failures[token.Unavailable]
}

// toStatus makes the one translation from errors of the house to statuses. What
// it does not know is logged and told as "internal error": driver texts and the
// like are none of a caller's business.
func toStatus(ctx context.Context, log *slog.Logger, name string, err error) error {
	if s := accessStatus(err); s != nil {
		return s
	}
	var field *tenant.FieldError
	var tooSoon *broker.TooSoonError
	var refused *token.Failure
	switch {
	case err == nil:
		return nil
	case errors.As(err, &field):
		return badRequest("tenant."+field.Field, field.Description)
	case errors.Is(err, tenant.ErrNotFound):
		return failed(codes.NotFound, "TENANT_NOT_FOUND", name+" is not registered")
	case errors.Is(err, tenant.ErrLost):
		return failed(codes.Unavailable, "REGISTRY_LOST", "the registry of tenants was lost, and "+name+" with it if it was registered; administrators restore it with 'tokenbroker tenants import'", retry(lostRetryDelay))
	case errors.Is(err, tenant.ErrExists):
		return failed(codes.AlreadyExists, "TENANT_EXISTS", name+" is registered already")
	case errors.Is(err, tenant.ErrConflict):
		return failed(codes.Aborted, "ETAG_MISMATCH", name+" has changed: read it again and repeat the change")
	case errors.Is(err, tenant.ErrUnreadable):
		log.ErrorContext(ctx, "tenant record refused", "tenant", name, "error", err)
		return failed(codes.Internal, "TENANT_UNREADABLE", "the record of "+name+" cannot be opened with this server's keyset")
	case errors.Is(err, broker.ErrDisabled):
		return failed(codes.FailedPrecondition, "TENANT_DISABLED", name+" is disabled")
	case errors.Is(err, broker.ErrScopeNotRegistered):
		return failed(codes.FailedPrecondition, "SCOPE_REJECTED", name+" is registered with other scopes than these")
	case errors.Is(err, broker.ErrTooManyScopeSets):
		return failed(codes.ResourceExhausted, "TOO_MANY_SCOPE_SETS", name+": tokens are held for too many different sets of scopes; ask for fewer, or register the tenant's scopes and ask for none", retry(time.Minute))
	case errors.Is(err, broker.ErrMinRemaining):
		return failed(codes.FailedPrecondition, "MIN_REMAINING_UNREACHABLE", "tokens of "+name+" do not live that long: min_remaining must be shorter than their life by a minute, or by a quarter of it if that is less")
	case errors.As(err, &tooSoon):
		return failed(codes.ResourceExhausted, "REFRESH_TOO_SOON", name+": "+tooSoon.Error()+
			"; if Smokeball rejects it too, look for a missing scope, a wrong account or a wrong API key", retry(tooSoon.After))
	case errors.As(err, &refused):
		f := failureOf(refused.Class)
		if f.code == codes.FailedPrecondition {
			return failed(f.code, f.reason, name+": "+refused.Message)
		}
		wait := refused.RetryAfter // What the issuer asked for, if nobody remembers the failure.
		if !refused.RetryAt.IsZero() {
			wait = time.Until(refused.RetryAt)
		}
		return failed(f.code, f.reason, name+": "+refused.Message, retry(wait))
	case ctx.Err() != nil && errors.Is(err, ctx.Err()):
		// The caller left, or its time is over: the store is not to blame.
		return status.FromContextError(ctx.Err()).Err()
	case errors.Is(err, broker.ErrStore):
		log.ErrorContext(ctx, "store is out of reach", "tenant", name, "error", err)
		return failed(codes.Unavailable, "STORE_UNAVAILABLE", "the store of tenants and tokens is out of reach", retry(time.Second))
	case errors.Is(err, audit.ErrUnavailable):
		log.ErrorContext(ctx, "refused, since it cannot be recorded", "tenant", name, "error", err)
		return failed(codes.Unavailable, reasonAudit, "the audit log cannot be written, and without it this is not done", retry(time.Second))
	case errors.Is(err, broker.ErrClosed):
		return shuttingDown()
	case errors.Is(err, errCrowded): // Nobody hears it: the connection is closed.
		return status.Error(codes.Unavailable, err.Error())
	case errors.Is(err, context.Canceled), errors.Is(err, context.DeadlineExceeded):
		return status.FromContextError(err).Err()
	default:
		log.ErrorContext(ctx, "internal error", "tenant", name, "error", err)
		return status.Error(codes.Internal, "internal error")
	}
}

// accessStatus returns the status for an error of the guard; nil for other
// errors. It says nothing about what there is.
func accessStatus(err error) error {
	var unproved *access.Refused
	var tooFast *access.TooFastError
	switch {
	case errors.Is(err, access.ErrNobody):
		return failed(codes.Unauthenticated, "UNAUTHENTICATED", err.Error())
	case errors.As(err, &unproved) && unproved.Temporary():
		return failed(codes.Unavailable, "IDENTITY_UNAVAILABLE", unproved.Error(), retry(time.Second))
	case errors.As(err, &unproved):
		return failed(codes.Unauthenticated, "UNAUTHENTICATED", unproved.Error())
	case errors.Is(err, access.ErrNotAllowed):
		return failed(codes.PermissionDenied, "NOT_ALLOWED", access.ErrNotAllowed.Error())
	case errors.Is(err, access.ErrScopes):
		return failed(codes.PermissionDenied, "SCOPE_NOT_ALLOWED", access.ErrScopes.Error())
	case errors.As(err, &tooFast):
		return failed(codes.ResourceExhausted, "CALLER_TOO_FAST", tooFast.Error(), retry(tooFast.After))
	}
	return nil
}

// shuttingDown sends a caller to another replica.
func shuttingDown() error {
	return failed(codes.Unavailable, reasonShuttingDown, "this replica is shutting down", retry(0))
}

// Reasons that are not about the caller or the tenant.
const (
	reasonShuttingDown = "SHUTTING_DOWN"
	reasonAudit        = "AUDIT_UNAVAILABLE"
)

func failed(code codes.Code, reason, message string, details ...protoadapt.MessageV1) error {
	info := &errdetails.ErrorInfo{Reason: reason, Domain: domain}
	return withDetails(status.New(code, message), append([]protoadapt.MessageV1{info}, details...)...)
}

// badRequest names the field that is wrong. A field's path can have the key of a
// map in it, which is as long as the caller likes, and a status goes into the
// trailers, which are not: so it is clipped.
func badRequest(field, description string) error {
	field = clip(field)
	return withDetails(status.New(codes.InvalidArgument, field+": "+description), &errdetails.BadRequest{
		FieldViolations: []*errdetails.BadRequest_FieldViolation{{Field: field, Description: description}},
	})
}

// clip shortens what a caller sent to what can be repeated to the caller.
func clip(s string) string {
	const most = 128
	if len(s) <= most {
		return s
	}
	return strings.ToValidUTF8(s[:most], "") + "…"
}

func retry(after time.Duration) *errdetails.RetryInfo {
	return &errdetails.RetryInfo{RetryDelay: durationpb.New(max(after, minRetryDelay).Round(time.Millisecond))}
}

func withDetails(s *status.Status, details ...protoadapt.MessageV1) error {
	if detailed, err := s.WithDetails(details...); err == nil {
		s = detailed
	}
	return s.Err()
}

// violation turns the answer of the validation interceptor into one with
// google.rpc details, as all other errors have them.
func violation(err error) error {
	for _, detail := range status.Convert(err).Details() {
		if v, ok := detail.(*validate.Violations); ok && len(v.GetViolations()) > 0 {
			first := v.GetViolations()[0]
			return badRequest(protovalidate.FieldPathString(first.GetField()), first.GetMessage())
		}
	}
	return err
}

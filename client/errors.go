package client

import (
	"fmt"
	"time"

	"google.golang.org/genproto/googleapis/rpc/errdetails"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
)

// errClosed is what everybody gets after Close.
var errClosed = status.Error(codes.Canceled, "the client of the token broker is closed")

// Reason returns why the broker refused, as the google.rpc.ErrorInfo in err has
// it: TENANT_DISABLED, for example. They are listed at TokenService in
// token_service.proto. It is empty if there is none, as for a broker out of reach.
func Reason(err error) string {
	info, _ := detail[*errdetails.ErrorInfo](err)
	if info.GetDomain() != "tokenbroker" {
		return ""
	}
	return info.GetReason()
}

// retryAfter returns what the google.rpc.RetryInfo in err says, and whether there
// is one. It is never negative.
func retryAfter(err error) (time.Duration, bool) {
	info, ok := detail[*errdetails.RetryInfo](err)
	return max(0, info.GetRetryDelay().AsDuration()), ok
}

// detail finds the detail of type T in the status that err is or wraps.
func detail[T any](err error) (found T, ok bool) {
	s, isStatus := status.FromError(err)
	if !isStatus {
		return found, false
	}
	for _, d := range s.Details() {
		if found, ok = d.(T); ok {
			return found, true
		}
	}
	return found, false
}

// revoked says whether err means that the caller shall not have the tenant's
// tokens any more, so that one that is held is not used either. All other errors
// say only that there is no new one; so do those that a proxy makes with the same
// codes.
func revoked(err error) bool {
	switch Reason(err) {
	case "TENANT_NOT_FOUND", "TENANT_DISABLED", "NOT_ALLOWED", "SCOPE_NOT_ALLOWED":
		return true
	}
	return false
}

// outOfReach says whether err comes from the connection, or from what is between
// it and the broker: whatever the broker says has details, if only a RequestInfo.
func outOfReach(err error) bool {
	switch status.Code(err) {
	case codes.Unavailable, codes.Internal, codes.DeadlineExceeded:
		s, _ := status.FromError(err)
		return len(s.Details()) == 0
	}
	return false
}

// lasting says whether somebody has to change something before it helps to ask
// again.
func lasting(err error) bool {
	switch status.Code(err) {
	case codes.NotFound, codes.PermissionDenied, codes.FailedPrecondition, codes.InvalidArgument:
		return true
	}
	return false
}

// noToken is what callers get while there is no token and none can be had. It
// wraps the last attempt's error, and with it the status.
func noToken(tenant string, since time.Time, err error) error {
	return fmt.Errorf("%s: no token, and none to be had since %s: %w", tenant, since.UTC().Format(time.RFC3339), err)
}

// nonsense is a message that the broker should not have sent.
func nonsense(what string) error {
	return status.Error(codes.Internal, "the broker's answer makes no sense: "+what)
}

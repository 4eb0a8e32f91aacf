package rpc

import (
	"context"
	"math/rand/v2"
	"strings"

	"google.golang.org/genproto/googleapis/rpc/errdetails"
	"google.golang.org/grpc/status"

	"smokeball.internal/tokenbroker/internal/access"
	"smokeball.internal/tokenbroker/internal/audit"
)

// call is the context of a call, and what is known of it beside its request. It is
// written by those on its way, one after the other.
type call struct {
	context.Context // of the stream that the call is to gRPC

	id      string // names the request in the log, the audit log and errors
	caller  *access.Caller
	peer    string
	tenant  string   // resource name; empty before it is known to be valid
	scopes  []string // asked for; the same
	rule    string   // that allows it
	refusal error    // of the entrance; nil: it may go on
	begun   bool     // a change, and it is recorded that it begins
	// standing says, by a status, whether the caller may not have the stream any more.
	standing func() error
}

type callKey struct{}

// Value implements context.Context.
func (c *call) Value(key any) any {
	if key == (callKey{}) {
		return c
	}
	return c.Context.Value(key)
}

// callOf returns what is known of the call that ctx is of.
func callOf(ctx context.Context) *call {
	c, _ := ctx.Value(callKey{}).(*call)
	return c
}

// record returns the audit record of a call, as far as it is known.
func (c *call) record(method string) audit.Record {
	r := audit.Record{RequestID: c.id, Peer: c.peer, Method: strings.TrimPrefix(method, "/"), Tenant: c.tenant, Scopes: c.scopes, Rule: c.rule}
	if c.caller != nil {
		r.Principal = c.caller.Principal()
	}
	return r
}

// requestID returns the id that a caller gave a request, if it gave one that can
// stand in records, else a new one.
func requestID(given []string) string {
	const most = 64
	if len(given) == 1 && given[0] != "" && len(given[0]) <= most && !strings.ContainsFunc(given[0], notOfRequestID) {
		return given[0]
	}
	var id [16]byte
	const digits = "0123456789abcdef"
	//nolint:gosec // It keeps nobody out.
	for i, n := 0, rand.Uint64(); i < len(id); i, n = i+1, n>>4 {
		id[i] = digits[n&15]
	}
	return string(id[:])
}

func notOfRequestID(r rune) bool {
	return (r < 'a' || r > 'z') && (r < 'A' || r > 'Z') && (r < '0' || r > '9') && !strings.ContainsRune("-_.:", r)
}

// withRequestID adds the request's id to the details of an error.
func withRequestID(err error, id string) error {
	return withDetails(status.Convert(err), &errdetails.RequestInfo{RequestId: id})
}

// reasonOf returns the ErrorInfo.reason of a status; without one, its code.
func reasonOf(err error) string {
	s := status.Convert(err)
	for _, detail := range s.Details() {
		if info, ok := detail.(*errdetails.ErrorInfo); ok {
			return info.GetReason()
		}
	}
	return s.Code().String()
}

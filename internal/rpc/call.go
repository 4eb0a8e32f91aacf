package rpc

import (
	"context"
	"log/slog"
	"math/rand/v2"
	"slices"
	"strings"

	middleware "github.com/grpc-ecosystem/go-grpc-middleware/v2"
	"github.com/prometheus/client_golang/prometheus"
	"golang.org/x/time/rate"
	"google.golang.org/genproto/googleapis/rpc/errdetails"
	"google.golang.org/grpc"
	"google.golang.org/grpc/metadata"
	"google.golang.org/grpc/peer"
	"google.golang.org/grpc/status"

	"smokeball.internal/tokenbroker/internal/access"
	"smokeball.internal/tokenbroker/internal/audit"
)

// call is the context of a call, and what is known of it beside its request. It is
// written by those on its way, one after the other.
type call struct {
	context.Context // of the stream that the call is to gRPC

	id     string // names the request in the log, the audit log and errors
	caller *access.Caller
	peer   string
	tenant string   // resource name; empty before it is known to be valid
	scopes []string // asked for; the same
	rule   string   // that allows it
	begun  bool     // a change, and it is recorded that it begins
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

// entrance is where calls come in: before their messages are read, so that those
// of nobody, and those that are too many, cost little.
type entrance struct {
	guard   *access.Guard
	audit   *audit.Log
	log     *slog.Logger
	refused *prometheus.CounterVec
	some    *rate.Limiter // of the audit log's records of calls that did not get in
}

func newEntrance(c Config) (*entrance, error) {
	e := &entrance{guard: c.Guard, audit: c.Audit, log: c.Logger, some: rate.NewLimiter(50, 500), refused: prometheus.NewCounterVec(prometheus.CounterOpts{
		Name: "tokenbroker_refused_calls_total", Help: "Calls that were refused before their messages were read, by the reason of the error.",
	}, []string{"reason"})}
	if c.Metrics == nil {
		return e, nil
	}
	return e, c.Metrics.Register(e.refused)
}

// registrar is the server as services are registered with it: each call comes in by
// the entrance.
type registrar struct {
	*grpc.Server
	*entrance
}

// RegisterService implements grpc.ServiceRegistrar. It sees to unary methods; streams
// have an interceptor for it, which for unary calls would be too late: the generated
// code reads the message first.
func (r registrar) RegisterService(desc *grpc.ServiceDesc, implementation any) {
	entered := *desc
	entered.Methods = slices.Clone(desc.Methods)
	for i := range entered.Methods {
		handler, method := desc.Methods[i].Handler, "/"+desc.ServiceName+"/"+desc.Methods[i].MethodName
		entered.Methods[i].Handler = func(srv any, ctx context.Context, read func(any) error, way grpc.UnaryServerInterceptor) (any, error) {
			c, err := r.admit(ctx, method)
			if err != nil {
				return nil, err
			}
			defer c.caller.Close()
			return handler(srv, c, read, way)
		}
	}
	r.Server.RegisterService(&entered, implementation)
}

// stream has streams come in, those of methods that there are not among them.
func (e *entrance) stream(srv any, stream grpc.ServerStream, info *grpc.StreamServerInfo, handler grpc.StreamHandler) error {
	c, err := e.admit(stream.Context(), info.FullMethod)
	if err != nil {
		return err
	}
	defer c.caller.Close()
	if srv == nil { // There is no such method, and nothing more to be done.
		return unknown(nil, stream)
	}
	return handler(srv, &middleware.WrappedServerStream{ServerStream: stream, WrappedContext: c})
}

// admit makes a call of what comes, or refuses it, by its headers and its connection
// alone. It waits for nothing. A call that it returns is open: its caller's Close is to be called.
func (e *entrance) admit(ctx context.Context, method string) (*call, error) {
	c := &call{Context: ctx, id: requestID(metadata.ValueFromIncomingContext(ctx, "x-request-id"))}
	var g *guest
	if p, ok := peer.FromContext(ctx); ok {
		if g, ok = p.AuthInfo.(*guest); ok {
			c.peer = g.peer
		} else {
			c.peer = p.Addr.String()
		}
	}
	authorization := metadata.ValueFromIncomingContext(ctx, "authorization")
	if err := e.identify(c, g, authorization, method); err != nil {
		// A connection with a certificate whose calls have tokens is a proxy's, and has
		// the calls of others on it, too.
		if proxy := g != nil && g.caller != nil && len(authorization) > 0; g != nil && !proxy {
			g.refused()
		}
		return nil, e.refuse(c, method, err)
	}
	return c, nil
}

func (e *entrance) identify(c *call, g *guest, authorization []string, method string) (err error) {
	var connected *access.Caller
	if g != nil {
		connected = g.caller
	}
	if c.caller, err = e.guard.Identify(connected, authorization); err != nil {
		return err
	}
	if g != nil {
		if err := g.known(e.guard, c.caller); err != nil {
			return err
		}
	}
	name, _ := access.MethodNamed(method)
	if err := e.guard.Admit(c.caller, name); err != nil {
		return err
	}
	return c.caller.Open()
}

// refuse makes the status of a call that does not get in, and notes it.
func (e *entrance) refuse(c *call, method string, err error) error {
	err = toStatus(c, e.log, "", err)
	reason := reasonOf(err)
	e.refused.WithLabelValues(reason).Inc()
	if e.some.Allow() {
		r := c.record(method)
		r.Event, r.Outcome, r.Code, r.Reason = "refused", "denied", status.Code(err).String(), reason
		_ = e.audit.Decision(r) // It is refused either way.
	}
	return withRequestID(err, c.id)
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
	var id [16]byte // Told from others, and no secret.
	const digits = "0123456789abcdef"
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

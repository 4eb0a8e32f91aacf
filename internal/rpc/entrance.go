package rpc

import (
	"context"
	"log/slog"
	"slices"

	"github.com/prometheus/client_golang/prometheus"
	"golang.org/x/time/rate"
	"google.golang.org/grpc"
	"google.golang.org/grpc/peer"
	"google.golang.org/grpc/status"
	"google.golang.org/grpc/tap"

	"smokeball.internal/tokenbroker/internal/access"
	"smokeball.internal/tokenbroker/internal/audit"
)

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

// registrar is the server as services are registered with it: a call that was refused
// goes no further.
type registrar struct {
	*grpc.Server
	*entrance
}

// RegisterService implements grpc.ServiceRegistrar. It sees to unary methods. Streams
// have an interceptor for it, which for unary calls would be too late: generated code
// reads the message first.
func (r registrar) RegisterService(desc *grpc.ServiceDesc, implementation any) {
	entered := *desc
	entered.Methods = slices.Clone(desc.Methods)
	for i := range entered.Methods {
		handler, method := desc.Methods[i].Handler, "/"+desc.ServiceName+"/"+desc.Methods[i].MethodName
		entered.Methods[i].Handler = func(srv any, ctx context.Context, read func(any) error, way grpc.UnaryServerInterceptor) (any, error) {
			c := callOf(ctx)
			if err := r.open(c, method); err != nil {
				return nil, err
			}
			defer c.caller.Close()
			return handler(srv, ctx, read, way)
		}
	}
	r.Server.RegisterService(&entered, implementation)
}

// stream sees to streams, those of methods that there are not among them.
func (e *entrance) stream(srv any, stream grpc.ServerStream, info *grpc.StreamServerInfo, handler grpc.StreamHandler) error {
	c := callOf(stream.Context())
	if err := e.open(c, info.FullMethod); err != nil {
		return err
	}
	defer c.caller.Close()
	if srv == nil { // There is no such method, and nothing more to be done.
		return unknown(nil, stream)
	}
	return handler(srv, stream)
}

// look implements tap.ServerInHandle. It makes a call of what comes, and finds by its
// headers and its connection alone whether it is refused. It waits for nothing, and
// runs on the connection's own goroutine: one call of a connection is looked at after the
// other, and no more are read before. It sees also what gRPC answers by itself. Its error
// is always nil: gRPC would not end the call that it has begun.
func (e *entrance) look(ctx context.Context, info *tap.Info) (context.Context, error) {
	c := &call{Context: ctx, id: requestID(info.Header.Get("x-request-id"))}
	var g *guest
	if p, ok := peer.FromContext(ctx); ok {
		if g, ok = p.AuthInfo.(*guest); ok {
			c.peer = g.peer
		} else {
			c.peer = p.Addr.String()
		}
	}
	authorization := info.Header.Get("authorization")
	if err := e.identify(c, g, authorization, info.FullMethodName); err != nil {
		// A connection with a certificate whose calls have tokens is a proxy's, and has
		// the calls of others on it, too.
		if proxy := g != nil && g.caller != nil && len(authorization) > 0; g != nil && !proxy {
			g.refused()
		}
		c.refusal = e.refuse(c, info.FullMethodName, err)
	}
	return c, nil
}

// open says why a call is refused; without an error it is open, and its caller's Close
// is to be called.
func (e *entrance) open(c *call, method string) error {
	if c.refusal != nil {
		return c.refusal
	}
	if err := c.caller.Open(); err != nil {
		return e.refuse(c, method, err)
	}
	return nil
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
	return e.guard.Admit(c.caller, name)
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

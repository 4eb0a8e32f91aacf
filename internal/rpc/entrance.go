package rpc

import (
	"context"
	"log/slog"
	"slices"

	middleware "github.com/grpc-ecosystem/go-grpc-middleware/v2"
	"github.com/prometheus/client_golang/prometheus"
	"golang.org/x/time/rate"
	"google.golang.org/grpc"
	"google.golang.org/grpc/metadata"
	"google.golang.org/grpc/peer"
	"google.golang.org/grpc/status"

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

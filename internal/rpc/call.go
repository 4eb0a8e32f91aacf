package rpc

import (
	"context"
	"crypto/rand"
	"encoding/hex"
	"log/slog"
	"strings"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"golang.org/x/time/rate"
	"google.golang.org/genproto/googleapis/rpc/errdetails"
	"google.golang.org/grpc"
	"google.golang.org/grpc/peer"
	"google.golang.org/grpc/status"
	"google.golang.org/grpc/tap"

	"smokeball.internal/tokenbroker/internal/access"
	"smokeball.internal/tokenbroker/internal/audit"
)

// call is what is known of a call beside its request. It is written by those on
// its way, one after the other.
type call struct {
	id     string // names the request in the log, the audit log and errors
	caller *access.Caller
	peer   string
	tenant string   // resource name; empty before it is known to be valid
	scopes []string // asked for; the same
	rule   string   // that allows it
	begun  bool     // a change, and it is recorded that it begins
	// claim makes whoever calls it close the call (access.Caller.Close) in place of
	// the end of its context; false: that was quicker.
	claim func() bool
	// standing says, by a status, whether the caller may not have the stream any more.
	standing func() error
	// refusal is why the call goes no further than to the first interceptor; nil: it does.
	refusal error
}

type callKey struct{}

// callOf returns what is known of the call that ctx is of.
func callOf(ctx context.Context) *call {
	c, _ := ctx.Value(callKey{}).(*call)
	return c
}

// entrance is where calls come in: before their messages are read, so that those
// of nobody, and those that are too many, cost next to nothing.
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

// admit implements tap.ServerInHandle. It runs on the connection's own goroutine,
// and waits for nothing.
func (e *entrance) admit(ctx context.Context, info *tap.Info) (context.Context, error) {
	c := &call{id: requestID(info.Header.Get("x-request-id"))}
	var g *guest
	if p, ok := peer.FromContext(ctx); ok {
		if g, ok = p.AuthInfo.(*guest); ok {
			c.peer = g.peer
		} else {
			c.peer = p.Addr.String()
		}
	}
	if err := e.identify(c, g, info); err != nil {
		err = e.refuse(ctx, c, info.FullMethodName, err)
		if g != nil && g.caller != nil && len(info.Header.Get("authorization")) > 0 {
			return turnAway(ctx, c, err), nil
		}
		if g != nil {
			g.refused()
		}
		return ctx, err
	}
	// Its message may never come, and then nobody has it.
	c.claim = context.AfterFunc(ctx, c.caller.Close)
	return context.WithValue(ctx, callKey{}, c), nil
}

// How long the message of a call is waited for that is turned away.
const refusalPatience = time.Second

// turnAway has a call refused when its message is there, or soon. So nothing of it
// stays, and its connection need not be closed after so many of them (see endings):
// a connection with a certificate whose calls have tokens is a proxy's, and has the calls of
// others on it, too.
func turnAway(ctx context.Context, c *call, err error) context.Context {
	ctx, cancel := context.WithTimeout(ctx, refusalPatience)
	context.AfterFunc(ctx, cancel)
	c.refusal = err
	return context.WithValue(ctx, callKey{}, c)
}

// turnedAway ends a call that the entrance has refused.
func turnedAway(ctx context.Context, req any, _ *grpc.UnaryServerInfo, handler grpc.UnaryHandler) (any, error) {
	if err := callOf(ctx).refusal; err != nil {
		return nil, err
	}
	return handler(ctx, req)
}

// streamTurnedAway is turnedAway for a stream.
func streamTurnedAway(srv any, stream grpc.ServerStream, _ *grpc.StreamServerInfo, handler grpc.StreamHandler) error {
	if err := callOf(stream.Context()).refusal; err != nil {
		return err
	}
	return handler(srv, stream)
}

func (e *entrance) identify(c *call, g *guest, info *tap.Info) (err error) {
	var connected *access.Caller
	if g != nil {
		connected = g.caller
	}
	if c.caller, err = e.guard.Identify(connected, info.Header.Get("authorization")); err != nil {
		return err
	}
	if g != nil {
		if err := g.known(e.guard, c.caller); err != nil {
			return err
		}
	}
	method, _ := access.MethodNamed(info.FullMethodName)
	if err := e.guard.Admit(c.caller, method); err != nil {
		return err
	}
	return c.caller.Open()
}

// refuse makes the status of a call that does not get in, and notes it.
func (e *entrance) refuse(ctx context.Context, c *call, method string, err error) error {
	err = toStatus(ctx, e.log, "", err)
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
	var b [8]byte
	_, _ = rand.Read(b[:]) // Never fails, see crypto/rand.
	return hex.EncodeToString(b[:])
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

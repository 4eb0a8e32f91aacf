package broker_test

import (
	"context"
	"errors"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	sdktrace "go.opentelemetry.io/otel/sdk/trace"
	"go.opentelemetry.io/otel/sdk/trace/tracetest"
	"go.opentelemetry.io/otel/trace"

	"smokeball.internal/tokenbroker/internal/broker"
	"smokeball.internal/tokenbroker/internal/broker/brokertest"
	"smokeball.internal/tokenbroker/internal/secret"
	"smokeball.internal/tokenbroker/internal/tenant"
	"smokeball.internal/tokenbroker/internal/token"
)

// traced is a replica whose spans are kept, with the tenant acme.
type traced struct {
	*brokertest.Fleet
	*broker.Broker
	spans  *tracetest.SpanRecorder
	tracer trace.Tracer
}

func newTraced(t *testing.T) *traced {
	spans := tracetest.NewSpanRecorder()
	provider := sdktrace.NewTracerProvider(sdktrace.WithSpanProcessor(spans))
	fleet := brokertest.NewFleet(t, 0)
	fleet.Tracer = provider.Tracer("test")
	b := fleet.Add(t)
	fleet.Register(t, "acme", nil)
	return &traced{fleet, b, spans, fleet.Tracer}
}

// call asks for a token as a caller with this span does.
func (r *traced) call(ctx context.Context, name string) (trace.Span, error) {
	ctx, span := r.tracer.Start(ctx, name)
	_, err := r.Get(ctx, "acme", nil, 0)
	span.End()
	return span, err
}

// named returns the spans with a name that have ended, in that order.
func (r *traced) named(name string) []sdktrace.ReadOnlySpan {
	var found []sdktrace.ReadOnlySpan
	for _, span := range r.spans.Ended() {
		if span.Name() == name {
			found = append(found, span)
		}
	}
	return found
}

// under returns the one span with this name that has the other for its parent.
func (r *traced) under(t *testing.T, name string, parent trace.SpanContext) sdktrace.ReadOnlySpan {
	t.Helper()
	for _, span := range r.named(name) {
		if span.Parent().SpanID() == parent.SpanID() {
			return span
		}
	}
	t.Fatalf("there is no %q under the span that it is for", name)
	return nil
}

func attributeOf(s sdktrace.ReadOnlySpan, key string) string {
	for _, a := range s.Attributes() {
		if string(a.Key) == key {
			return a.Value.AsString()
		}
	}
	return ""
}

// A flight is in the trace of who had it begun. Who joined it waits in a trace of
// their own, with a link to it, and so does who left before its end.
func TestFlightIsInTheTraceOfWhoHadItBegun(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := newTraced(t)
		r.Issuer.Took = 5 * time.Second
		first, joined, left := make(chan trace.Span, 1), make(chan trace.Span, 1), make(chan trace.Span, 1)
		go func() { s, _ := r.call(t.Context(), "first"); first <- s }()
		synctest.Wait()
		go func() { s, _ := r.call(t.Context(), "joined"); joined <- s }()
		go func() {
			ctx, cancel := context.WithTimeout(t.Context(), time.Second)
			defer cancel()
			s, err := r.call(ctx, "left")
			if !errors.Is(err, context.DeadlineExceeded) {
				t.Errorf("who left got %v", err)
			}
			left <- s
		}()
		beginner := (<-first).SpanContext()
		wait := r.under(t, "wait for token", beginner)
		flight := r.under(t, "flight", wait.SpanContext())
		if len(wait.Links()) != 0 {
			t.Error("who had the flight begun is linked to it, too")
		}
		if attributeOf(flight, "tokenbroker.tenant") != "tenants/acme" || attributeOf(flight, "tokenbroker.token_id") == "" || attributeOf(flight, "tokenbroker.key") == "" {
			t.Errorf("the flight has the attributes %v", flight.Attributes())
		}
		look := r.under(t, "look up tenant", r.under(t, "wait for tenant", beginner).SpanContext())
		if look.SpanContext().TraceID() != beginner.TraceID() {
			t.Error("the tenant is looked up in another trace")
		}
		for name, caller := range map[string]trace.Span{"who joined": <-joined, "who left": <-left} {
			wait := r.under(t, "wait for token", caller.SpanContext())
			if len(wait.Links()) != 1 || wait.Links()[0].SpanContext.SpanID() != flight.SpanContext().SpanID() {
				t.Errorf("%s has the links %v, not one to the flight", name, wait.Links())
			}
			if failed := attributeOf(wait, "error.type"); (name == "who left") != (failed == "deadline_exceeded") {
				t.Errorf("%s has failed with %q", name, failed)
			}
		}
		if n := len(r.named("flight")); n != 1 {
			t.Errorf("there are %d flights", n)
		}
		// From memory: nobody waits, nothing flies.
		before := len(r.spans.Ended())
		if _, err := r.call(t.Context(), "again"); err != nil {
			t.Fatal(err)
		}
		if n := len(r.spans.Ended()) - before; n != 1 {
			t.Errorf("a call that is answered from memory has %d spans, want its own", n)
		}
	})
}

// What is done behind a caller's back is a trace of its own, with a link to the call.
func TestRefreshAheadIsATraceOfItsOwn(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := newTraced(t)
		if _, err := r.call(t.Context(), "cold"); err != nil {
			t.Fatal(err)
		}
		// Asked for since it came: at the refresh point the timer has it replaced.
		if _, err := r.call(t.Context(), "warm"); err != nil {
			t.Fatal(err)
		}
		time.Sleep(50 * time.Minute)
		synctest.Wait()
		flights := r.named("flight")
		if len(flights) != 2 {
			t.Fatalf("there are %d flights", len(flights))
		}
		if ahead := flights[1]; ahead.Parent().IsValid() || len(ahead.Links()) != 0 {
			t.Errorf("a refresh that the clock had begun has the parent %v and the links %v", ahead.Parent(), ahead.Links())
		}
		// Not asked for since: the next call after the refresh point has it replaced.
		time.Sleep(50 * time.Minute)
		caller, err := r.call(t.Context(), "late")
		if err != nil {
			t.Fatal(err)
		}
		synctest.Wait()
		flights = r.named("flight")
		if len(flights) != 3 {
			t.Fatalf("there are %d flights", len(flights))
		}
		ahead := flights[2]
		if ahead.Parent().IsValid() || ahead.SpanContext().TraceID() == caller.SpanContext().TraceID() {
			t.Error("a refresh behind a caller's back is in the caller's trace")
		}
		if len(ahead.Links()) != 1 || ahead.Links()[0].SpanContext.SpanID() != caller.SpanContext().SpanID() {
			t.Errorf("it has the links %v, not one to the call", ahead.Links())
		}
	})
}

// A call that is not traced has nothing traced, also where there are traces.
func TestUntracedCall(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := newTraced(t)
		get(t, r.Broker, "acme")
		if spans := r.spans.Ended(); len(spans) != 0 {
			t.Errorf("an untraced call has %d spans, the first %q", len(spans), spans[0].Name())
		}
	})
}

// Spans tell of failures by their class, and of a panic nothing.
func TestSpansTellNoTexts(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := newTraced(t)
		r.Issuer.Answer = func(c token.Credential) *token.Failure {
			if c.ClientID == "client of acme" {
				return &token.Failure{Class: token.CredentialsRejected, Message: "s3cr3t"}
			}
			panic("s3cr3t")
		}
		caller, _ := r.call(t.Context(), "refused")
		if got := attributeOf(r.under(t, "wait for token", caller.SpanContext()), "error.type"); got != string(token.CredentialsRejected) {
			t.Errorf("the wait has failed with %q", got)
		}
		update(t, r.Fleet, func(r *tenant.Tenant) { r.ClientID, r.Secret.Value = "another", secret.New("good") })
		if _, err := r.call(t.Context(), "panics"); err == nil {
			t.Error("the panic is not an error")
		}
		synctest.Wait()
		for _, span := range r.spans.Ended() {
			said := span.Name() + span.Status().Description
			for _, a := range span.Attributes() {
				said += a.Value.String()
			}
			for _, e := range span.Events() {
				said += e.Name
				for _, a := range e.Attributes {
					said += a.Value.String()
				}
			}
			if strings.Contains(said, "s3cr3t") {
				t.Errorf("%s tells %q", span.Name(), said)
			}
		}
		if flights := r.named("flight"); len(flights) != 2 || attributeOf(flights[1], "error.type") != "_OTHER" {
			t.Errorf("the flight that panicked has no span, or no error: %d flights", len(flights))
		}
	})
}

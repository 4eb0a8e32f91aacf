// Package tracingtest stands in for a collector of traces: OTLP over gRPC, on a
// loopback address, in plain text or with TLS.
package tracingtest

import (
	"context"
	"encoding/hex"
	"net"
	"slices"
	"strconv"
	"sync"
	"testing"

	collectorpb "go.opentelemetry.io/proto/otlp/collector/trace/v1"
	commonpb "go.opentelemetry.io/proto/otlp/common/v1"
	tracepb "go.opentelemetry.io/proto/otlp/trace/v1"
	"google.golang.org/grpc"
	"google.golang.org/protobuf/proto"
)

// Collector keeps what it is sent. It is safe for concurrent use.
type Collector struct {
	collectorpb.UnimplementedTraceServiceServer

	// Addr is where it listens, HOST:PORT.
	Addr string

	mu       sync.Mutex
	refusal  error
	requests []*collectorpb.ExportTraceServiceRequest
}

// Start starts a collector that ends with the test. Options may have it speak TLS.
func Start(t testing.TB, options ...grpc.ServerOption) *Collector {
	t.Helper()
	l, err := new(net.ListenConfig).Listen(t.Context(), "tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	c := &Collector{Addr: l.Addr().String()}
	server := grpc.NewServer(options...)
	collectorpb.RegisterTraceServiceServer(server, c)
	go func() { _ = server.Serve(l) }() // Until Stop.
	t.Cleanup(server.Stop)
	return c
}

// Export implements the collector's service.
func (c *Collector) Export(_ context.Context, r *collectorpb.ExportTraceServiceRequest) (*collectorpb.ExportTraceServiceResponse, error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.refusal != nil {
		return nil, c.refusal
	}
	c.requests = append(c.requests, r)
	return &collectorpb.ExportTraceServiceResponse{}, nil
}

// Refuse has it answer with err from now on; nil: it takes what comes.
func (c *Collector) Refuse(err error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.refusal = err
}

// Bytes returns all that it was sent, as it was sent.
func (c *Collector) Bytes() []byte {
	c.mu.Lock()
	defer c.mu.Unlock()
	var all []byte
	for _, r := range c.requests {
		encoded, _ := proto.Marshal(r)
		all = append(all, encoded...)
	}
	return all
}

// Spans returns the spans it was sent.
func (c *Collector) Spans() []Span {
	c.mu.Lock()
	defer c.mu.Unlock()
	var all []Span
	for _, r := range c.requests {
		for _, resource := range r.GetResourceSpans() {
			for _, scope := range resource.GetScopeSpans() {
				for _, span := range scope.GetSpans() {
					all = append(all, newSpan(span, resource))
				}
			}
		}
	}
	return all
}

// Named returns the spans with a name.
func (c *Collector) Named(name string) []Span {
	return slices.DeleteFunc(c.Spans(), func(s Span) bool { return s.Name != name })
}

// Span is a span that was sent. Ids are in hexadecimal, and empty where there are none.
type Span struct {
	Name              string
	Trace, ID, Parent string
	Links             []string          // the spans that it is linked to
	Attributes        map[string]string // numbers in decimal
	Resource          map[string]string
	Failed            bool
}

func newSpan(s *tracepb.Span, of *tracepb.ResourceSpans) Span {
	span := Span{
		Name: s.GetName(), Trace: hex.EncodeToString(s.GetTraceId()), ID: hex.EncodeToString(s.GetSpanId()), Parent: hex.EncodeToString(s.GetParentSpanId()),
		Attributes: attributes(s.GetAttributes()), Resource: attributes(of.GetResource().GetAttributes()),
		Failed: s.GetStatus().GetCode() == tracepb.Status_STATUS_CODE_ERROR,
	}
	for _, link := range s.GetLinks() {
		span.Links = append(span.Links, hex.EncodeToString(link.GetSpanId()))
	}
	return span
}

func attributes(pairs []*commonpb.KeyValue) map[string]string {
	all := map[string]string{}
	for _, pair := range pairs {
		all[pair.GetKey()] = pair.GetValue().GetStringValue()
		if n, ok := pair.GetValue().GetValue().(*commonpb.AnyValue_IntValue); ok {
			all[pair.GetKey()] = strconv.FormatInt(n.IntValue, 10)
		}
	}
	return all
}

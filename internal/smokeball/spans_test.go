package smokeball_test

import (
	"maps"
	"strings"
	"testing"

	"go.opentelemetry.io/otel/codes"
	sdktrace "go.opentelemetry.io/otel/sdk/trace"
	"go.opentelemetry.io/otel/sdk/trace/tracetest"

	"smokeball.internal/tokenbroker/internal/secret"
	"smokeball.internal/tokenbroker/internal/token"
)

// An exchange and each of its attempts is a span, with the host, the status and the
// class of what came back, and nothing else of either side. The issuer hears
// nothing of it.
func TestSpans(t *testing.T) {
	spans := tracetest.NewSpanRecorder()
	tracer := sdktrace.NewTracerProvider(sdktrace.WithSpanProcessor(spans)).Tracer("test")
	s := answers(says(503, `{"error":"s3cr3t"}`), sold(accessToken))
	bubble(t, s, func(t *testing.T, n *network) {
		c := token.Credential{Endpoint: endpoint, ClientID: "client-s3cr3t", Secret: secret.New("s3cr3t"), Scopes: []string{"matters/read"}}
		ctx, call := tracer.Start(t.Context(), "call")
		if _, err := n.issuer.Exchange(ctx, c); err != nil {
			t.Fatal(err)
		}
		ended := spans.Ended()
		if len(ended) != 3 || ended[0].Name() != "POST" || ended[1].Name() != "POST" || ended[2].Name() != "exchange" {
			t.Fatalf("there are %d spans", len(ended))
		}
		exchange := ended[2]
		if exchange.Parent().SpanID() != call.SpanContext().SpanID() || exchange.Status().Code == codes.Error {
			t.Errorf("the exchange is under %v, with the status %v", exchange.Parent(), exchange.Status())
		}
		for n, want := range []map[string]string{
			{"server.address": "auth.example", "http.request.method": "POST", "http.response.status_code": "503", "error.type": "unavailable"},
			{"server.address": "auth.example", "http.request.method": "POST", "http.response.status_code": "200", "http.request.resend_count": "1"},
			{"server.address": "auth.example"},
		} {
			span, got := ended[n], map[string]string{}
			for _, a := range span.Attributes() {
				got[string(a.Key)] = a.Value.String()
			}
			if !maps.Equal(got, want) {
				t.Errorf("span %d has the attributes %v, want %v", n, got, want)
			}
			if n < 2 && span.Parent().SpanID() != exchange.SpanContext().SpanID() {
				t.Errorf("attempt %d is not under the exchange", n+1)
			}
			if span.Status().Description != "" || len(span.Events()) != 0 {
				t.Errorf("span %d tells %q and %v", n, span.Status().Description, span.Events())
			}
		}
		// Without a trace there is no span.
		if _, err := n.issuer.Exchange(t.Context(), c); err != nil {
			t.Fatal(err)
		}
		if n := len(spans.Ended()); n != 3 {
			t.Errorf("an exchange without a trace has %d spans", n-3)
		}
	})
	for _, r := range s.requests() {
		for name := range r.header {
			if strings.HasPrefix(strings.ToLower(name), "trace") || strings.EqualFold(name, "baggage") {
				t.Errorf("the issuer is told of the trace: %s", name)
			}
		}
	}
}

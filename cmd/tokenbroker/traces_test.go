package main_test

import (
	"bytes"
	"context"
	"crypto/tls"
	"fmt"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/credentials"
	"google.golang.org/grpc/metadata"
	"google.golang.org/grpc/status"

	pb "smokeball.internal/tokenbroker/gen/tokenbroker/v1"
	"smokeball.internal/tokenbroker/internal/access/accesstest"
	"smokeball.internal/tokenbroker/internal/redisstore/redistest"
	"smokeball.internal/tokenbroker/internal/simulator"
	"smokeball.internal/tokenbroker/internal/tracing/tracingtest"
)

const callersSpan = "b7ad6b7169203331"

// sampled is the context of a call whose caller samples the trace with this number.
func sampled(ctx context.Context, number int) context.Context {
	return metadata.AppendToOutgoingContext(ctx, "traceparent", fmt.Sprintf("00-%032x-%s-01", number, callersSpan))
}

// A call of a caller who traces is one trace, through the broker and Redis to the
// issuer. Who joins it is linked to what it waits for. Nothing that is a secret, or
// names a credential, is in what is exported; the issuer hears of no trace; and what was done up to the
// end is sent.
func TestTraces(t *testing.T) {
	t.Parallel()
	collector, issuer := tracingtest.Start(t), startIssuer(t)
	p := start(t, serveArgs(redistest.Start(t).URL(), keysetFile(t), issuer, "--otlp-endpoint="+collector.Addr, "--trace-sample=0")...).ready()
	conn := p.connect()
	register(t, conn, issuer, "acme", time.Hour)
	register(t, conn, issuer, "initech", time.Hour)

	// One begins the exchange, another joins it while the issuer takes its time.
	if err := issuer.SetFault("client-acme", simulator.Fault{Kind: simulator.KindDelay, Delay: time.Second}); err != nil {
		t.Fatal(err)
	}
	tokens := pb.NewTokenServiceClient(conn)
	answers := make(chan string, 2)
	ask := func(number int) {
		resp, err := tokens.GetToken(sampled(t.Context(), number), &pb.GetTokenRequest{Tenant: "tenants/acme"})
		if err != nil {
			t.Error(err)
		}
		answers <- resp.GetToken().GetAccessToken()
	}
	go ask(1)
	until(t, "under way", func() bool { return issuer.Requests("client-acme") > 0 })
	go ask(2)
	accessToken := <-answers
	<-answers
	// And one that fails.
	if err := issuer.SetFault("client-initech", simulator.Fault{Kind: simulator.KindStatus, Status: http.StatusServiceUnavailable}); err != nil {
		t.Fatal(err)
	}
	if _, err := tokens.GetToken(sampled(t.Context(), 3), &pb.GetTokenRequest{Tenant: "tenants/initech"}); status.Code(err) != codes.Unavailable {
		t.Errorf("while the issuer fails: %v", err)
	}
	// Without a caller's trace there is none, at a ratio of 0.
	if _, err := tokens.GetToken(t.Context(), &pb.GetTokenRequest{Tenant: "tenants/acme"}); err != nil {
		t.Error(err)
	}
	if code := p.terminate(); code != 0 {
		t.Errorf("exit code %d", code)
	}

	of := func(number int, name string) tracingtest.Span {
		t.Helper()
		for _, span := range collector.Named(name) {
			if span.Trace == fmt.Sprintf("%032x", number) {
				return span
			}
		}
		t.Fatalf("there is no %q in trace %d: %v", name, number, collector.Spans())
		return tracingtest.Span{}
	}
	call := of(1, "tokenbroker.v1.TokenService/GetToken")
	wait, flight, exchange := of(1, "wait for token"), of(1, "flight"), of(1, "exchange")
	if call.Parent != callersSpan || wait.Parent != call.ID || flight.Parent != wait.ID || exchange.Parent != flight.ID {
		t.Errorf("the trace does not go from the caller %s through the call %v and the wait %v and the flight %v to the exchange %v", callersSpan, call, wait, flight, exchange)
	}
	if attempt := of(1, "POST"); attempt.Parent != exchange.ID || attempt.Attributes["server.address"] != "127.0.0.1" || attempt.Attributes["http.response.status_code"] != "200" {
		t.Errorf("the request is %+v", attempt)
	}
	for _, script := range []string{"load", "lease", "admit", "save"} {
		if redis := of(1, "EVALSHA "+script); redis.Parent != flight.ID {
			t.Errorf("%s is not the flight's", script)
		}
	}
	if joined := of(2, "wait for token"); len(joined.Links) != 1 || joined.Links[0] != flight.ID {
		t.Errorf("who joined is linked to %v, not to the flight %s", joined.Links, flight.ID)
	}
	if failed := of(3, "exchange"); !failed.Failed || failed.Attributes["error.type"] != "unavailable" {
		t.Errorf("the exchange that failed is %+v", failed)
	}
	for _, span := range collector.Spans() {
		if !strings.HasPrefix(span.Trace, strings.Repeat("0", 31)) {
			t.Errorf("%q is in the trace %s, which nobody has begun", span.Name, span.Trace)
		}
	}
	exported := collector.Bytes()
	for what, planted := range map[string]string{
		"a client secret": "secret-of-acme", "an API key": "api-key-of", "a client id": "client-acme", "a client id that failed": "client-initech", "a token": accessToken, "a Redis key": "tokenbroker:",
	} {
		if planted == "" || bytes.Contains(exported, []byte(planted)) {
			t.Errorf("%s is exported: %q", what, planted)
		}
	}
	if log := p.log.String(); !strings.Contains(log, `"trace_id":"`+fmt.Sprintf("%032x", 1)+`"`) {
		t.Error("the log does not have the trace")
	}
}

// Without the setting nothing is exported, whatever callers and variables say; a collector
// that cannot be reached holds nobody up, neither calls nor the end.
func TestTracesOffAndAway(t *testing.T) {
	t.Parallel()
	collector, issuer := tracingtest.Start(t), startIssuer(t)
	redis, keyset := redistest.Start(t).URL(), keysetFile(t)
	for name, args := range map[string][]string{"off": nil, "away": {"--otlp-endpoint=127.0.0.1:1", "--trace-sample=1"}} {
		p := startProgram(t, binary, []string{"OTEL_EXPORTER_OTLP_ENDPOINT=http://" + collector.Addr}, serveArgs(redis, keyset, issuer, args...)...).ready()
		conn := p.connect()
		register(t, conn, issuer, "acme", time.Hour)
		for n := range 3000 { // More than the exporter's queue holds.
			ctx, cancel := context.WithTimeout(t.Context(), 10*time.Second)
			_, err := pb.NewTokenServiceClient(conn).GetToken(sampled(ctx, n+1), &pb.GetTokenRequest{Tenant: "tenants/acme"})
			cancel()
			if err != nil {
				t.Fatalf("%s: %v", name, err)
			}
		}
		if code := p.terminate(); code != 0 {
			t.Errorf("%s: exit code %d", name, code)
		}
		if told := strings.Contains(p.log.String(), `"spans are`); told != (name == "away") {
			t.Errorf("%s: the log says that spans are not exported, or given up: %t", name, told)
		}
	}
	if n := len(collector.Spans()); n != 0 {
		t.Errorf("%d spans were exported", n)
	}
}

// With authorities the collector is spoken to with TLS, and has to be the one that is meant.
func TestTracesOverTLS(t *testing.T) {
	t.Parallel()
	authority, stranger := accesstest.NewAuthority(t), accesstest.NewAuthority(t)
	issuer, redis, keyset := startIssuer(t), redistest.Start(t).URL(), keysetFile(t)
	for name, signer := range map[string]*accesstest.Authority{"the right one": authority, "another": stranger} {
		certificate := signer.Issue("collector", nil)
		collector := tracingtest.Start(t, grpc.Creds(credentials.NewTLS(&tls.Config{Certificates: []tls.Certificate{certificate.TLS}})))
		ca := filepath.Join(t.TempDir(), "ca.pem")
		if err := os.WriteFile(ca, authority.PEM(), 0o600); err != nil {
			t.Fatal(err)
		}
		p := start(t, serveArgs(redis, keyset, issuer, "--otlp-endpoint="+collector.Addr, "--otlp-ca-file="+ca, "--trace-sample=1")...).ready()
		register(t, p.connect(), issuer, "acme", time.Hour)
		p.terminate()
		if got := len(collector.Spans()) > 0; got != (name == "the right one") {
			t.Errorf("%s: spans were sent: %t", name, got)
		}
	}
}

// The level is another from the next record on.
func TestLogLevelChangesWhileRunning(t *testing.T) {
	t.Parallel()
	issuer := startIssuer(t)
	p := start(t, serveArgs(redistest.Start(t).URL(), keysetFile(t), issuer, "--log-level=info")...).ready()
	conn := p.connect()
	register(t, conn, issuer, "acme", time.Hour)
	records := func() int { return strings.Count(p.log.String(), `"grpc.method":"GetToken"`) }
	ask := func() {
		if _, err := pb.NewTokenServiceClient(conn).GetToken(t.Context(), &pb.GetTokenRequest{Tenant: "tenants/acme"}); err != nil {
			t.Fatal(err)
		}
	}
	put := func(level string) {
		req, err := http.NewRequestWithContext(t.Context(), http.MethodPut, "http://"+p.ops+"/loglevel", strings.NewReader(level))
		if err != nil {
			t.Fatal(err)
		}
		resp, err := http.DefaultClient.Do(req)
		if err != nil {
			t.Fatal(err)
		}
		_ = resp.Body.Close()
		if resp.StatusCode != http.StatusOK || p.get("/loglevel") != level+"\n" {
			t.Errorf("PUT %s is %s, and the level %q", level, resp.Status, p.get("/loglevel"))
		}
	}
	ask()
	put("debug")
	if n := records(); n != 0 {
		t.Errorf("at info there are %d records of GetToken", n)
	}
	ask()
	until(t, "a record of GetToken", func() bool { return records() == 1 })
	put("info")
	ask()
	put("debug")
	until(t, "the last change in the log", func() bool { return strings.Count(p.log.String(), `"after":"debug"`) == 2 })
	if n := records(); n != 1 {
		t.Errorf("after the level was info again there are %d records of GetToken", n)
	}
}

// Calls that fail as fast as they can write no more than the log is to hold, and
// what was left out is told.
func TestLogIsBounded(t *testing.T) {
	t.Parallel()
	issuer := startIssuer(t)
	p := start(t, serveArgs(redistest.Start(t).URL(), keysetFile(t), issuer, "--log-level=info")...).ready()
	tokens := pb.NewTokenServiceClient(p.connect())
	began, calls := time.Now(), 0
	for ; calls < 3000; calls++ {
		if _, err := tokens.GetToken(t.Context(), &pb.GetTokenRequest{Tenant: "tenants/nobody"}); status.Code(err) != codes.NotFound {
			t.Fatal(err)
		}
	}
	most := 500 + int(50*time.Since(began).Seconds()) + 1
	lines := strings.Count(p.log.String(), `"grpc.code":"NotFound"`)
	if lines > most || lines < 500 {
		t.Errorf("of %d calls there are %d records, want 500 to %d", calls, lines, most)
	}
	until(t, "what was left out told", func() bool {
		_, _ = tokens.GetToken(t.Context(), &pb.GetTokenRequest{Tenant: "tenants/nobody"})
		return strings.Contains(p.log.String(), `"left_out":`)
	})
}

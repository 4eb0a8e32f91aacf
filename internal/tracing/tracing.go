// Package tracing sends spans to a collector (OpenTelemetry, OTLP over gRPC). It is
// the only room that knows the SDK; the others know its API, and are given a
// tracer.
package tracing

import (
	"context"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"time"

	"github.com/go-logr/logr"
	"go.opentelemetry.io/otel"
	"go.opentelemetry.io/otel/exporters/otlp/otlptrace/otlptracegrpc"
	"go.opentelemetry.io/otel/sdk/resource"
	sdktrace "go.opentelemetry.io/otel/sdk/trace"
	semconv "go.opentelemetry.io/otel/semconv/v1.43.0"
	"go.opentelemetry.io/otel/trace"
	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials"
	"google.golang.org/grpc/credentials/insecure"
)

const (
	// Spans that wait to be sent, some 1 KiB each. What is more is dropped.
	maxWaiting = 2048
	maxBatch   = 512
	batchEvery = 5 * time.Second
	// A batch is tried for this long, and then dropped.
	exportTimeout = 10 * time.Second
	retryElapsed  = 8 * time.Second
	// How long Close takes at most.
	farewell = 3 * time.Second
)

// Config says where spans go, and of what there are some. Version and
// Authorities may be missing.
type Config struct {
	// Endpoint is the collector's HOST:PORT.
	Endpoint string
	// Plaintext has it spoken to without TLS.
	Plaintext bool
	// Authorities are those of its certificate; nil: the system's.
	Authorities *x509.CertPool
	// Ratio is how many traces are sampled that begin here, from 0 to 1.
	Ratio float64
	// Version of the program.
	Version string
	// Logger gets what goes wrong. Required.
	Logger *slog.Logger
}

// Exporter sends spans. Nobody waits for it: while the collector is away, as many
// spans wait for it as there is room for, and others are dropped. A nil Exporter
// sends none.
type Exporter struct {
	provider *sdktrace.TracerProvider
	conn     *grpc.ClientConn
	ratio    float64
	log      *slog.Logger
}

// Start returns an exporter, which does not connect before there is something to
// send. Close ends it. What a process has only one of, the handlers of OpenTelemetry's own
// errors, is set here: they can quote what was sent.
//
// The resource is service.name tokenbroker, of this version, with an id of this
// process (service.instance.id) and the host's name; OTEL_SERVICE_NAME and OTEL_RESOURCE_ATTRIBUTES go before these.
// OTEL_EXPORTER_OTLP_HEADERS is sent along, where the collector asks who is there.
func Start(c Config) (*Exporter, error) {
	otel.SetErrorHandler(otel.ErrorHandlerFunc(func(err error) {
		c.Logger.Warn("opentelemetry reports an error", "type", fmt.Sprintf("%T", err))
	}))
	otel.SetLogger(logr.Discard())
	transport := credentials.NewTLS(&tls.Config{RootCAs: c.Authorities, MinVersion: tls.VersionTLS12})
	if c.Plaintext {
		transport = insecure.NewCredentials()
	}
	conn, err := grpc.NewClient(c.Endpoint, grpc.WithTransportCredentials(transport))
	if err != nil {
		return nil, errors.New("the collector's address cannot be used")
	}
	ctx := context.Background()
	exporter, err := otlptracegrpc.New(ctx, otlptracegrpc.WithGRPCConn(conn), otlptracegrpc.WithTimeout(exportTimeout),
		otlptracegrpc.WithRetry(otlptracegrpc.RetryConfig{Enabled: true, InitialInterval: time.Second, MaxInterval: 4 * time.Second, MaxElapsedTime: retryElapsed}))
	if err != nil {
		_ = conn.Close()
		return nil, errors.New("the exporter cannot be made")
	}
	host, _ := os.Hostname()
	itself, err := resource.New(ctx, resource.WithTelemetrySDK(), resource.WithAttributes(
		semconv.ServiceName("tokenbroker"), semconv.ServiceVersion(c.Version), semconv.ServiceInstanceID(rand.Text()), semconv.HostName(host),
	), resource.WithFromEnv())
	if err != nil {
		c.Logger.Warn("OTEL_RESOURCE_ATTRIBUTES is not understood as a whole")
	}
	provider := sdktrace.NewTracerProvider(
		sdktrace.WithResource(itself),
		sdktrace.WithSampler(newSampler()),
		sdktrace.WithBatcher(&reporting{SpanExporter: exporter, log: c.Logger}, sdktrace.WithMaxQueueSize(maxWaiting),
			sdktrace.WithMaxExportBatchSize(maxBatch), sdktrace.WithBatchTimeout(batchEvery), sdktrace.WithExportTimeout(exportTimeout)),
	)
	return &Exporter{provider, conn, c.Ratio, c.Logger}, nil
}

// Tracer returns what begins spans; nil if there are to be none.
func (e *Exporter) Tracer() trace.Tracer {
	if e == nil {
		return nil
	}
	return tracer{sdk: e.provider.Tracer("smokeball.internal/tokenbroker"), ratio: e.ratio}
}

// Close sends what has not been sent yet, for three seconds at most, and gives up
// the rest.
func (e *Exporter) Close(ctx context.Context) {
	if e == nil {
		return
	}
	ctx, cancel := context.WithTimeout(ctx, farewell)
	defer cancel()
	if err := e.provider.Shutdown(ctx); err != nil {
		e.log.Warn("spans are given up, since they could not be exported in time")
	}
	_ = e.conn.Close()
}

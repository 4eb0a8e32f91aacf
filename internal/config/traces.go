package config

import (
	"crypto/x509"
	"errors"
	"fmt"
	"net"
	"os"
)

// Traces is the settings of traces.
type Traces struct {
	OTLPEndpoint string  `name:"otlp-endpoint" placeholder:"HOST:PORT" help:"Collector of traces (OpenTelemetry, OTLP over gRPC). TLS, but plain text to a loopback address without --otlp-ca-file. There are no traces without it. See docs/telemetry.md."`
	OTLPCAFile   string  `name:"otlp-ca-file" placeholder:"FILE" help:"Certificate authorities for the collector, PEM; those of the system if not given."`
	TraceSample  float64 `name:"trace-sample" default:"0.01" placeholder:"RATIO" help:"How many of the calls are traced whose callers trace nothing themselves, from 0 to 1. Where a caller does, the trace goes on if it is sampled. Default ${default}."`
}

// Validate refuses a collector that is none, and a ratio that is none. Kong calls
// it.
func (c *Traces) Validate() error {
	if !(c.TraceSample >= 0 && c.TraceSample <= 1) { // Nor NaN.
		return errors.New("--trace-sample must be from 0 to 1")
	}
	if c.OTLPEndpoint == "" {
		if c.OTLPCAFile != "" {
			return errors.New("--otlp-ca-file needs --otlp-endpoint: there are no traces without it")
		}
		return nil
	}
	if host, port, err := net.SplitHostPort(c.OTLPEndpoint); err != nil || host == "" || port == "" {
		return errors.New("--otlp-endpoint: want HOST:PORT, without http:// in front")
	}
	return nil
}

// OTLPPlaintext says whether the collector is spoken to without TLS.
func (c *Traces) OTLPPlaintext() bool { return c.OTLPCAFile == "" && loopback(c.OTLPEndpoint) }

// OTLPAuthorities returns the certificate authorities for the collector; nil are
// those of the system.
func (c *Traces) OTLPAuthorities() (*x509.CertPool, error) {
	if c.OTLPCAFile == "" {
		return nil, nil
	}
	pem, err := os.ReadFile(c.OTLPCAFile)
	if err != nil {
		return nil, fmt.Errorf("--otlp-ca-file: %w", err)
	}
	pool := x509.NewCertPool()
	if !pool.AppendCertsFromPEM(pem) {
		return nil, fmt.Errorf("--otlp-ca-file: %s has no PEM certificate in it", c.OTLPCAFile)
	}
	return pool, nil
}

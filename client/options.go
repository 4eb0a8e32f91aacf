package client

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"io"

	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials"
	"google.golang.org/grpc/credentials/local"
)

// Option changes how a client connects to the broker and says who it is.
type Option func(*options)

type options struct {
	channels  []channel // how to connect; one at most
	jwtFiles  []string  // one at most
	telemetry bool
	dial      []grpc.DialOption // of the caller
}

// channel is a way to connect.
type channel struct {
	option     string // that it is from
	identifies bool   // It proves who the client is.
	plain      bool   // It is not encrypted, and leads to this machine only.
	// open returns its credentials, and what has to be closed after them (may be nil).
	open func(context.Context) (credentials.TransportCredentials, io.Closer, error)
}

func (o *options) add(c channel) { o.channels = append(o.channels, c) }

// WithTLS connects with TLS 1.3. The broker's certificate must be of an authority in
// caFile, a PEM bundle; empty: of one that the system trusts. The client shows
// no certificate, see WithJWTFile.
//
// The file is read for each connection, so it may be replaced.
func WithTLS(caFile string) Option {
	return func(o *options) {
		o.add(channel{option: "WithTLS", open: tlsFiles{ca: caFile}.open})
	}
}

// WithMTLS is WithTLS, and the client shows the certificate of certFile with the key of
// keyFile, both PEM. It is who that certificate says.
//
// The files are read for each connection, so they may be replaced: one after the
// other, too, since a connection that fails for that is tried again within seconds.
func WithMTLS(caFile, certFile, keyFile string) Option {
	return func(o *options) {
		o.add(channel{option: "WithMTLS", identifies: true, open: tlsFiles{caFile, certFile, keyFile, true}.open})
	}
}

// WithTLSConfig connects with TLS as config says, of which a copy is used. It can
// be combined with WithJWTFile whether it has a client certificate or not. A config
// that verifies no certificate of the broker is an error of New.
func WithTLSConfig(config *tls.Config) Option {
	return func(o *options) {
		o.add(channel{option: "WithTLSConfig", open: func(context.Context) (credentials.TransportCredentials, io.Closer, error) {
			switch {
			case config == nil:
				return nil, nil, errors.New("there is no configuration")
			case config.InsecureSkipVerify && config.VerifyConnection == nil && config.VerifyPeerCertificate == nil:
				return nil, nil, errors.New("the configuration verifies no certificate of the broker (InsecureSkipVerify)")
			}
			return credentials.NewTLS(config), nil, nil // It makes the copy.
		}})
	}
}

// WithSPIFFE connects with TLS 1.3 and the X.509 identity that the SPIFFE Workload
// API gives to this process. The broker must have the SPIFFE ID brokerID; its host
// name does not matter. Identity and trust bundle are kept current. The address of the API is
// in the environment variable SPIFFE_ENDPOINT_SOCKET.
//
// New waits for the first identity, as long as its context allows.
func WithSPIFFE(brokerID string) Option {
	return func(o *options) {
		o.add(channel{option: "WithSPIFFE", identifies: true, open: func(ctx context.Context) (credentials.TransportCredentials, io.Closer, error) {
			return openSPIFFE(ctx, brokerID)
		}})
	}
}

// WithInsecure connects in plain text, to this machine only: to a loopback address
// or a Unix socket. A target that is elsewhere is an error of New, and a connection that
// leads elsewhere is not made.
func WithInsecure() Option {
	return func(o *options) {
		o.add(channel{option: "WithInsecure", plain: true, open: func(context.Context) (credentials.TransportCredentials, io.Closer, error) {
			return local.NewCredentials(), nil, nil
		}})
	}
}

// WithJWTFile has each call carry the JSON web token that is in the file at path, for
// example a Kubernetes projected service-account token. The file is read for each
// call (there are few: tokens are held in memory), so it may be replaced. White space around the
// token is ignored. The token is sent over TLS only, or over WithInsecure, which
// does not leave the machine.
//
// Replicas are not asked for their health then, and calls go to all that are connected. A
// broker that refuses the token, because it has expired or the issuer's keys are new, would
// refuse it there too: callers get that as UNAUTHENTICATED, and the next call with another
// token is good.
//
// It does not go with WithMTLS and WithSPIFFE, which say who the client is
// themselves.
func WithJWTFile(path string) Option {
	return func(o *options) { o.jwtFiles = append(o.jwtFiles, path) }
}

// WithOpenTelemetry records a span and metrics of each call to the broker, at the
// global providers of OpenTelemetry, and sends the trace context along with the
// global propagator.
func WithOpenTelemetry() Option {
	return func(o *options) { o.telemetry = true }
}

// WithDialOptions gives options to gRPC, which prevail over those of this package.
// With credentials among them, what the options of this package promise of the
// connection is up to those; a token of WithJWTFile still goes over none that is not
// encrypted.
func WithDialOptions(dial ...grpc.DialOption) Option {
	return func(o *options) { o.dial = append(o.dial, dial...) }
}

// channel returns the one way to connect.
func (o *options) channel() (channel, error) {
	switch len(o.channels) {
	case 0:
		WithTLS("")(o)
	case 1:
	default:
		return channel{}, fmt.Errorf("%s and %s are two ways to connect: use one", o.channels[0].option, o.channels[1].option)
	}
	c := o.channels[0]
	switch {
	case len(o.jwtFiles) > 1:
		return channel{}, errors.New("WithJWTFile is there twice")
	case len(o.jwtFiles) == 1 && c.identifies:
		return channel{}, fmt.Errorf("%s and WithJWTFile are two ways to say who the client is: use one", c.option)
	}
	return c, nil
}

// serviceConfig returns what gRPC does with the replicas. Asking them for their health is a
// call that carries the JSON web token like all others. To gRPC a replica that refuses it
// is one that is not serving: callers would hear UNAVAILABLE, and gRPC would ask again
// after pauses of up to two minutes, whatever is in the file by then. Behind a proxy, where
// such tokens are at home, the answer says nothing about a replica anyway.
func (o *options) serviceConfig() string {
	if len(o.jwtFiles) > 0 {
		return serviceConfig
	}
	return healthConfig
}

// credentials returns the options for how the connection is secured and who the
// client is, and what has to be closed after the connection (may be nil).
func (o *options) credentials(ctx context.Context, c channel) ([]grpc.DialOption, io.Closer, error) {
	var dial []grpc.DialOption
	if c.plain {
		dial = append(dial, grpc.WithNoProxy()) // A proxy on this machine would lead out of it.
	}
	for _, path := range o.jwtFiles {
		file := jwtFile{path: path, local: c.plain}
		if _, err := file.read(); err != nil {
			return nil, nil, fmt.Errorf("WithJWTFile: %w", err)
		}
		dial = append(dial, grpc.WithPerRPCCredentials(file))
	}
	transport, closer, err := c.open(ctx)
	if err != nil {
		return nil, nil, fmt.Errorf("%s: %w", c.option, err)
	}
	return append(dial, grpc.WithTransportCredentials(transport)), closer, nil
}

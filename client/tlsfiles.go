package client

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"fmt"
	"io"
	"net"
	"os"

	"google.golang.org/grpc/credentials"
)

// tlsFiles are the files of a connection with TLS.
type tlsFiles struct {
	ca        string // empty: the system's authorities
	cert, key string
	mutual    bool // cert and key are shown
}

func (f tlsFiles) open(context.Context) (credentials.TransportCredentials, io.Closer, error) {
	config, err := f.config()
	if err != nil {
		return nil, nil, err
	}
	return perHandshake{credentials.NewTLS(config), f}, nil, nil
}

// config reads the files. The error tells nothing of what is in them.
func (f tlsFiles) config() (*tls.Config, error) {
	config := &tls.Config{MinVersion: tls.VersionTLS13}
	if f.ca != "" {
		bundle, err := os.ReadFile(f.ca)
		if err != nil {
			return nil, fmt.Errorf("authorities: %w", err)
		}
		config.RootCAs = x509.NewCertPool()
		if !config.RootCAs.AppendCertsFromPEM(bundle) {
			return nil, fmt.Errorf("authorities: there is no PEM certificate in %s", f.ca)
		}
	}
	if f.mutual {
		pair, err := tls.LoadX509KeyPair(f.cert, f.key)
		if err != nil {
			return nil, fmt.Errorf("certificate and key: %w", err)
		}
		config.Certificates = []tls.Certificate{pair}
	}
	return config, nil
}

// perHandshake is TLS with what the files have in them when a connection is made.
// Connections are few and live long, so nobody has to watch the files.
type perHandshake struct {
	credentials.TransportCredentials
	files tlsFiles
}

// ClientHandshake implements credentials.TransportCredentials.
func (p perHandshake) ClientHandshake(ctx context.Context, authority string, raw net.Conn) (net.Conn, credentials.AuthInfo, error) {
	config, err := p.files.config()
	if err != nil {
		return nil, nil, err
	}
	return credentials.NewTLS(config).ClientHandshake(ctx, authority, raw)
}

// Clone implements credentials.TransportCredentials.
func (p perHandshake) Clone() credentials.TransportCredentials {
	return perHandshake{p.TransportCredentials.Clone(), p.files}
}

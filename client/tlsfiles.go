package client

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"fmt"
	"io"
	"os"
	"time"

	"google.golang.org/grpc/credentials"
)

// tlsFiles are the files of a connection with TLS.
type tlsFiles struct {
	ca        string // empty: the system's authorities
	cert, key string
	mutual    bool // cert and key are shown
}

func (f tlsFiles) open(context.Context) (credentials.TransportCredentials, io.Closer, error) {
	if _, _, err := f.read(); err != nil {
		return nil, nil, err
	}
	return newPerConnection(f.read), nil, nil
}

// read returns what is in the files, and when the client's certificate ends; zero:
// there is none. The error tells nothing of what is in them.
func (f tlsFiles) read() (*tls.Config, time.Time, error) {
	config := &tls.Config{MinVersion: tls.VersionTLS13}
	if f.ca != "" {
		bundle, err := os.ReadFile(f.ca)
		if err != nil {
			return nil, time.Time{}, fmt.Errorf("authorities: %w", err)
		}
		config.RootCAs = x509.NewCertPool()
		if !config.RootCAs.AppendCertsFromPEM(bundle) {
			return nil, time.Time{}, fmt.Errorf("authorities: there is no PEM certificate in %s", f.ca)
		}
	}
	if !f.mutual {
		return config, time.Time{}, nil
	}
	pair, err := tls.LoadX509KeyPair(f.cert, f.key)
	if err != nil {
		return nil, time.Time{}, fmt.Errorf("certificate and key: %w", err)
	}
	config.Certificates = []tls.Certificate{pair}
	return config, pair.Leaf.NotAfter, nil
}

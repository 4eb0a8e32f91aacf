package client

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"time"

	"github.com/spiffe/go-spiffe/v2/spiffeid"
	"github.com/spiffe/go-spiffe/v2/spiffetls/tlsconfig"
	"github.com/spiffe/go-spiffe/v2/workloadapi"
	"google.golang.org/grpc/credentials"
)

// openSPIFFE returns credentials with the identity of this process. They are
// current until the closer is closed.
func openSPIFFE(ctx context.Context, brokerID string) (credentials.TransportCredentials, io.Closer, error) {
	id, err := spiffeid.FromString(brokerID)
	if err != nil {
		return nil, nil, fmt.Errorf("the broker's SPIFFE ID %q: %w", brokerID, err)
	}
	if _, ok := workloadapi.GetDefaultAddress(); !ok {
		return nil, nil, errors.New("SPIFFE_ENDPOINT_SOCKET is not set")
	}
	source, err := workloadapi.NewX509Source(ctx)
	if err != nil {
		return nil, nil, fmt.Errorf("the identity of this process: %w", err)
	}
	return newPerConnection(func() (*tls.Config, time.Time, error) {
		own, err := source.GetX509SVID()
		if err != nil {
			return nil, time.Time{}, err
		}
		config := tlsconfig.MTLSClientConfig(own, source, tlsconfig.AuthorizeID(id))
		config.MinVersion = tls.VersionTLS13
		return config, own.Certificates[0].NotAfter, nil
	}), source, nil
}

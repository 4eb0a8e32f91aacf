package bench_test

import (
	"context"
	"net/url"

	"golang.org/x/oauth2"
	"golang.org/x/oauth2/clientcredentials"

	"smokeball.internal/tokenbroker/client"
)

// way is how callers come by a token.
type way string

const (
	byCall   way = ""       // They call GetToken for each (wire).
	byClient way = "client" // The Go client of the broker has it in their memory.
	byOAuth2 way = "oauth2" // They buy it themselves, and x/oauth2 has it in their memory.
)

// ask is what a caller does for a token of a tenant.
type ask func(ctx context.Context, tenant string) error

// account is what a caller needs who buys for itself.
type account struct{ TokenURL, ID, Secret string }

// open returns what callers ask with, ready to be asked, and what closes it.
func (o order) open(ctx context.Context) (asks []ask, leave func(), err error) {
	switch o.Way {
	case byClient:
		c, err := client.New(ctx, o.Address, client.WithMTLS(o.Files.CA, o.Files.Cert, o.Files.Key))
		if err != nil {
			return nil, nil, err
		}
		source := c.TokenSource("acme")
		asks = []ask{func(context.Context, string) error { _, err := source.Token(); return err }}
		return asks, func() { _ = c.Close() }, asks[0](ctx, "")
	case byOAuth2:
		config := clientcredentials.Config{
			TokenURL: o.Issuer.TokenURL, ClientID: o.Issuer.ID, ClientSecret: o.Issuer.Secret, AuthStyle: oauth2.AuthStyleInHeader,
			EndpointParams: url.Values{"client_id": {o.Issuer.ID}}, // Smokeball wants it in both.
		}
		source := config.TokenSource(ctx)
		asks = []ask{func(context.Context, string) error { _, err := source.Token(); return err }}
		return asks, func() {}, asks[0](ctx, "")
	default:
		return o.connect(ctx)
	}
}

func (o order) connect(ctx context.Context) (asks []ask, leave func(), err error) {
	var closers []func() error
	leave = func() {
		for _, c := range closers {
			_ = c()
		}
	}
	for range o.Connections {
		w, err := o.Files.connect(ctx, o.Address)
		if err != nil {
			return nil, nil, err
		}
		closers = append(closers, w.conn.Close)
		asks = append(asks, w.ask)
	}
	return asks, leave, nil
}

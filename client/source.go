package client

import (
	"context"

	"golang.org/x/oauth2"
)

// TokenSource has the tokens of one tenant ready.
type TokenSource struct{ client *Client }

// SourceOption changes what tokens a source has.
type SourceOption func(*TokenSource)

// TokenSource returns the source of a tenant's tokens.
func (c *Client) TokenSource(tenant string, opts ...SourceOption) *TokenSource {
	return &TokenSource{client: c}
}

// Token implements oauth2.TokenSource.
func (s *TokenSource) Token() (*oauth2.Token, error) { return nil, errUnbuilt }

// Get returns the token, waiting for it within ctx if there is none.
func (s *TokenSource) Get(ctx context.Context) (*Token, error) { return nil, errUnbuilt }

// Replace asks the broker for another token than the one with this id, which
// Smokeball rejected.
func (s *TokenSource) Replace(ctx context.Context, rejectedID string) (*Token, error) {
	return nil, errUnbuilt
}

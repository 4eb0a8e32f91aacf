package brokertest

import (
	"context"
	"fmt"
	"path"
	"sync"
	"time"

	"smokeball.internal/tokenbroker/internal/broker"
	"smokeball.internal/tokenbroker/internal/secret"
	"smokeball.internal/tokenbroker/internal/tenant"
	"smokeball.internal/tokenbroker/internal/token"
)

// Issuer sells tokens for whatever Answer allows, and counts them. The zero
// Issuer sells tokens of an hour to everyone at once.
type Issuer struct {
	// Took is how long an exchange takes.
	Took time.Duration
	// Lifetime of the tokens; 0: an hour.
	Lifetime time.Duration
	// Answer decides about an exchange; nil, or a nil failure: a token.
	Answer func(c token.Credential) *token.Failure
	// Same has the token of each credential repeated with a full lifetime.
	Same bool

	mu     sync.Mutex
	asked  map[string]int // :: client id → exchanges
	bought map[string]int // :: client id → tokens
}

var _ broker.Issuer = (*Issuer)(nil)

// TokenEndpoint implements broker.Issuer.
func (i *Issuer) TokenEndpoint(t *tenant.Tenant) string { return "issuer." + string(t.Region) }

// APIBaseURL implements broker.Issuer.
func (i *Issuer) APIBaseURL(t *tenant.Tenant) string {
	return path.Join("api."+string(t.Region), t.AccountID)
}

// Exchange implements broker.Issuer.
func (i *Issuer) Exchange(ctx context.Context, c token.Credential) (*token.Token, error) {
	sent := time.Now()
	i.mu.Lock()
	if i.asked == nil {
		i.asked, i.bought = map[string]int{}, map[string]int{}
	}
	i.asked[c.ClientID]++
	took, answer, lifetime, same := i.Took, i.Answer, i.Lifetime, i.Same
	i.mu.Unlock()
	if err := pass(ctx, took); err != nil {
		return nil, err
	}
	if answer != nil {
		if f := answer(c); f != nil {
			return nil, f
		}
	}
	if lifetime == 0 {
		lifetime = time.Hour
	}
	i.mu.Lock()
	defer i.mu.Unlock()
	i.bought[c.ClientID]++
	n := i.bought[c.ClientID]
	if same {
		n = 1
	}
	text := secret.New(fmt.Sprintf("token %d of %s for %v", n, c.ClientID, c.Scopes))
	return &token.Token{ID: token.ID(text), AccessToken: text, Scopes: c.Scopes, Issued: sent, Expires: sent.Add(lifetime)}, nil
}

// pass waits for some time, or the end of ctx. To wait for no time at all on a timer's
// channel has the race detector crash now and then in virtual time (Go 1.26).
func pass(ctx context.Context, d time.Duration) error {
	if d == 0 {
		return ctx.Err()
	}
	select {
	case <-time.After(d):
		return nil
	case <-ctx.Done():
		return ctx.Err()
	}
}

// Set changes the issuer while it is in use.
func (i *Issuer) Set(change func(*Issuer)) {
	i.mu.Lock()
	defer i.mu.Unlock()
	change(i)
}

// Asked returns how many exchanges were tried with the client id.
func (i *Issuer) Asked(clientID string) int {
	i.mu.Lock()
	defer i.mu.Unlock()
	return i.asked[clientID]
}

// Bought returns how many tokens were sold for the client id.
func (i *Issuer) Bought(clientID string) int {
	i.mu.Lock()
	defer i.mu.Unlock()
	return i.bought[clientID]
}

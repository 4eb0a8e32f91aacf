package statuspage_test

import (
	"context"
	"fmt"
	"slices"
	"strings"
	"testing"
	"testing/synctest"

	"smokeball.internal/tokenbroker/internal/broker"
	"smokeball.internal/tokenbroker/internal/broker/brokertest"
	"smokeball.internal/tokenbroker/internal/secret"
	"smokeball.internal/tokenbroker/internal/statuspage"
	"smokeball.internal/tokenbroker/internal/tenant"
	"smokeball.internal/tokenbroker/internal/token"
)

// strange is a store into which somebody has written ids that are none.
type strange struct {
	*brokertest.Store
	ids []string
}

func (s strange) ListTenants(ctx context.Context, after string, limit int) (tenants []*tenant.Tenant, next string, err error) {
	for _, id := range s.ids {
		if id > after && len(tenants) < limit {
			tenants = append(tenants, &tenant.Tenant{ID: id})
		}
	}
	if len(tenants) == limit {
		next = tenants[limit-1].ID
	}
	return tenants, next, ctx.Err()
}

// Whoever can write to Redis can make no page long, nor have the link to the next one
// refused, nor change how the rest is read.
func TestIDsThatAreNone(t *testing.T) {
	var all []string
	for n := range 120 {
		all = append(all, fmt.Sprintf("firm-%03d", n), fmt.Sprintf("firm-%03d-", n)+strings.Repeat("x", 5000))
	}
	all[0] = "firm-000\u202e"
	slices.Sort(all)
	h := newHouse(t, func(c *statuspage.Config, h *house) { c.Registry = broker.NewRegistry(h.broker, strange{h.Store, all}) })
	wants(t, h.see(t, "/status"), "firm-000\ufffd", "not:\u202e", "not:xxx")
	seen := 0
	for _, page := range walk(t, h, "/status") {
		seen += len(page)
	}
	if seen != 120 {
		t.Errorf("%d of 120 tenants are on the pages", seen)
	}
}

// Tenants of one credential have one token: that it is in trouble is seen by those who
// see any of them.
func TestTheTroubleOfTenantsThatShareACredential(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		tokens, verifier := newIDP(t)
		h := newHouse(t, func(c *statuspage.Config, h *house) {
			c.Guard = guardOf(t, verifier, h.broker, `rules:
- {name: acme, principals: ["jwt:acme"], roles: [tenant.viewer], tenants: [acme]}
- {name: globex, principals: ["jwt:globex"], roles: [tenant.viewer], tenants: [globex]}
`)
		})
		for _, id := range []string{"acme", "globex"} {
			shared := tenant.Tenant{ID: id, Region: tenant.US, Environment: tenant.Production, ClientID: "one", Secret: tenant.Secret{Value: secret.New("same")}}
			if _, err := h.registry.Create(t.Context(), shared, false); err != nil {
				t.Fatal(err)
			}
		}
		synctest.Wait()
		h.Issuer.Answer = func(token.Credential) *token.Failure { return &token.Failure{Class: token.CredentialsRejected} }
		for _, id := range []string{"acme", "globex"} {
			if _, err := h.broker.Get(t.Context(), id, nil, 0); err == nil {
				t.Fatalf("%s has a token", id)
			}
		}
		for id, other := range map[string]string{"acme": "globex", "globex": "acme"} {
			r := request(t, "/status")
			r.Header.Set("Authorization", "Bearer "+tokens.Sign(tokens.Claims(id, "tokenbroker")))
			page := serve(h.page, r).body
			if seen := ids(page, "trouble"); !slices.Equal(seen, []string{id}) || strings.Contains(page, other) {
				t.Errorf("%s sees in trouble: %q", id, seen)
			}
		}
	})
}

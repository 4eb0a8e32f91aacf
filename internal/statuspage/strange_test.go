package statuspage_test

import (
	"context"
	"fmt"
	"slices"
	"strings"
	"testing"

	"smokeball.internal/tokenbroker/internal/broker"
	"smokeball.internal/tokenbroker/internal/broker/brokertest"
	"smokeball.internal/tokenbroker/internal/statuspage"
	"smokeball.internal/tokenbroker/internal/tenant"
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

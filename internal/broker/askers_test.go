package broker_test

import (
	"fmt"
	"testing"
	"testing/synctest"
	"time"

	"smokeball.internal/tokenbroker/internal/broker"
	"smokeball.internal/tokenbroker/internal/broker/brokertest"
	"smokeball.internal/tokenbroker/internal/tenant"
)

// A grant for several accounts is a credential that many tenants have.
func TestManyTenantsShareACredential(t *testing.T) {
	const tenants = 100
	synctest.Test(t, func(t *testing.T) {
		fleet := brokertest.NewFleet(t, 1)
		b := fleet.Replicas[0]
		watches := make([]*broker.Watch, tenants)
		for n := range watches {
			id := fmt.Sprintf("t%d", n)
			fleet.Register(t, id, func(r *tenant.Tenant) { r.ClientID = "shared" })
			synctest.Wait()
			watches[n] = b.Watch(id, nil)
			defer watches[n].Close()
		}
		another := func(n int, than string) string {
			t.Helper()
			for { // It looks now and then, and then there is no news.
				a, _, err := watches[n].Next(t.Context())
				if err != nil {
					t.Fatalf("t%d: %v", n, err)
				}
				if a.Token.ID != than {
					return a.Token.ID
				}
			}
		}
		first := another(0, "")
		for n := 1; n < tenants; n++ {
			if id := another(n, ""); id != first {
				t.Fatalf("t%d has a token of its own", n)
			}
		}
		// A new one is announced to all of them, when it is here and not a minute later.
		second := another(0, first)
		at := time.Now()
		for n := 1; n < tenants; n++ {
			if id := another(n, first); id != second || !time.Now().Equal(at) {
				t.Fatalf("t%d hears of it %v later; it is the same as t0's: %v", n, time.Since(at), id == second)
			}
		}
		if asked := fleet.Issuer.Asked("shared"); asked != 2 {
			t.Errorf("%d exchanges", asked)
		}
		// Whoever was the first to ask is gone: the others have it replaced as before.
		if err := fleet.Registry().Delete(t.Context(), "t0", "", false); err != nil {
			t.Fatal(err)
		}
		for n := 1; n < tenants; n++ {
			another(n, second)
		}
		if asked := fleet.Issuer.Asked("shared"); asked != 3 {
			t.Errorf("%d exchanges", asked)
		}
	})
}

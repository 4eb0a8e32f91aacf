package main_test

import (
	"context"
	"fmt"
	"slices"
	"testing"
	"time"

	"google.golang.org/grpc"

	pb "smokeball.internal/tokenbroker/gen/tokenbroker/v1"
	"smokeball.internal/tokenbroker/internal/simulator"
)

// TestAChangeIsActedOnEverywhereWithinASecond measures how long after a change
// was acknowledged by one replica each of the others acts on it.
func TestAChangeIsActedOnEverywhereWithinASecond(t *testing.T) {
	const tenants = 25
	const disabled = "FailedPrecondition/TENANT_DISABLED"
	f := startFleet(t, 3)
	kinds := []string{"disable", "enable", "rotate", "refresh"}
	took := map[string][]time.Duration{}
	for n := range tenants {
		id, at := fmt.Sprintf("firm-%d", n), n%len(f.conns)
		register(t, f.conns[0], f.issuer, id, time.Hour)
		f.issuer.SetClient(simulator.Client{Endpoint: "us/production", ID: "client-" + id, Secrets: []string{"secret-of-" + id, "next-secret-of-" + id}})
		held := f.agreed(t, id)
		admin, tokens := pb.NewTenantServiceClient(f.conns[at]), pb.NewTokenServiceClient(f.conns[at])
		another := func(answer string) bool { return len(answer) == 32 && answer != held } // The id of a token.
		set := func(state pb.Tenant_State) error {
			_, err := admin.UpdateTenant(t.Context(), &pb.UpdateTenantRequest{Tenant: &pb.Tenant{Name: "tenants/" + id, State: state}})
			return err
		}
		for _, kind := range kinds {
			change, acted := func() error { return set(pb.Tenant_STATE_DISABLED) }, func(answer string) bool { return answer == disabled }
			switch kind {
			case "enable":
				change, acted = func() error { return set(pb.Tenant_STATE_ACTIVE) }, func(answer string) bool { return answer == held }
			case "rotate":
				acted = another
				change = func() error {
					_, err := admin.RotateClientSecret(t.Context(), &pb.RotateClientSecretRequest{Name: "tenants/" + id, ClientSecret: "next-secret-of-" + id})
					return err
				}
			case "refresh":
				held = f.agreed(t, id)
				acted = another
				change = func() error {
					_, err := tokens.RefreshToken(t.Context(), &pb.RefreshTokenRequest{Tenant: "tenants/" + id, RejectedTokenId: held})
					return err
				}
			}
			took[kind] = append(took[kind], f.measure(t, at, id, change, acted)...)
		}
	}
	// One for each tenant at first, one for each rotation and one for each refresh.
	if bought := f.issuer.Bought(simulator.AllClients); bought != 3*tenants {
		t.Errorf("%d tokens bought where %d are needed", bought, 3*tenants)
	}
	for _, kind := range kinds {
		slices.Sort(took[kind])
		count := len(took[kind])
		median, p99, worst := took[kind][count/2], took[kind][count*99/100], took[kind][count-1]
		t.Logf("%-8s %d changes heard by another replica: median %v, p99 %v, worst %v", kind, count,
			median.Round(10*time.Microsecond), p99.Round(10*time.Microsecond), worst.Round(10*time.Microsecond))
		if worst > time.Second {
			t.Errorf("%s took %v to be acted on", kind, worst)
		}
	}
}

// measure makes a change at one replica, and returns for each other one how long
// after it was acknowledged the replica's answers showed it; 0, if they did so
// before. They are asked all the while.
func (f *fleet) measure(t *testing.T, at int, id string, change func() error, acted func(answer string) bool) []time.Duration {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), 10*time.Second)
	defer cancel()
	shown := make(chan time.Time)
	for n, conn := range f.conns {
		if n == at {
			continue
		}
		if got := answer(ctx, conn, id); acted(got) {
			t.Errorf("%s on replica %d: %s before the change", id, n, got)
		}
		go func() {
			for !acted(answer(ctx, conn, id)) && ctx.Err() == nil {
			}
			shown <- time.Now()
		}()
	}
	if err := change(); err != nil {
		t.Errorf("%s: %v", id, err)
		cancel()
	}
	acknowledged := time.Now()
	var took []time.Duration
	for range len(f.conns) - 1 {
		took = append(took, max(0, (<-shown).Sub(acknowledged)))
	}
	if ctx.Err() != nil {
		t.Fatalf("a change of %s is not acted on within %v", id, slices.Max(took))
	}
	return took
}

// agreed waits until all replicas hand out the same token, and returns its id.
func (f *fleet) agreed(t *testing.T, id string) string {
	t.Helper()
	var answers []string
	until(t, "agreed on a token of "+id, func() bool {
		answers = answers[:0]
		for _, conn := range f.conns {
			answers = append(answers, answer(t.Context(), conn, id))
		}
		slices.Sort(answers)
		return len(answers[0]) == 32 && answers[0] == answers[len(answers)-1]
	})
	return answers[0]
}

// answer returns the id of the token that a replica hands out, or the reason why
// it does not.
func answer(ctx context.Context, conn *grpc.ClientConn, id string) string {
	tok, err := get(ctx, conn, id)
	if err != nil {
		return reason(err)
	}
	return tok.GetTokenId()
}

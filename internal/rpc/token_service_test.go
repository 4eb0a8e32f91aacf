package rpc_test

import (
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"google.golang.org/grpc/codes"
	"google.golang.org/protobuf/types/known/durationpb"

	pb "smokeball.internal/tokenbroker/gen/tokenbroker/v1"
)

func TestGetToken(t *testing.T) {
	t.Parallel()
	h := newHouse(t, furniture{})
	h.register(t, "acme", func(p *pb.Tenant) {
		p.AccountId = "account-1"
		p.Scopes = []string{"matters/write", "contacts/read", "matters/read", "contacts/read"}
	})
	before := time.Now()
	got := h.token(t, "acme")
	after := time.Now()
	if strings.Count(got.GetAccessToken(), ".") != 2 || got.GetTokenType() != "Bearer" || len(got.GetTokenId()) != 32 {
		t.Errorf("access_token %q, token_type %q, token_id %q", got.GetAccessToken(), got.GetTokenType(), got.GetTokenId())
	}
	if got.GetApiBaseUrl() != "https://api.smokeball.com/account-1" || got.GetApiKey() != "acme-key" {
		t.Errorf("api_base_url %q, api_key %q", got.GetApiBaseUrl(), got.GetApiKey())
	}
	if want := []string{"contacts/read", "matters/read", "matters/write"}; !slices.Equal(got.GetScopes(), want) {
		t.Errorf("scopes %q, want %q", got.GetScopes(), want)
	}
	const life = time.Hour
	if issued := got.GetIssueTime().AsTime(); issued.Before(before.Add(-time.Millisecond)) || issued.After(after) {
		t.Errorf("issue_time %v, asked for between %v and %v", issued, before, after)
	}
	if d := got.GetExpireTime().AsTime().Sub(got.GetIssueTime().AsTime()); d > life || d < life-2*time.Second {
		t.Errorf("expire_time is %v behind issue_time", d)
	}
	if r := got.GetRemaining().AsDuration(); r > life || r < life-5*time.Second {
		t.Errorf("remaining %v", r)
	}
	again := h.token(t, "acme")
	if again.GetTokenId() != got.GetTokenId() || again.GetRemaining().AsDuration() >= got.GetRemaining().AsDuration() {
		t.Errorf("the second answer is %s for %v, the first was %s for %v", again.GetTokenId(), again.GetRemaining().AsDuration(),
			got.GetTokenId(), got.GetRemaining().AsDuration())
	}
	if n := h.sim.Bought("acme-client"); n != 1 {
		t.Errorf("%d tokens bought, want 1", n)
	}
}

func TestGetTokenOfScopes(t *testing.T) {
	t.Parallel()
	h := newHouse(t, furniture{})
	h.register(t, "acme", func(p *pb.Tenant) { p.ApiKey = "" })
	all := h.token(t, "acme")
	if len(all.GetScopes()) != 0 || all.GetApiKey() != "" || all.GetApiBaseUrl() != "https://api.smokeball.com" {
		t.Errorf("scopes %q, api_key %q, api_base_url %q", all.GetScopes(), all.GetApiKey(), all.GetApiBaseUrl())
	}
	some := h.token(t, "acme", "matters/read", "contacts/read")
	same := h.token(t, "acme", "contacts/read", "matters/read", "contacts/read")
	if some.GetTokenId() == all.GetTokenId() || some.GetTokenId() != same.GetTokenId() {
		t.Errorf("tokens %s, %s and %s, want the last two the same", all.GetTokenId(), some.GetTokenId(), same.GetTokenId())
	}
	if want := []string{"contacts/read", "matters/read"}; !slices.Equal(some.GetScopes(), want) {
		t.Errorf("scopes %q, want %q", some.GetScopes(), want)
	}
}

func TestGetTokenMinRemaining(t *testing.T) {
	t.Parallel()
	h := newHouse(t, furniture{})
	h.register(t, "acme")
	for _, d := range []*durationpb.Duration{nil, {}, durationpb.New(30 * time.Minute)} {
		if _, err := h.tokens.GetToken(at(t), &pb.GetTokenRequest{Tenant: "tenants/acme", MinRemaining: d}); err != nil {
			t.Errorf("min_remaining %v: %v", d.AsDuration(), err)
		}
	}
	if n := h.sim.Bought("acme-client"); n != 1 {
		t.Errorf("%d tokens bought, want 1", n)
	}
}

// The purpose of the house: many ask, one is bought.
func TestManyCallersOneToken(t *testing.T) {
	t.Parallel()
	h := newHouse(t, furniture{})
	h.register(t, "acme")
	var callers sync.WaitGroup
	ids := make([]string, 100)
	for i := range ids {
		callers.Go(func() {
			resp, err := h.tokens.GetToken(at(t), &pb.GetTokenRequest{Tenant: "tenants/acme"})
			if err != nil {
				t.Error(err)
			}
			ids[i] = resp.GetToken().GetTokenId()
		})
	}
	callers.Wait()
	if slices.Sort(ids); len(slices.Compact(ids)) != 1 || h.sim.Bought("acme-client") != 1 {
		t.Errorf("%d different tokens, %d bought", len(slices.Compact(ids)), h.sim.Bought("acme-client"))
	}
}

func TestRefreshToken(t *testing.T) {
	t.Parallel()
	h := newHouse(t, furniture{})
	h.register(t, "acme")
	c := client("acme")
	c.ExpiresIn = 4 * time.Second // It may be replaced after a second.
	h.sim.SetClient(c)
	refresh := func(rejected string) (*pb.Token, error) {
		resp, err := h.tokens.RefreshToken(at(t), &pb.RefreshTokenRequest{Tenant: "tenants/acme", RejectedTokenId: rejected})
		return resp.GetToken(), err
	}
	first := h.token(t, "acme")
	other, err := refresh(strings.Repeat("0", 32))
	if err != nil || other.GetTokenId() != first.GetTokenId() {
		t.Errorf("for a token that is not held: %v, %v, want the one that is held", other.GetTokenId(), err)
	}
	second, err := refresh(first.GetTokenId())
	if err != nil || second.GetTokenId() == first.GetTokenId() {
		t.Fatalf("got %v, %v", second.GetTokenId(), err)
	}
	for _, rejected := range []string{second.GetTokenId(), ""} {
		_, err = refresh(rejected)
		after, message := wantError(t, err, codes.ResourceExhausted, "REFRESH_TOO_SOON")
		if after > time.Second || !strings.Contains(message, "API key") {
			t.Errorf("after %v: %s", after, message)
		}
	}
	late, err := refresh(first.GetTokenId())
	if err != nil || late.GetTokenId() != second.GetTokenId() {
		t.Errorf("who names the first token later got %v, %v, want the second", late.GetTokenId(), err)
	}
	if got := h.token(t, "acme"); got.GetTokenId() != second.GetTokenId() {
		t.Errorf("GetToken still gives %s", got.GetTokenId())
	}
	if n := h.sim.Bought("acme-client"); n != 2 {
		t.Errorf("%d tokens bought, want 2", n)
	}
	eventually(t, "a third token, when the interval is over", func() bool {
		third, err := refresh(second.GetTokenId())
		return err == nil && third.GetTokenId() != second.GetTokenId()
	})
}

// RefreshToken is also a way to the first token.
func TestRefreshTokenWithoutToken(t *testing.T) {
	t.Parallel()
	h := newHouse(t, furniture{})
	h.register(t, "acme")
	resp, err := h.tokens.RefreshToken(at(t), &pb.RefreshTokenRequest{Tenant: "tenants/acme", RejectedTokenId: strings.Repeat("0", 32)})
	if err != nil || resp.GetToken().GetAccessToken() == "" || h.sim.Bought("acme-client") != 1 {
		t.Errorf("got %v, %v, %d bought", resp.GetToken().GetTokenId(), err, h.sim.Bought("acme-client"))
	}
}

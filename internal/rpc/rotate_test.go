package rpc_test

import (
	"testing"
	"time"

	"google.golang.org/grpc/codes"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/durationpb"

	pb "smokeball.internal/tokenbroker/gen/tokenbroker/v1"
)

// accept makes the issuer accept these secrets of acme.
func (h *house) accept(secrets ...string) {
	c := client("acme")
	c.Secrets = secrets
	h.sim.SetClient(c)
}

func (h *house) rotate(t *testing.T, req *pb.RotateClientSecretRequest) (*pb.Tenant, error) {
	t.Helper()
	req.Name = "tenants/acme"
	resp, err := h.tenants.RotateClientSecret(at(t), req)
	return resp.GetTenant(), err
}

// wantFallback checks for how long the secret before is kept.
func wantFallback(t *testing.T, p *pb.Tenant, ttl time.Duration) {
	t.Helper()
	until := p.GetFallbackSecretExpireTime()
	if ttl == 0 {
		if until != nil {
			t.Errorf("fallback until %v, want none", until.AsTime())
		}
		return
	}
	if left := time.Until(until.AsTime()); left > ttl || left < ttl-time.Minute {
		t.Errorf("fallback for another %v, want %v", left, ttl)
	}
}

func TestRotateClientSecret(t *testing.T) {
	t.Parallel()
	for _, test := range []struct {
		name string
		ttl  *durationpb.Duration
		want time.Duration
	}{
		{"as a rule", nil, 24 * time.Hour},
		{"as long as may be", durationpb.New(30 * 24 * time.Hour), 30 * 24 * time.Hour},
		{"without fallback", durationpb.New(0), 0},
	} {
		t.Run(test.name, func(t *testing.T) {
			t.Parallel()
			h := newHouse(t, furniture{})
			before := h.register(t, "acme")
			old := h.token(t, "acme")
			h.accept("acme-secret", "new-secret")
			rotated, err := h.rotate(t, &pb.RotateClientSecretRequest{ClientSecret: "new-secret", Etag: before.GetEtag(), FallbackTtl: test.ttl})
			if err != nil {
				t.Fatal(err)
			}
			wantFallback(t, rotated, test.want)
			if !proto.Equal(rotated.GetClientSecretUpdateTime(), rotated.GetUpdateTime()) {
				t.Errorf("client_secret_update_time %v, update_time %v", rotated.GetClientSecretUpdateTime(), rotated.GetUpdateTime())
			}
			read := h.tenant(t, "acme")
			read.Status = nil
			if !proto.Equal(read, rotated) || rotated.GetEtag() == before.GetEtag() {
				t.Errorf("answered %v\nread     %v", rotated, read)
			}
			// The token that the trial bought is the one that is handed out.
			if now := h.token(t, "acme"); now.GetTokenId() == old.GetTokenId() {
				t.Error("the token of the old secret is handed out")
			}
			if bought, requests := h.sim.Bought("acme-client"), h.sim.Requests("acme-client"); bought != 2 || requests != 2 {
				t.Errorf("%d tokens bought in %d requests, want one for each secret", bought, requests)
			}
		})
	}
}

// A secret that the issuer refuses changes nothing.
func TestRotateToWrongSecret(t *testing.T) {
	t.Parallel()
	for _, validateOnly := range []bool{true, false} {
		h := newHouse(t, furniture{})
		before := h.register(t, "acme")
		_, err := h.rotate(t, &pb.RotateClientSecretRequest{ClientSecret: "wrong", ValidateOnly: validateOnly})
		wantError(t, err, codes.FailedPrecondition, "CREDENTIALS_REJECTED")
		if after := h.tenant(t, "acme"); !proto.Equal(after, before) {
			t.Errorf("the tenant changed to %v", after)
		}
		h.token(t, "acme") // The old one works, and is not taken for refused.
	}
}

// Who sets the same secret again has not rotated it: it gets no younger.
func TestRotateToTheSameSecret(t *testing.T) {
	t.Parallel()
	h := newHouse(t, furniture{})
	before := h.register(t, "acme")
	rotated, err := h.rotate(t, &pb.RotateClientSecretRequest{ClientSecret: "acme-secret"})
	if err != nil {
		t.Fatal(err)
	}
	wantFallback(t, rotated, 0)
	if was, is := before.GetClientSecretUpdateTime(), rotated.GetClientSecretUpdateTime(); !proto.Equal(is, was) || is == nil {
		t.Errorf("client_secret_update_time %v, before %v", is, was)
	}
}

func TestRotateValidateOnly(t *testing.T) {
	t.Parallel()
	h := newHouse(t, furniture{})
	before := h.register(t, "acme")
	h.accept("acme-secret", "new-secret")
	dry, err := h.rotate(t, &pb.RotateClientSecretRequest{ClientSecret: "new-secret", ValidateOnly: true})
	if err != nil {
		t.Fatal(err)
	}
	wantFallback(t, dry, 24*time.Hour)
	if n := h.sim.Requests("acme-client"); n != 1 {
		t.Errorf("%d requests, want one that tries the secret", n)
	}
	if after := h.tenant(t, "acme"); !proto.Equal(after, before) {
		t.Errorf("the tenant changed to %v", after)
	}
	h.accept("acme-secret") // Had the new one been stored, this would fail.
	h.token(t, "acme")
}

// A secret that is not tried stands as it is, and its predecessor stands in for
// it as long as it may.
func TestRotateWithoutTrial(t *testing.T) {
	t.Parallel()
	for _, test := range []struct {
		name     string
		accepted []string // by the issuer
		ttl      time.Duration
		requests int // for a token
		works    bool
	}{
		{"both accepted", []string{"new-secret", "acme-secret"}, time.Hour, 1, true},
		{"the new one not yet", []string{"acme-secret"}, time.Hour, 2, true},
		{"the new one not yet, without fallback", []string{"acme-secret"}, 0, 1, false},
		{"none", []string{"other"}, time.Hour, 2, false},
	} {
		t.Run(test.name, func(t *testing.T) {
			t.Parallel()
			h := newHouse(t, furniture{})
			h.register(t, "acme")
			h.accept(test.accepted...)
			rotated, err := h.rotate(t, &pb.RotateClientSecretRequest{ClientSecret: "new-secret", SkipVerification: true, FallbackTtl: durationpb.New(test.ttl)})
			if err != nil {
				t.Fatal(err)
			}
			wantFallback(t, rotated, test.ttl)
			if n := h.sim.Requests("acme-client"); n != 0 {
				t.Errorf("%d requests: the secret was tried", n)
			}
			err = h.get(t, "acme")
			if test.works && err != nil {
				t.Error(err)
			}
			if !test.works {
				wantError(t, err, codes.FailedPrecondition, "CREDENTIALS_REJECTED")
			}
			if n := h.sim.Requests("acme-client"); n != test.requests {
				t.Errorf("%d requests, want %d", n, test.requests)
			}
		})
	}
}

// The fallback ends when it was said to.
func TestFallbackEnds(t *testing.T) {
	t.Parallel()
	h := newHouse(t, furniture{})
	h.register(t, "acme")
	if _, err := h.rotate(t, &pb.RotateClientSecretRequest{ClientSecret: "new-secret", SkipVerification: true, FallbackTtl: durationpb.New(200 * time.Millisecond)}); err != nil {
		t.Fatal(err)
	}
	eventually(t, "the fallback is no longer shown", func() bool { return h.tenant(t, "acme").GetFallbackSecretExpireTime() == nil })
	wantError(t, h.get(t, "acme"), codes.FailedPrecondition, "CREDENTIALS_REJECTED")
}

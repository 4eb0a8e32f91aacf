package rpc_test

import (
	"context"
	"encoding/json"
	"fmt"
	"strings"
	"testing"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/durationpb"

	pb "smokeball.internal/tokenbroker/gen/tokenbroker/v1"
	"smokeball.internal/tokenbroker/internal/access"
	"smokeball.internal/tokenbroker/internal/audit"
	"smokeball.internal/tokenbroker/internal/simulator"
)

type stream = grpc.ServerStreamingClient[pb.WatchTokenResponse]

func watch(ctx context.Context, t testing.TB, h *house, req *pb.WatchTokenRequest) stream {
	t.Helper()
	s, err := h.tokens.WatchToken(ctx, req)
	if err != nil {
		t.Fatal(err)
	}
	return s
}

// received returns the next token of a stream, which must come.
func received(t testing.TB, s stream) *pb.Token {
	t.Helper()
	resp, err := s.Recv()
	if err != nil || resp.GetToken() == nil {
		t.Fatalf("received %v, %v, want a token", resp.GetToken().GetTokenId(), err)
	}
	return resp.GetToken()
}

// ended returns how a stream ends, which it must without another token.
func ended(t testing.TB, s stream) error {
	t.Helper()
	resp, err := s.Recv()
	if err == nil {
		t.Fatalf("received %v, want the end", resp.GetToken().GetTokenId())
	}
	return err
}

func TestWatchToken(t *testing.T) {
	t.Parallel()
	h := newHouse(t, furniture{})
	h.register(t, "acme")
	s := watch(at(t), t, h, &pb.WatchTokenRequest{Tenant: "tenants/acme"})
	first, same := received(t, s), h.token(t, "acme")
	if first.GetRemaining().AsDuration() < same.GetRemaining().AsDuration() {
		t.Errorf("remaining %v, later %v", first.GetRemaining().AsDuration(), same.GetRemaining().AsDuration())
	}
	first.Remaining, same.Remaining = nil, nil
	if !proto.Equal(first, same) {
		t.Errorf("watched %s, got %s: not the same in all but the time that is left", first.GetTokenId(), same.GetTokenId())
	}
	forced, err := h.tokens.RefreshToken(at(t), &pb.RefreshTokenRequest{Tenant: "tenants/acme", RejectedTokenId: first.GetTokenId()})
	if err != nil {
		t.Fatal(err)
	}
	if second := received(t, s); second.GetTokenId() != forced.GetToken().GetTokenId() {
		t.Errorf("then %s, want the one that replaces the first", second.GetTokenId())
	}
	if _, err := h.tenants.UpdateTenant(at(t), &pb.UpdateTenantRequest{Tenant: &pb.Tenant{Name: "tenants/acme", ApiKey: "another-key"}}); err != nil {
		t.Fatal(err)
	}
	if third := received(t, s); third.GetApiKey() != "another-key" || third.GetTokenId() != forced.GetToken().GetTokenId() {
		t.Errorf("then the key %q with %s", third.GetApiKey(), third.GetTokenId())
	}
	if _, err := h.tenants.DeleteTenant(at(t), &pb.DeleteTenantRequest{Name: "tenants/acme"}); err != nil {
		t.Fatal(err)
	}
	wantError(t, ended(t, s), codes.NotFound, "TENANT_NOT_FOUND")
}

func TestAWatchIsAnsweredAsGetTokenIs(t *testing.T) {
	t.Parallel()
	h := newHouse(t, furniture{})
	h.register(t, "acme", func(p *pb.Tenant) { p.Scopes = []string{"matters/read"} })
	h.register(t, "globex")
	h.fault(t, "globex", simulator.Fault{Kind: simulator.KindStatus, Status: 503})
	refused := func(req *pb.WatchTokenRequest) error { return ended(t, watch(at(t), t, h, req)) }
	wantError(t, refused(&pb.WatchTokenRequest{Tenant: "tenants/nobody"}), codes.NotFound, "TENANT_NOT_FOUND")
	wantError(t, refused(&pb.WatchTokenRequest{Tenant: "tenants/acme", Scopes: []string{"contacts/read"}}), codes.FailedPrecondition, "SCOPE_REJECTED")
	if retry, _ := wantError(t, refused(&pb.WatchTokenRequest{Tenant: "tenants/globex"}), codes.Unavailable, "ISSUER_UNAVAILABLE"); retry <= 0 {
		t.Error("nothing is said of when to try again")
	}
	for field, req := range map[string]*pb.WatchTokenRequest{
		"tenant":             {Tenant: "acme"},
		"scopes[0]":          {Tenant: "tenants/acme", Scopes: []string{"two words"}},
		"heartbeat_interval": {Tenant: "tenants/acme", HeartbeatInterval: durationpb.New(time.Second)},
	} {
		wantBadRequest(t, refused(req), field)
	}
	for _, d := range []*durationpb.Duration{{}, {Seconds: 3601}, {Seconds: 10, Nanos: -1}} {
		wantBadRequest(t, refused(&pb.WatchTokenRequest{Tenant: "tenants/acme", HeartbeatInterval: d}), "heartbeat_interval")
	}
}

func TestAWatchHasHeartbeatsIfItAsksForThem(t *testing.T) {
	t.Parallel()
	h := newHouse(t, furniture{})
	h.register(t, "acme")
	asked := watch(at(t), t, h, &pb.WatchTokenRequest{Tenant: "tenants/acme", HeartbeatInterval: durationpb.New(5 * time.Second)})
	quiet := watch(at(t), t, h, &pb.WatchTokenRequest{Tenant: "tenants/acme"})
	first := received(t, asked)
	received(t, quiet)
	began := time.Now()
	resp, err := asked.Recv()
	if err != nil || resp.GetToken() != nil {
		t.Fatalf("received %v, %v, want a heartbeat", resp.GetToken().GetTokenId(), err)
	}
	if took := time.Since(began); took < 4*time.Second {
		t.Errorf("a heartbeat after %v", took)
	}
	if _, err := h.tokens.RefreshToken(at(t), &pb.RefreshTokenRequest{Tenant: "tenants/acme", RejectedTokenId: first.GetTokenId()}); err != nil {
		t.Fatal(err)
	}
	if a, b := received(t, asked), received(t, quiet); a.GetTokenId() != b.GetTokenId() || a.GetTokenId() == first.GetTokenId() {
		t.Errorf("then %s and %s", a.GetTokenId(), b.GetTokenId())
	}
}

func TestADrainSendsWhoWatchesElsewhere(t *testing.T) {
	t.Parallel()
	h := newHouse(t, furniture{})
	h.register(t, "acme")
	s := watch(at(t), t, h, &pb.WatchTokenRequest{Tenant: "tenants/acme"})
	received(t, s)
	took := make(chan time.Duration, 1)
	go func() { took <- h.drain(t, 20*time.Second) }()
	wantError(t, ended(t, s), codes.Unavailable, "SHUTTING_DOWN")
	if d := <-took; d > 10*time.Second {
		t.Errorf("a watch held up the drain for %v", d)
	}
}

const watchRules = rootRules + `
  - principals: ["jwt:team"]
    roles: [token.reader]
    labels: {team: blue}
  - name: narrow
    principals: ["jwt:narrow"]
    roles: [token.reader]
    tenants: [acme]
    scopes: ["matters/*"]
`

func TestAWatchIsForWhomARuleAllowsIt(t *testing.T) {
	t.Parallel()
	h, g := newGuardedHouse(t, furniture{}, watchRules)
	g.create(t, h, "acme", map[string]string{"team": "blue"})
	g.create(t, h, "globex", map[string]string{"team": "red"})
	open := func(subject, id string, scopes ...string) stream {
		return watch(g.as(t, subject), t, h, &pb.WatchTokenRequest{Tenant: "tenants/" + id, Scopes: scopes})
	}
	received(t, open("reader", "acme"))
	received(t, open("team", "acme"))
	received(t, open("narrow", "acme", "matters/read"))
	wantError(t, ended(t, open("nobody", "acme")), codes.PermissionDenied, "NOT_ALLOWED")
	wantError(t, ended(t, open("root", "acme")), codes.PermissionDenied, "NOT_ALLOWED")
	wantError(t, ended(t, open("team", "globex")), codes.PermissionDenied, "NOT_ALLOWED")
	wantError(t, ended(t, open("team", "no-such")), codes.PermissionDenied, "NOT_ALLOWED")
	wantError(t, ended(t, open("narrow", "acme", "contacts/read")), codes.PermissionDenied, "SCOPE_NOT_ALLOWED")
	wantError(t, ended(t, watch(at(t), t, h, &pb.WatchTokenRequest{Tenant: "tenants/acme"})), codes.Unauthenticated, "UNAUTHENTICATED")
}

func TestAWatchEndsWithTheRuleThatAllowedIt(t *testing.T) {
	t.Parallel()
	h, g := newGuardedHouse(t, furniture{}, watchRules)
	g.create(t, h, "acme", map[string]string{"team": "blue"})
	narrow := watch(g.as(t, "narrow"), t, h, &pb.WatchTokenRequest{Tenant: "tenants/acme", Scopes: []string{"matters/read"}})
	team := watch(g.as(t, "team"), t, h, &pb.WatchTokenRequest{Tenant: "tenants/acme"})
	reader := watch(g.as(t, "reader"), t, h, &pb.WatchTokenRequest{Tenant: "tenants/acme"})
	for _, s := range []stream{narrow, team, reader} {
		received(t, s)
	}
	set := func(rules string) {
		policy, err := access.ParsePolicy("access.yaml", []byte(rules))
		if err != nil {
			t.Fatal(err)
		}
		g.guard.SetPolicy(policy)
	}
	set(strings.ReplaceAll(watchRules, "matters/*", "contacts/*"))
	wantError(t, ended(t, narrow), codes.PermissionDenied, "SCOPE_NOT_ALLOWED")
	set(strings.ReplaceAll(watchRules, "team: blue", "team: green"))
	wantError(t, ended(t, team), codes.PermissionDenied, "NOT_ALLOWED")

	// Who is still allowed hears of what comes next.
	if _, err := h.tokens.RefreshToken(g.as(t, "other"), &pb.RefreshTokenRequest{Tenant: "tenants/acme"}); err != nil {
		t.Fatal(err)
	}
	received(t, reader)
}

// A tenant that gets another label is another team's.
func TestAWatchEndsWithTheLabelThatAllowedIt(t *testing.T) {
	t.Parallel()
	h, g := newGuardedHouse(t, furniture{}, watchRules)
	g.create(t, h, "acme", map[string]string{"team": "blue"})
	s := watch(g.as(t, "team"), t, h, &pb.WatchTokenRequest{Tenant: "tenants/acme"})
	reader := watch(g.as(t, "reader"), t, h, &pb.WatchTokenRequest{Tenant: "tenants/acme"})
	received(t, s)
	first := received(t, reader)
	if _, err := h.tenants.UpdateTenant(g.as(t, "root"), &pb.UpdateTenantRequest{Tenant: &pb.Tenant{Name: "tenants/acme", Labels: map[string]string{"team": "red"}}}); err != nil {
		t.Fatal(err)
	}
	wantError(t, ended(t, s), codes.PermissionDenied, "NOT_ALLOWED")
	if _, err := h.tokens.RefreshToken(g.as(t, "reader"), &pb.RefreshTokenRequest{Tenant: "tenants/acme", RejectedTokenId: first.GetTokenId()}); err != nil {
		t.Fatal(err)
	}
	if second := received(t, reader); second.GetTokenId() == first.GetTokenId() {
		t.Error("who may still have it was told of the label")
	}
}

func TestAWatchIsAnOpenCall(t *testing.T) {
	t.Parallel()
	h, g := newGuardedHouse(t, furniture{}, rootRules+`
limits:
  - principals: ["jwt:reader"]
    open_calls: 2
`)
	g.create(t, h, "acme", nil)
	ctx, cancel := context.WithCancel(g.as(t, "reader"))
	defer cancel()
	for range 2 {
		received(t, watch(ctx, t, h, &pb.WatchTokenRequest{Tenant: "tenants/acme"}))
	}
	wantError(t, ended(t, watch(g.as(t, "reader"), t, h, &pb.WatchTokenRequest{Tenant: "tenants/acme"})), codes.ResourceExhausted, "CALLER_TOO_FAST")
	cancel()
	eventually(t, "closed", func() bool { _, err := get(g.as(t, "reader"), h, "acme"); return err == nil })
}

func TestEachTokenOfAWatchIsRecorded(t *testing.T) {
	t.Parallel()
	written := &record{}
	h, g := newGuardedHouse(t, furniture{audit: startAudit(t, written, false)}, rootRules)
	g.create(t, h, "acme", nil)
	leave, cancel := context.WithCancel(g.as(t, "reader"))
	defer cancel()
	s := watch(leave, t, h, &pb.WatchTokenRequest{Tenant: "tenants/acme", Scopes: []string{"matters/read"}})
	first := received(t, s)
	if _, err := h.tokens.RefreshToken(g.as(t, "other"), &pb.RefreshTokenRequest{Tenant: "tenants/acme", Scopes: []string{"matters/read"}, RejectedTokenId: first.GetTokenId()}); err != nil {
		t.Fatal(err)
	}
	second := received(t, s)
	cancel()
	if err := ended(t, s); status.Code(err) != codes.Canceled {
		t.Errorf("a watch whose caller left ended with %v", err)
	}
	_ = ended(t, watch(g.as(t, "nobody"), t, h, &pb.WatchTokenRequest{Tenant: "tenants/acme"}))
	revoked := watch(g.as(t, "reader"), t, h, &pb.WatchTokenRequest{Tenant: "tenants/acme"})
	third := received(t, revoked)
	g.guard.SetPolicy(&access.Policy{})
	wantError(t, ended(t, revoked), codes.PermissionDenied, "NOT_ALLOWED")

	want := []string{
		"jwt:reader allowed  " + first.GetTokenId() + " [matters/read] readers",
		"jwt:reader allowed  " + second.GetTokenId() + " [matters/read] readers",
		"jwt:nobody denied NOT_ALLOWED  [] ",
		"jwt:reader allowed  " + third.GetTokenId() + " [] readers",
		"jwt:reader denied NOT_ALLOWED  [] readers",
	}
	var got []string
	eventually(t, "all recorded", func() bool {
		got = nil
		for line := range strings.Lines(written.String()) {
			var r audit.Record
			if json.Unmarshal([]byte(line), &r) == nil && r.Method == "tokenbroker.v1.TokenService/WatchToken" {
				got = append(got, fmt.Sprintf("%s %s %s %s %v %s", r.Principal, r.Outcome, r.Reason, r.TokenID, r.Scopes, r.Rule))
			}
		}
		return len(got) >= len(want)
	})
	if strings.Join(got, "\n") != strings.Join(want, "\n") {
		t.Errorf("got\n%s\nwant\n%s", strings.Join(got, "\n"), strings.Join(want, "\n"))
	}
}

func TestATokenOfAWatchThatCannotBeRecorded(t *testing.T) {
	t.Parallel()
	sink := &lockable{}
	h, g := newGuardedHouse(t, furniture{audit: startAudit(t, sink, true)}, rootRules)
	g.create(t, h, "acme", nil)
	sink.Lock()
	t.Cleanup(sink.Unlock)
	var last error
	for range 20 { // More than the queue holds.
		_, last = watch(g.as(t, "reader"), t, h, &pb.WatchTokenRequest{Tenant: "tenants/acme"}).Recv()
	}
	wantError(t, last, codes.Unavailable, "AUDIT_UNAVAILABLE")
}

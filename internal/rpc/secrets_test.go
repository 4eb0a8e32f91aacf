package rpc_test

import (
	"log/slog"
	"strings"
	"testing"

	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/encoding/protojson"
	"google.golang.org/protobuf/encoding/prototext"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/fieldmaskpb"

	pb "smokeball.internal/tokenbroker/gen/tokenbroker/v1"
	"smokeball.internal/tokenbroker/internal/simulator"
)

// What must not be seen begins with one of these; a token in three parts does.
var planted = []string{"planted", "eyJ"}

func wantNoSecret(t *testing.T, where, text string) {
	t.Helper()
	for _, secret := range planted {
		if i := strings.Index(text, secret); i >= 0 {
			t.Errorf("%s has a secret in it: %.100q", where, text[max(0, i-40):])
		}
	}
}

// wantCleanAnswer looks into an answer, or an error with its details, in every
// form that a person may see it in.
func wantCleanAnswer(t *testing.T, call string, answer proto.Message, err error) {
	t.Helper()
	if err != nil {
		answer = status.Convert(err).Proto()
		wantNoSecret(t, call+": the error", err.Error())
	}
	asJSON, marshalErr := protojson.MarshalOptions{EmitUnpopulated: true}.Marshal(answer)
	if marshalErr != nil {
		t.Fatal(marshalErr)
	}
	asWire, marshalErr := proto.Marshal(answer)
	if marshalErr != nil {
		t.Fatal(marshalErr)
	}
	wantNoSecret(t, call+": JSON", string(asJSON))
	wantNoSecret(t, call+": text", prototext.Format(answer))
	wantNoSecret(t, call+": bytes", string(asWire))
}

// Every administrator's call, well and ill, and every failure of the callers'
// calls: no secret in an answer, in an error, or in the log at its most talkative.
func TestSecretsStayIn(t *testing.T) {
	t.Parallel()
	h := newHouse(t, furniture{level: slog.LevelDebug})
	ctx := at(t)
	h.sim.SetClient(simulator.Client{Endpoint: "us/production", ID: "acme-client", Secrets: []string{"planted-secret", "planted-new"}, Scopes: approved})
	secret := func(p *pb.Tenant) { p.ClientSecret, p.ApiKey = "planted-secret", "planted-key" }
	acme := fresh("acme")
	secret(acme)
	invalid := proto.CloneOf(acme)
	invalid.ClientSecret, invalid.ApiKey = "planted secret\n", "planted key"
	known := func(p *pb.Tenant) *pb.Tenant { p.Name = "tenants/acme"; return p }
	mask := func(paths ...string) *fieldmaskpb.FieldMask { return &fieldmaskpb.FieldMask{Paths: paths} }
	status := func(code int, body string) *simulator.Fault {
		return &simulator.Fault{Kind: simulator.KindStatus, Status: code, Body: body, RetryAfter: "60"}
	}

	type call struct {
		name string
		do   func() (proto.Message, error)
		ok   bool
	}
	create := func(name string, req *pb.CreateTenantRequest, ok bool) call {
		return call{name, func() (proto.Message, error) { return h.tenants.CreateTenant(ctx, req) }, ok}
	}
	update := func(name string, req *pb.UpdateTenantRequest, ok bool) call {
		return call{name, func() (proto.Message, error) { return h.tenants.UpdateTenant(ctx, req) }, ok}
	}
	rotate := func(name string, req *pb.RotateClientSecretRequest, ok bool) call {
		req.Name = "tenants/acme"
		return call{name, func() (proto.Message, error) { return h.tenants.RotateClientSecret(ctx, req) }, ok}
	}
	read := call{"read", func() (proto.Message, error) {
		return h.tenants.GetTenant(ctx, &pb.GetTenantRequest{Name: "tenants/acme"})
	}, true}
	list := call{"list", func() (proto.Message, error) { return h.tenants.ListTenants(ctx, &pb.ListTenantsRequest{}) }, true}
	check := call{"check", func() (proto.Message, error) {
		return h.tenants.CheckTenant(ctx, &pb.CheckTenantRequest{Name: "tenants/acme"})
	}, true}
	get := func(scopes ...string) call {
		return call{"get", func() (proto.Message, error) {
			return h.tokens.GetToken(ctx, &pb.GetTokenRequest{Tenant: "tenants/acme", Scopes: scopes})
		}, false}
	}
	for i, step := range []struct {
		fault *simulator.Fault
		call
	}{
		{nil, create("create invalid", &pb.CreateTenantRequest{TenantId: "acme", Tenant: invalid}, false)},
		{nil, create("create with secret for an id", &pb.CreateTenantRequest{TenantId: "acme", Tenant: fresh("a b")}, false)},
		{nil, create("create dry", &pb.CreateTenantRequest{TenantId: "acme", Tenant: acme, ValidateOnly: true}, true)},
		{nil, create("create", &pb.CreateTenantRequest{TenantId: "acme", Tenant: acme}, true)},
		{nil, create("create again", &pb.CreateTenantRequest{TenantId: "acme", Tenant: acme}, false)},
		{nil, read}, {nil, list}, {nil, check}, {nil, read},
		{nil, update("update secrets", &pb.UpdateTenantRequest{Tenant: known(&pb.Tenant{ClientSecret: "planted-wrong", ApiKey: "planted-key-2"})}, true)},
		{nil, get()}, {nil, check}, {nil, read},
		{nil, update("update all", &pb.UpdateTenantRequest{Tenant: known(proto.CloneOf(acme)), UpdateMask: mask("*")}, true)},
		{nil, update("update dry", &pb.UpdateTenantRequest{Tenant: known(&pb.Tenant{ClientSecret: "planted-other"}), ValidateOnly: true}, true)},
		{nil, update("update stale", &pb.UpdateTenantRequest{Tenant: known(&pb.Tenant{ClientSecret: "planted-other", Etag: "x"})}, false)},
		{nil, update("update invalid", &pb.UpdateTenantRequest{Tenant: known(proto.CloneOf(invalid)), UpdateMask: mask("api_key")}, false)},
		{nil, rotate("rotate invalid", &pb.RotateClientSecretRequest{ClientSecret: "planted secret"}, false)},
		{nil, rotate("rotate refused", &pb.RotateClientSecretRequest{ClientSecret: "planted-wrong"}, false)},
		{nil, rotate("rotate dry", &pb.RotateClientSecretRequest{ClientSecret: "planted-new", ValidateOnly: true}, true)},
		{nil, rotate("rotate", &pb.RotateClientSecretRequest{ClientSecret: "planted-new"}, true)},
		{nil, rotate("rotate untried", &pb.RotateClientSecretRequest{ClientSecret: "planted-later", SkipVerification: true}, true)},
		{nil, read}, {nil, list}, {nil, check},
		// The issuer's own answers may hold what was sent to it.
		{status(400, `{"error":"planted-secret","error_description":"planted-secret"}`), check},
		{status(400, `{"error":"invalid_client","error_description":"planted-secret"}`), check},
		{status(500, "planted-secret"), check},
		{&simulator.Fault{Kind: simulator.KindGarbage, Body: `{"access_token":"planted-token"`}, check},
		{&simulator.Fault{Kind: simulator.KindErrorIn200, Body: `{"error":"planted-secret"}`}, check},
		{&simulator.Fault{Kind: simulator.KindTokenType, TokenType: "planted"}, check},
		{&simulator.Fault{Kind: simulator.KindRedirect, Location: "http://127.0.0.1:1/?planted-secret"}, check},
		{status(400, `{"error":"planted-secret"}`), get("matters/read")},
		{status(429, "planted-secret"), get("matters/write")},
		{&simulator.Fault{Kind: simulator.KindTruncate}, get("contacts/read")},
		{nil, get("planted scope")},
		{nil, read},
	} {
		h.sim.ClearFaults()
		if step.fault != nil {
			h.fault(t, "acme", *step.fault)
		}
		answer, err := step.do()
		if err != nil && step.ok {
			t.Errorf("step %d, %s: %v", i, step.name, err)
		}
		if step.name == "get" && err == nil {
			continue // A token is what was asked for.
		}
		wantCleanAnswer(t, step.name, answer, err)
	}
	h.sim.ClearFaults()
	h.register(t, "other", func(p *pb.Tenant) { p.ApiKey = "planted-key" })
	if token := h.token(t, "other"); !strings.HasPrefix(token.GetAccessToken(), "eyJ") || token.GetApiKey() != "planted-key" {
		t.Errorf("the secrets to look for are not %q", planted)
	}
	if _, err := h.tokens.RefreshToken(ctx, &pb.RefreshTokenRequest{Tenant: "tenants/other"}); err != nil {
		t.Error(err)
	}
	if _, err := h.tokens.RefreshToken(ctx, &pb.RefreshTokenRequest{Tenant: "tenants/other"}); err == nil {
		t.Error("the token was renewed twice at once")
	} else {
		wantCleanAnswer(t, "refresh", nil, err)
	}
	log := h.log.String()
	for _, method := range []string{"GetToken", "RefreshToken", "CreateTenant", "GetTenant", "ListTenants", "UpdateTenant", "RotateClientSecret", "CheckTenant"} {
		if !strings.Contains(log, `"grpc.method":"`+method+`"`) {
			t.Errorf("the log does not mention %s", method)
		}
	}
	if !strings.Contains(log, `"tenant":"tenants/acme"`) {
		t.Error("the log does not mention the tenant")
	}
	wantNoSecret(t, "log", log)
}

package rpc_test

import (
	"strings"
	"testing"
	"unicode/utf8"

	"buf.build/go/protovalidate"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/types/known/durationpb"

	pb "smokeball.internal/tokenbroker/gen/tokenbroker/v1"
	"smokeball.internal/tokenbroker/internal/rpc"
)

// FuzzTenantName holds the rules of the API to what an id is: a DNS label (RFC 1034 section 3.5), in lower case. Ids
// become parts of Redis's keys and of log lines, with nothing escaped.
func FuzzTenantName(f *testing.F) {
	for _, id := range []string{
		"", "a", "acme", "a-b", "a1", "a--b", "1a", "-a", "a-", "A", "acmé", "аcme", "a_b", "a.b", "a/b", "a:b", "{a}", "a b", "a\n", "\na", "a\x00", "a\xff", "*",
		"tenants/a", "../a", "a%2fb", strings.Repeat("a", 63), strings.Repeat("a", 64), strings.Repeat("a", 62) + "-",
	} {
		f.Add(id)
	}
	f.Fuzz(func(t *testing.T, id string) {
		want := isLabel(id)
		for field, err := range map[string]error{
			"GetToken":     protovalidate.Validate(&pb.GetTokenRequest{Tenant: "tenants/" + id}),
			"RefreshToken": protovalidate.Validate(&pb.RefreshTokenRequest{Tenant: "tenants/" + id}),
			"GetTenant":    protovalidate.Validate(&pb.GetTenantRequest{Name: "tenants/" + id}),
			"DeleteTenant": protovalidate.Validate(&pb.DeleteTenantRequest{Name: "tenants/" + id}),
			"CreateTenant": protovalidate.Validate(&pb.CreateTenantRequest{TenantId: id, Tenant: &pb.Tenant{}}),
			"CheckTenant":  protovalidate.Validate(&pb.CheckTenantRequest{Name: "tenants/" + id}),
			"RotateSecret": protovalidate.Validate(&pb.RotateClientSecretRequest{Name: "tenants/" + id, ClientSecret: "x"}),
			"UpdateTenant": protovalidate.Validate(&pb.UpdateTenantRequest{Tenant: &pb.Tenant{Name: "tenants/" + id}}),
		} {
			if (err == nil) != want {
				t.Errorf("%s of %q: %v", field, id, err)
			}
		}
		// What is no name as a whole is none, whatever its end is.
		if err := protovalidate.Validate(&pb.GetTokenRequest{Tenant: id}); err == nil && !isLabel(strings.TrimPrefix(id, "tenants/")) {
			t.Errorf("the name %q is taken", id)
		}
	})
}

// isLabel is the rule once more, without a regular expression.
func isLabel(id string) bool {
	for i := range len(id) {
		letter, digit, hyphen := id[i] >= 'a' && id[i] <= 'z', id[i] >= '0' && id[i] <= '9', id[i] == '-'
		if !letter && !digit && !hyphen || i == 0 && !letter || i == len(id)-1 && hyphen {
			return false
		}
	}
	return id != "" && len(id) <= 63
}

// FuzzKeepsRules holds the short way of a GetToken through the rules to the rules
// themselves: it lets nothing pass that they refuse, and nothing take the long way
// but what they refuse.
func FuzzKeepsRules(f *testing.F) {
	for _, scope := range []string{"", "a", "matters/read", "a b", `a"b`, `a\b`, "a~", "a\x7f", "é", strings.Repeat("a", 256), strings.Repeat("a", 257)} {
		f.Add("tenants/acme", scope, 2, int64(0), int32(0))
	}
	for _, name := range []string{"", "acme", "tenants/", "tenants/a-", "tenants/A", "tenant/a", "tenants/a/b", "tenants/*", "tenants/" + strings.Repeat("a", 63), "tenants/" + strings.Repeat("a", 64)} {
		f.Add(name, "", 0, int64(1), int32(0))
	}
	for _, d := range [][2]int64{{0, 1}, {-1, 0}, {0, -1}, {1, -1}, {86400, 0}, {86400, 1}, {86399, 999_999_999}, {86399, 1_000_000_000}, {1 << 62, 0}, {-1 << 63, 1}} {
		f.Add("tenants/acme", "a", 1, d[0], int32(d[1]))
	}
	f.Add("tenants/acme", "a", 50, int64(0), int32(0))
	f.Add("tenants/acme", "a", 51, int64(0), int32(0))
	f.Fuzz(func(t *testing.T, name, scope string, scopes int, seconds int64, nanos int32) {
		r := &pb.GetTokenRequest{Tenant: name}
		for range min(max(scopes, 0), 60) {
			r.Scopes = append(r.Scopes, scope)
		}
		if seconds != 0 || nanos != 0 {
			r.MinRemaining = &durationpb.Duration{Seconds: seconds, Nanos: nanos}
		}
		// What is no duration is left to the handler to say.
		if err := protovalidate.Validate(r); rpc.KeepsRules(r) != (err == nil) && (err != nil || r.GetMinRemaining().CheckValid() == nil) {
			t.Errorf("%v: by the short way %t, by the rules %v", r, rpc.KeepsRules(r), err)
		}
	})
}

// A page token that nobody was given is refused as such, or names a place in the
// order of tenants; it is never anything else.
func FuzzPageToken(f *testing.F) {
	h := newHouse(f, furniture{})
	h.sim.SetClient(client("acme"))
	if _, err := h.tenants.CreateTenant(at(f), &pb.CreateTenantRequest{TenantId: "acme", Tenant: fresh("acme")}); err != nil {
		f.Fatal(err)
	}
	for _, token := range []string{"", "MS9hY21l", "MS8", "Mi9hY21l", "MS9BY21l", "MS9hCg", "MS9hYw==", "!!!", "MS9hYmM"} {
		f.Add(token)
	}
	f.Fuzz(func(t *testing.T, token string) {
		if !utf8.ValidString(token) {
			return // No client can send it.
		}
		page, err := h.tenants.ListTenants(t.Context(), &pb.ListTenantsRequest{PageToken: token})
		switch code := status.Code(err); {
		case code != codes.OK && code != codes.InvalidArgument:
			t.Errorf("%q: %v", token, err)
		case len(page.GetTenants()) > 1 || page.GetNextPageToken() != "":
			t.Errorf("%q: %v", token, page)
		}
	})
}

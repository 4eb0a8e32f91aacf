package rpc_test

import (
	"context"
	"encoding/json"
	"fmt"
	"io"
	"log/slog"
	"slices"
	"strings"
	"sync"
	"testing"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/metadata"

	pb "smokeball.internal/tokenbroker/gen/tokenbroker/v1"
	"smokeball.internal/tokenbroker/internal/audit"
)

// startAudit returns an audit log that writes to w.
func startAudit(t *testing.T, w io.Writer, strict bool) *audit.Log {
	t.Helper()
	l, err := audit.Open(audit.Config{Sink: "stdout", Stdout: w, Logger: slog.New(slog.DiscardHandler), Strict: strict, QueueLength: 4})
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan struct{})
	go func() { defer close(done); l.Run(ctx) }()
	t.Cleanup(func() { cancel(); <-done })
	return l
}

func TestEveryDecisionIsRecorded(t *testing.T) {
	t.Parallel()
	written := &record{}
	h, g := newGuardedHouse(t, furniture{audit: startAudit(t, written, false)}, rootRules)
	g.create(t, h, "acme", nil)
	ctx := metadata.AppendToOutgoingContext(g.as(t, "reader"), "x-request-id", "one")
	token, err := get(ctx, h, "acme", "matters/read")
	if err != nil {
		t.Fatal(err)
	}
	_, _ = get(g.as(t, "nobody"), h, "acme")
	_, _ = get(at(t), h, "acme")
	_, _ = get(g.as(t, "reader"), h, "unknown")
	_, _ = get(g.as(t, "reader"), h, "planted\nnot a name")
	root := g.as(t, "root")
	_, _ = h.tenants.GetTenant(root, &pb.GetTenantRequest{Name: "tenants/acme"})
	_, _ = h.tenants.ListTenants(root, &pb.ListTenantsRequest{})
	_, _ = h.tenants.CheckTenant(root, &pb.CheckTenantRequest{Name: "tenants/acme"})
	_, _ = h.tenants.RotateClientSecret(root, &pb.RotateClientSecretRequest{Name: "tenants/acme", ClientSecret: "planted-secret"})
	_, _ = h.tenants.UpdateTenant(root, &pb.UpdateTenantRequest{Tenant: &pb.Tenant{Name: "tenants/acme", ApiKey: "planted-key", DisplayName: "planted-name"}})
	_, _ = h.tenants.DeleteTenant(root, &pb.DeleteTenantRequest{Name: "tenants/acme", ValidateOnly: true})
	_, _ = h.tenants.DeleteTenant(g.as(t, "reader"), &pb.DeleteTenantRequest{Name: "tenants/acme"})

	type entry struct {
		audit.Record
		Seq int
	}
	var got []string
	eventually(t, "all recorded", func() bool {
		got = nil
		for line := range strings.Lines(written.String()) {
			var e entry
			if err := json.Unmarshal([]byte(line), &e); err != nil {
				return false
			}
			if e.Event == "start" {
				continue
			}
			if e.RequestID == "" || e.Peer == "" {
				t.Errorf("without a request or a peer: %s", line)
			}
			if e.RequestID == "one" && (e.TokenID != token.GetTokenId() || e.Rule != "readers" || !slices.Equal(e.Scopes, []string{"matters/read"})) {
				t.Errorf("not the token that was given, by its rule: %s", line)
			}
			if allowed := e.Outcome == "allowed"; allowed != (e.Rule != "") && e.Outcome != "failed" {
				t.Errorf("not the rule that allows it: %s", line)
			}
			got = append(got, strings.TrimRight(fmt.Sprintf("%s %s %s %s %s %s %s %s", e.Event, e.Phase, e.Principal, e.Method[strings.LastIndex(e.Method, "/")+1:], e.Tenant, e.Outcome, e.Code+e.Reason, strings.Join(e.Fields, ",")), " "))
		}
		return len(got) >= 16
	})
	want := []string{
		"change begin jwt:root CreateTenant tenants/acme allowed  api_key,client_id,client_secret,region",
		"change end jwt:root CreateTenant tenants/acme allowed  api_key,client_id,client_secret,region",
		"token  jwt:reader GetToken tenants/acme allowed",
		"token  jwt:nobody GetToken tenants/acme denied PermissionDeniedNOT_ALLOWED",
		"refused   GetToken  denied UnauthenticatedUNAUTHENTICATED",
		"token  jwt:reader GetToken tenants/unknown failed NotFoundTENANT_NOT_FOUND",
		"token  jwt:reader GetToken  failed InvalidArgumentInvalidArgument",
		"view  jwt:root GetTenant tenants/acme allowed",
		"view  jwt:root ListTenants  allowed",
		"check  jwt:root CheckTenant tenants/acme allowed",
		"change begin jwt:root RotateClientSecret tenants/acme allowed  client_secret,name",
		"change end jwt:root RotateClientSecret tenants/acme failed FailedPreconditionCREDENTIALS_REJECTED client_secret,name",
		"change begin jwt:root UpdateTenant tenants/acme allowed  api_key,display_name,name",
		"change end jwt:root UpdateTenant tenants/acme allowed  api_key,display_name,name",
		"check  jwt:root DeleteTenant tenants/acme allowed",
		"change  jwt:reader DeleteTenant tenants/acme denied PermissionDeniedNOT_ALLOWED",
	}
	if !slices.Equal(got, want) {
		t.Errorf("got\n%s\nwant\n%s", strings.Join(got, "\n"), strings.Join(want, "\n"))
	}
	if text := written.String(); strings.Contains(text, "planted") || strings.Contains(text, token.GetAccessToken()) {
		t.Errorf("secrets in\n%s", text)
	}
	report, err := audit.Verify(audit.VerifyOptions{}, audit.Input{Name: "written", Reader: strings.NewReader(written.String())})
	if err != nil || len(report.Findings) != 0 {
		t.Errorf("%v, %v", report, err)
	}
}

// While nothing can be recorded, nothing is changed; tokens are given, unless the
// log is strict.
func TestWhatCannotBeRecorded(t *testing.T) {
	t.Parallel()
	for _, strict := range []bool{false, true} {
		t.Run(fmt.Sprint("strict ", strict), func(t *testing.T) {
			t.Parallel()
			sink := &lockable{}
			h, g := newGuardedHouse(t, furniture{audit: startAudit(t, sink, strict)}, rootRules)
			g.create(t, h, "acme", nil)
			if _, err := get(g.as(t, "reader"), h, "acme"); err != nil {
				t.Fatal(err)
			}
			sink.Lock()
			free := sync.OnceFunc(sink.Unlock)
			t.Cleanup(free)
			_, err := h.tenants.DeleteTenant(g.as(t, "root"), &pb.DeleteTenantRequest{Name: "tenants/acme"})
			wantError(t, err, codes.Unavailable, "AUDIT_UNAVAILABLE")
			var last error
			for range 20 { // More than the queue holds.
				_, last = get(g.as(t, "reader"), h, "acme")
			}
			if strict {
				wantError(t, last, codes.Unavailable, "AUDIT_UNAVAILABLE")
			} else if last != nil {
				t.Errorf("the tenant was deleted, or tokens are not given: %v", last)
			}
			free()
			eventually(t, "recorded again", func() bool {
				_, err := h.tenants.DeleteTenant(g.as(t, "root"), &pb.DeleteTenantRequest{Name: "tenants/acme"})
				return err == nil
			})
		})
	}
}

// lockable is a sink that takes nothing while it is locked.
type lockable struct{ sync.Mutex }

func (l *lockable) Write(p []byte) (int, error) {
	l.Lock()
	defer l.Unlock()
	return len(p), nil
}

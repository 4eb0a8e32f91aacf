package access_test

import (
	"bytes"
	"fmt"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"

	"google.golang.org/grpc"

	pb "smokeball.internal/tokenbroker/gen/tokenbroker/v1"
	"smokeball.internal/tokenbroker/internal/access"
)

// parse reads the policy of an access file that must be right.
func parse(t testing.TB, content string) *access.Policy {
	t.Helper()
	p, err := access.ParsePolicy("access.yaml", []byte(content))
	if err != nil {
		t.Fatalf("%v\n%s", err, content)
	}
	return p
}

func TestValuesAreTakenAsTheyAreWritten(t *testing.T) {
	p := parse(t, `
rules:
- principals: [jwt:0010]
  roles: [token.reader]
  tenants: [no, true, on, "null"]
- principals: [jwt:a]
  roles: [token.reader]
  labels: {version: 1.10, from: 2001-01-01, empty: ""}
`)
	for _, id := range []string{"no", "true", "on", "null"} {
		if d := p.Grants([]string{"jwt:0010"}).Decide(access.Query{Method: "GetToken", Tenant: id}); d.Verdict != access.Allowed {
			t.Errorf("%s: %v", id, d)
		}
	}
	if p.Grants([]string{"jwt:8"}).Any() {
		t.Error("0010 is 8")
	}
	labels := map[string]string{"version": "1.10", "from": "2001-01-01", "empty": ""}
	q := access.Query{Method: "GetToken", Tenant: "acme"}
	if d := p.Grants([]string{"jwt:a"}).DecideFor(q, labels); d.Verdict != access.Allowed {
		t.Errorf("with the labels: %v", d)
	}
	delete(labels, "empty")
	if d := p.Grants([]string{"jwt:a"}).DecideFor(q, labels); d.Verdict != access.Denied {
		t.Errorf("without a label whose value is empty: %v", d)
	}
}

func TestNothingInAFileIsAllowedToNobody(t *testing.T) {
	for _, content := range []string{"", "# nothing\n", "---\n", "{}", "rules: []", "limits: []", "\ufeffrules: []\r\nlimits: []\r\n",
		"limits:\n- {principals: [jwt:a], connections: 1}"} {
		wantNothing(t, parse(t, content))
	}
	wantNothing(t, &access.Policy{})
}

// wantNothing asks a policy for everything.
func wantNothing(t *testing.T, p *access.Policy) {
	t.Helper()
	for _, names := range [][]string{nil, {}, {""}, {"jwt:a"}, {"*"}, {"spiffe://a/b", "dns:a", "subject:CN=a"}} {
		g := p.Grants(names)
		if g.Any() || g.MayList() {
			t.Errorf("%q: a rule is for them", names)
		}
		for _, method := range append(access.Methods(), "", "*") {
			for _, id := range []string{"acme", "", "*"} {
				q := access.Query{Method: method, Tenant: id, Scopes: []string{"a/read"}}
				if d := g.Decide(q); d != (access.Decision{Reason: access.NoRule}) {
					t.Errorf("%q %v: %v", names, q, d)
				}
				if d := g.DecideFor(q, map[string]string{"team": "a"}); d != (access.Decision{Reason: access.NoRule}) {
					t.Errorf("%q %v: %v", names, q, d)
				}
			}
		}
	}
}

func TestLimits(t *testing.T) {
	preset := access.Limits{CallsPerSecond: 1000, RefreshesPerMinute: 60, OpenCalls: 5000, Connections: 1000}
	p := parse(t, `
limits:
- {principals: ["spiffe://a/batch/**"], calls_per_second: 0.5, refreshes_per_minute: 10, open_calls: 500, connections: 50}
- {principals: ["spiffe://a/**", "jwt:b"], open_calls: 7}
`)
	for name, want := range map[string]access.Limits{
		"spiffe://a/batch/x": {CallsPerSecond: 0.5, RefreshesPerMinute: 10, OpenCalls: 500, Connections: 50},
		"spiffe://a/x":       {CallsPerSecond: 1000, RefreshesPerMinute: 60, OpenCalls: 7, Connections: 1000},
		"jwt:b":              {CallsPerSecond: 1000, RefreshesPerMinute: 60, OpenCalls: 7, Connections: 1000},
		"jwt:c":              preset,
	} {
		if got := p.Grants([]string{"dns:other", name}).Limits(); got != want {
			t.Errorf("%s: %+v, want %+v", name, got, want)
		}
	}
	if got := p.Grants(nil).Limits(); got != preset {
		t.Errorf("nobody: %+v", got)
	}
	if got := access.Everything().Grants(nil).Limits(); got != (access.Limits{}) {
		t.Errorf("insecure: %+v", got)
	}
}

func TestMethodsAreThoseOfTheAPI(t *testing.T) {
	known := map[string]bool{}
	for _, m := range access.Methods() {
		known[m] = true
	}
	for _, service := range []struct {
		name  string
		other string
		has   []string
	}{
		{pb.TokenService_ServiceDesc.ServiceName, pb.TenantService_ServiceDesc.ServiceName, methodsOf(pb.TokenService_ServiceDesc)},
		{pb.TenantService_ServiceDesc.ServiceName, pb.TokenService_ServiceDesc.ServiceName, methodsOf(pb.TenantService_ServiceDesc)},
	} {
		for _, m := range service.has {
			if !known[m] {
				t.Errorf("no rule can give %s", m)
			}
			for _, full := range []string{"/" + service.name + "/" + m, service.name + "/" + m} {
				if name, ok := access.MethodNamed(full); !ok || name != m {
					t.Errorf("%s is %q, %v", full, name, ok)
				}
			}
			for _, full := range []string{"/" + service.other + "/" + m, "/other.Service/" + m, m, "/" + m, "//" + service.name + "/" + m, "/" + service.name + "/" + m + "/"} {
				if name, ok := access.MethodNamed(full); ok {
					t.Errorf("%s is %q", full, name)
				}
			}
		}
	}
	if _, ok := access.MethodNamed("/grpc.health.v1.Health/Check"); ok {
		t.Error("a method of another API")
	}
}

func TestAPolicyIsLoadedFromItsFile(t *testing.T) {
	path := filepath.Join(t.TempDir(), "access.yaml")
	if _, err := access.LoadPolicy(path); err == nil || !strings.HasPrefix(err.Error(), "access file: ") {
		t.Errorf("no file: %v", err)
	}
	write := func(content []byte) {
		if err := os.WriteFile(path, content, 0o600); err != nil {
			t.Fatal(err)
		}
	}
	write(bytes.Repeat([]byte("#"), 1<<20+1))
	if _, err := access.LoadPolicy(path); err == nil || err.Error() != "access.yaml:1: the file is larger than 1048576 bytes" {
		t.Errorf("a large file: %v", err)
	}
	write([]byte(strings.Join(good, "\n")))
	if p, err := access.LoadPolicy(path); err != nil || !p.Grants([]string{"jwt:a"}).Any() {
		t.Errorf("a good file: %v", err)
	}
	if _, err := access.LoadPolicy(t.TempDir()); err == nil {
		t.Error("a directory is loaded")
	}
}

func TestTheExampleSaysWhatItMeans(t *testing.T) {
	p, err := access.LoadPolicy("../../deploy/access.yaml")
	if err != nil {
		t.Fatal(err)
	}
	intake := map[string]string{"team": "intake"}
	for _, c := range []struct {
		name, method, tenant, scope string
		labels                      map[string]string
		want                        access.Verdict
	}{
		{"dns:billing.internal", "GetToken", "acme", "matters/read", nil, access.Allowed},
		{"spiffe://prod.example/ns/billing/sa/invoicer", "WatchToken", "globex-us", "contacts/write", nil, access.Allowed},
		{"dns:billing.internal", "GetToken", "acme", "matters/write", nil, access.ScopeDenied},
		{"dns:billing.internal", "GetTenant", "acme", "", nil, access.Denied},
		{"spiffe://prod.example/ns/intake/sa/web", "GetToken", "initech", "", intake, access.Allowed},
		{"spiffe://prod.example/ns/intake/sa/web", "GetToken", "initech", "", nil, access.Denied},
		{"jwt:support:jane", "ListTenants", "", "", nil, access.Allowed},
		{"jwt:support:jane", "UpdateTenant", "acme", "", nil, access.Denied},
		{"subject:CN=onboarding,OU=Platform,O=Example", "CreateTenant", "new", "", nil, access.Allowed},
		{"subject:CN=onboarding,OU=Platform,O=Example", "GetToken", "new", "", nil, access.Denied},
	} {
		q := access.Query{Method: c.method, Tenant: c.tenant}
		if c.scope != "" {
			q.Scopes = []string{c.scope}
		}
		if d := p.Grants([]string{c.name}).DecideFor(q, c.labels); d.Verdict != c.want {
			t.Errorf("%s %v: %v, want %v", c.name, q, d, c.want)
		}
	}
	if l := p.Grants([]string{"spiffe://prod.example/ns/batch/sa/night"}).Limits(); l.CallsPerSecond != 200 || l.Connections != 50 {
		t.Errorf("limits of a batch job: %+v", l)
	}
	content, err := os.ReadFile("../../deploy/access.yaml")
	if err != nil {
		t.Fatal(err)
	}
	preset := fmt.Sprintf("%d calls a second, %d refreshes a minute, %d open calls, %d connections", access.DefaultCallsPerSecond, access.DefaultRefreshesPerMinute,
		access.DefaultOpenCalls, access.DefaultConnections)
	if words := regexp.MustCompile(`\s*\n# `).ReplaceAllString(string(content), " "); !strings.Contains(words, preset) {
		t.Errorf("the comment does not say %q", preset)
	}
}

func methodsOf(service grpc.ServiceDesc) (names []string) {
	for _, m := range service.Methods {
		names = append(names, m.MethodName)
	}
	for _, s := range service.Streams {
		names = append(names, s.StreamName)
	}
	return names
}

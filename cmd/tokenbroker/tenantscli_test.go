package main_test

import (
	"encoding/json"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"smokeball.internal/tokenbroker/internal/access/accesstest"
	"smokeball.internal/tokenbroker/internal/simulator"
)

func TestATenantsLifeFromTheCommandLine(t *testing.T) {
	t.Parallel()
	g := startGuarded(t, "")
	admin := g.authority.Issue("administrator", accesstest.SPIFFE(administrator))
	g.write("admin.pem", admin.PEM)
	g.write("admin-key.pem", admin.KeyPEM)
	g.write("secret", []byte("first-secret\n"))
	g.issuer.SetClient(simulator.Client{Endpoint: "uk/staging", ID: "client", Secrets: []string{"first-secret", "second-secret"}, ExpiresIn: time.Hour})
	do := func(stdin string, want int, args ...string) (stdout, stderr string) {
		t.Helper()
		args = append([]string{"tenants"}, args...)
		stdout, stderr, code := verb(t, stdin, append(args, "--addr="+g.grpc, "--ca-file="+g.path("ca.pem"),
			"--cert-file="+g.path("admin.pem"), "--key-file="+g.path("admin-key.pem"))...)
		if code != want || strings.Contains(stdout+stderr, "-secret\n") || strings.Contains(stdout+stderr, "planted") {
			t.Errorf("%v: exit code %d, want %d: %s%s", args, code, want, stdout, stderr)
		}
		return stdout, stderr
	}
	object := func(text string) (o map[string]any) {
		t.Helper()
		if err := json.Unmarshal([]byte(text), &o); err != nil {
			t.Errorf("%v: %s", err, text)
		}
		return o
	}
	wants := func(text string, parts ...string) {
		t.Helper()
		for _, part := range parts {
			if !strings.Contains(text, part) {
				t.Errorf("there is no %q in\n%s", part, text)
			}
		}
	}

	create := []string{"create", "acme", "--region=uk", "--environment=staging", "--client-id=client", "--display-name=Acme & Söhne", "--label=team=billing"}
	_, said := do("", 2, create...)
	wants(said, "no terminal", "--client-secret-file")
	stdout, _ := do("", 0, append(create, "--client-secret-file="+g.path("secret"), "--dry-run")...)
	wants(stdout, "tenants/acme")
	_, said = do("", 1, "get", "acme")
	wants(said, "TENANT_NOT_FOUND", "tokenbroker tenants list")
	do("planted-api-key\n", 0, append(create, "--client-secret-file="+g.path("secret"), "--api-key-file=-")...)
	_, said = do("", 1, append(create, "--client-secret-file="+g.path("secret"))...)
	wants(said, "TENANT_EXISTS", "tokenbroker tenants update")

	stdout, _ = do("", 0, "get", "tenants/acme")
	wants(stdout, "Acme & Söhne", "uk", "staging", "active", "team=billing", "secret since")
	stdout, _ = do("", 0, "check", "acme")
	wants(stdout, "tenants/acme: ok")
	do("planted-wrong\n", 1, "rotate", "acme", "--client-secret-file=-")
	do("second-secret\n", 0, "rotate", "acme", "--client-secret-file=-", "--fallback-ttl=1h")
	stdout, _ = do("", 0, "get", "acme", "--output=json")
	before := object(stdout)
	if before["name"] != "tenants/acme" || before["fallbackSecretExpireTime"] == nil || before["clientSecretUpdateTime"] != before["updateTime"] || before["status"] == nil {
		t.Errorf("as JSON: %v", before)
	}

	do("", 0, "update", "acme", "--scope=matters/read", "--keep-warm", "--display-name=", "--clear=labels")
	_, said = do("", 1, "update", "acme", "--client-id=other", "--etag="+before["etag"].(string))
	wants(said, "ETAG_MISMATCH")
	stdout, _ = do("", 0, "get", "acme", "-o", "json")
	after := object(stdout)
	if after["labels"] != nil || after["displayName"] != nil && after["displayName"] != "" || after["keepWarm"] != true || after["clientId"] != "client" || after["region"] != "REGION_UK" {
		t.Errorf("updated: %v", after)
	}
	do("", 2, "update", "acme")
	stdout, _ = do("", 0, "disable", "acme")
	wants(stdout, "disabled")
	stdout, _ = do("", 0, "enable", "acme")
	wants(stdout, "active")
	g.issuer.SetClient(simulator.Client{Endpoint: "uk/staging", ID: "client", Secrets: []string{"another"}, ExpiresIn: time.Hour})
	stdout, _ = do("", 1, "check", "acme")
	wants(stdout, "tenants/acme: credentials rejected")

	_, said = do("", 2, "delete", "acme")
	wants(said, "--yes")
	do("", 0, "delete", "acme", "--yes", "--dry-run")
	stdout, _ = do("", 0, "list")
	wants(stdout, "acme", "uk", "staging")
	do("", 0, "delete", "acme", "--yes")
	if stdout, _ = do("", 0, "list", "--output=json"); stdout != "[]\n" {
		t.Errorf("after deletion: %q", stdout)
	}
	if got := planted(t, g); got != "" {
		t.Errorf("in the server's log: %s", got)
	}
}

// planted returns a line of the server's log with a planted secret.
func planted(t *testing.T, g *guarded) string {
	t.Helper()
	for line := range strings.Lines(g.log.String()) {
		if strings.Contains(line, "planted") {
			return line
		}
	}
	return ""
}

func TestListGoesThroughAllPages(t *testing.T) {
	t.Parallel()
	g := startGuarded(t, "")
	registered(t, g.redis, g.keyset, 0, 1001)
	caller := g.authority.Issue("administrator", accesstest.SPIFFE(administrator))
	g.write("c.pem", caller.PEM)
	g.write("k.pem", caller.KeyPEM)
	stdout, stderr, code := verb(t, "", "tenants", "list", "-o", "json", "--addr="+g.grpc, "--ca-file="+g.path("ca.pem"), "--cert-file="+g.path("c.pem"), "--key-file="+g.path("k.pem"))
	var all []*struct{ Name string }
	if err := json.Unmarshal([]byte(stdout), &all); err != nil || code != 0 || len(all) != 1001 {
		t.Errorf("%d tenants, exit code %d, %v: %s", len(all), code, err, stderr)
	}
}

func TestVerbsOfTheAPIWithoutOneToAsk(t *testing.T) {
	t.Parallel()
	addr := loopbackAddress(t)
	for name, c := range map[string]struct {
		code int
		says string
		args []string
	}{
		"nobody is there":         {1, "nothing listens at " + addr, []string{"--insecure"}},
		"no such name":            {1, "has no address", []string{"--addr=no-such-host.invalid:9090"}},
		"plain text to elsewhere": {1, "this machine only", []string{"--insecure", "--addr=192.0.2.1:9090"}},
		"no such file":            {1, "no such file", []string{"--ca-file=" + filepath.Join(t.TempDir(), "ca.pem")}},
		"half a certificate":      {2, "--key-file are needed together", []string{"--cert-file=c.pem"}},
		"no such format":          {2, "--output", []string{"--output=xml"}},
	} {
		stdout, stderr, code := verb(t, "", append([]string{"tenants", "get", "acme", "--addr=" + addr}, c.args...)...)
		if code != c.code || stdout != "" || !strings.Contains(stderr, c.says) {
			t.Errorf("%s: exit code %d: %s%s", name, code, stdout, stderr)
		}
	}
}

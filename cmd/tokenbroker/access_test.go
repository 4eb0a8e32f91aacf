package main_test

import (
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
)

// accessFile writes an access file.
func accessFile(t *testing.T, content string) string {
	t.Helper()
	path := filepath.Join(t.TempDir(), "access.yaml")
	if err := os.WriteFile(path, []byte(content), 0o600); err != nil {
		t.Fatal(err)
	}
	return path
}

func TestAccessExplainAnswersWithWordsAndItsExitCode(t *testing.T) {
	t.Parallel()
	file := accessFile(t, `rules:
- name: billing
  principals: [dns:billing.internal]
  roles: [token.reader]
  tenants: ["globex-*"]
  labels: {team: billing, tier: "1,2"}
  scopes: [matters/read, contacts/read]
- principals: [jwt:ops]
  roles: [tenant.admin]
  tenants: ["*"]
`)
	const allowed = "allowed by rule \"billing\" (access.yaml:2)\n"
	for question, want := range map[string]struct {
		code           int
		stdout, stderr string // The beginning.
	}{
		"dns:billing.internal GetToken globex-us --scope=matters/read --scope contacts/read --tenant-label=team=billing --tenant-label tier=1,2":                {0, allowed, ""},
		"dns:billing.internal /tokenbroker.v1.TokenService/GetToken tenants/globex-us --scope=matters/read --tenant-label=tier=1,2 --tenant-label=team=billing": {0, allowed, ""},
		"dns:billing.internal tokenbroker.v1.TokenService/RefreshToken globex-us --scope=matters/read --tenant-label=tier=1,2 --tenant-label=team=billing":      {0, allowed, ""},
		"jwt:ops ListTenants":                                   {0, "allowed by the rule in access.yaml:8\n", ""},
		"jwt:ops ListTenants -":                                 {0, "allowed by the rule in access.yaml:8\n", ""},
		"dns:billing.internal GetToken acme":                    {1, "denied\n  rule \"billing\" (access.yaml:2): it is for globex-*\n", ""},
		"dns:billing.internal GetToken globex-us":               {1, "denied\n  rule \"billing\" (access.yaml:2): the request must name its scopes", ""},
		"dns:billing.internal GetToken globex-us --scope=a/b,c": {1, "denied\n  rule \"billing\" (access.yaml:2): not among the scopes matters/read and contacts/read: a/b,c\n", ""},
		"dns:billing.internal GetToken globex-us --scope=matters/read": {1, "not known: it depends on the tenant's labels\n" +
			"  rule \"billing\" (access.yaml:2): allowed if the tenant has labels team=billing and tier=1,2\n", ""},
		"dns:billing.internal GetToken globex-us --scope=matters/read --tenant-label=team=other --tenant-label=tier=1,2": {1, "denied\n", ""},
		"jwt:nobody GetToken acme":                                     {1, "denied: no rule is for this principal\n", ""},
		"nobody GetToken acme":                                         {2, "", `tokenbroker: principal "nobody" must begin with `},
		"jwt:ops GetTokens acme":                                       {2, "", `tokenbroker: method "GetTokens" is none of GetToken, `},
		"jwt:ops tokenbroker.v1.TokenService/GetTenant acme":           {2, "", "tokenbroker: there is no such method in the API\n"},
		"jwt:ops GetTenant":                                            {2, "", `tokenbroker: tenant "": want the id of one tenant` + "\n"},
		"jwt:ops GetTenant tenants/Acme":                               {2, "", `tokenbroker: tenant "Acme": want the id of one tenant` + "\n"},
		"jwt:ops ListTenants acme":                                     {2, "", "tokenbroker: ListTenants is about no tenant"},
		"jwt:ops GetTenant acme --scope=a":                             {2, "", "tokenbroker: GetTenant has no scopes\n"},
		"jwt:ops GetTenant acme --tenant-label=team":                   {2, "", "tokenbroker: --tenant-label: want KEY=VALUE\n"},
		"jwt:ops GetTenant acme --tenant-label=a=b --tenant-label=a=c": {2, "", "tokenbroker: --tenant-label: a key is given twice\n"},
		"jwt:ops": {2, "", "tokenbroker: expected \"<method>"},
	} {
		args := append([]string{"access", "explain", "--access-file=" + file}, strings.Fields(question)...)
		stdout, stderr, code := verb(t, "", args...)
		if code != want.code || !strings.HasPrefix(stdout, want.stdout) || want.stdout == "" && stdout != "" ||
			!strings.HasPrefix(stderr, want.stderr) || want.stderr == "" && stderr != "" {
			t.Errorf("%s: exit code %d\n%s%s\nwant %d\n%s%s", question, code, stdout, stderr, want.code, want.stdout, want.stderr)
		}
	}
}

func TestAccessExplainWithoutAnAnswerIsNotADenial(t *testing.T) {
	t.Parallel()
	question := []string{"access", "explain", "jwt:a", "GetToken", "acme"}
	bad := accessFile(t, "rules:\n- a\n- b\n")
	for _, c := range []struct{ flag, stderr string }{
		{"--access-file=" + bad, "tokenbroker: access.yaml:2: a rule must be keys with values\naccess.yaml:3: a rule must be keys with values\n"},
		{"--access-file=" + bad + ".not", "tokenbroker: access file: open " + bad + ".not: no such file or directory\n"},
		{"--scope=a", "tokenbroker: missing flags: --access-file=FILE\nTry \"tokenbroker --help\".\n"},
	} {
		if stdout, stderr, code := verb(t, "", append(slices.Clone(question), c.flag)...); code != 2 || stdout != "" || stderr != c.stderr {
			t.Errorf("%s: exit code %d, %q, %q", c.flag, code, stdout, stderr)
		}
	}
}

func TestAccessCheckReadsAFileAloudOrSaysWhatIsWrong(t *testing.T) {
	t.Parallel()
	wantVerb(t, `access.yaml:2: "ops": jwt:ops may administer every tenant.`+"\nNobody else may do anything.", "access", "check",
		accessFile(t, "rules:\n- {name: ops, principals: [jwt:ops], roles: [tenant.admin], tenants: ['*']}\n"))
	bad := accessFile(t, "rules:\n- {principals: ['*'], roles: [], tenants: ['*']}\n")
	stdout, stderr, code := verb(t, "", "access", "check", bad)
	want := "tokenbroker: " + bad + ` is refused:
access.yaml:2: principals: "*" must begin with dns:, jwt:, subject: or spiffe://; there is no word for everybody
access.yaml:2: roles: must not be empty
`
	if stdout != "" || stderr != want || code != 1 {
		t.Errorf("exit code %d, %q, %q", code, stdout, stderr)
	}
	if _, stderr, code := verb(t, "", "access", "check", "../../deploy/access.yaml"); stderr != "" || code != 0 {
		t.Errorf("the example: exit code %d, %q", code, stderr)
	}
}

func TestAccessExplainFindsTheFileInTheServersConfiguration(t *testing.T) {
	t.Parallel()
	file := accessFile(t, "rules:\n- {principals: [jwt:ops], roles: [tenant.admin], tenants: ['*']}\n")
	config := filepath.Join(t.TempDir(), "config.yaml")
	if err := os.WriteFile(config, []byte("access-file: "+file+"\nredis-url: redis://127.0.0.1\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	wantVerb(t, "allowed by the rule in access.yaml:2", "access", "explain", "--config="+config, "jwt:ops", "GetTenant", "tenants/acme")
}

package access_test

import (
	"strings"
	"testing"

	"smokeball.internal/tokenbroker/internal/access"
)

func TestGaps(t *testing.T) {
	t.Parallel()
	const reader = `{name: readers, principals: ["spiffe://d/reader"], roles: [token.reader], tenants: ["*"]}`
	const admin = `{name: admins, principals: ["jwt:admin"], roles: [tenant.admin], tenants: ["*"]}`
	for rules, test := range map[string]struct {
		certificates, tokens bool
		want                 []string
	}{
		"":                           {true, true, []string{"token.reader", "tenant.admin"}},
		reader:                       {true, true, []string{"tenant.admin"}},
		admin:                        {true, true, []string{"token.reader"}},
		reader + ", " + admin:        {true, true, nil},
		reader + ", " + admin + " ":  {true, false, []string{`rule "admins": the server has no --jwt-issuer`}},
		reader + ", " + admin + "  ": {false, true, []string{`rule "readers": the server has no --client-ca-file`}},
		reader + ", {principals: [\"jwt:x\"], roles: [tenant.admin], labels: {team: a}}": {true, true, []string{"nobody can register"}},
	} {
		policy, err := access.ParsePolicy("access.yaml", []byte("rules: [\n"+strings.ReplaceAll(rules, ", {", ",\n{")+"\n]\n"))
		if err != nil {
			t.Fatal(err)
		}
		gaps := policy.Gaps(test.certificates, test.tokens)
		if len(gaps) != len(test.want) {
			t.Errorf("%s: %q", rules, gaps)
			continue
		}
		for n, want := range test.want {
			if !strings.Contains(gaps[n], want) {
				t.Errorf("%s: %q does not say %q", rules, gaps[n], want)
			}
		}
	}
}

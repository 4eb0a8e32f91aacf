package main_test

import (
	"crypto/x509"
	"strings"
	"testing"
	"time"

	"github.com/go-jose/go-jose/v4/jwt"

	"smokeball.internal/tokenbroker/internal/access/accesstest"
	"smokeball.internal/tokenbroker/internal/redisstore/redistest"
)

// Who cannot reach the server, or may not, is told what to do.
func TestAdviceForWhoIsNotServed(t *testing.T) {
	t.Parallel()
	g := startGuarded(t, `  - name: a token's subject
    principals: ["jwt:system:admin"]
    roles: [tenant.admin]
    tenants: ["*"]
`, withTokens)
	certificate := func(name, id string, change func(*x509.Certificate)) []string {
		c := g.authority.Issue("caller", func(c *x509.Certificate) {
			accesstest.SPIFFE(id)(c)
			if change != nil {
				change(c)
			}
		})
		g.write(name+".pem", c.PEM)
		g.write(name+"-key.pem", c.KeyPEM)
		return []string{"--cert-file=" + g.path(name+".pem"), "--key-file=" + g.path(name+"-key.pem")}
	}
	token := func(name, subject string, change func(*jwt.Claims)) []string {
		claims := g.tokens.Claims(subject, tokenAudience)
		if change != nil {
			change(&claims)
		}
		g.write(name, []byte(g.tokens.Sign(claims)+"\n"))
		return []string{"--jwt-file=" + g.path(name)}
	}
	g.write("other-ca.pem", accesstest.NewAuthority(t).PEM())
	plain := start(t, serveArgs(redistest.Start(t).URL(), keysetFile(t), startIssuer(t))...).ready()
	ca := "--ca-file=" + g.path("ca.pem")
	elsewhere := strings.Replace(g.grpc, "127.0.0.1", "localhost", 1)
	for name, test := range map[string]struct {
		addr string
		args []string
		code int
		says []string
	}{
		"a certificate":            {g.grpc, append(certificate("admin", administrator, nil), ca), 0, nil},
		"a token":                  {g.grpc, append(token("admin.jwt", "system:admin", nil), ca), 0, nil},
		"an unknown authority":     {g.grpc, certificate("a", administrator, nil), 1, []string{"not known here", "--ca-file"}},
		"another authority":        {g.grpc, append(certificate("b", administrator, nil), "--ca-file="+g.path("other-ca.pem")), 1, []string{"not known here", "--ca-file"}},
		"another name":             {elsewhere, append(certificate("c", administrator, nil), ca), 1, []string{"for other names", elsewhere}},
		"neither":                  {g.grpc, []string{ca}, 1, []string{"show a certificate", "--jwt-file"}},
		"a token that is over":     {g.grpc, append(token("old.jwt", "system:admin", func(c *jwt.Claims) { c.Expiry = jwt.NewNumericDate(time.Now().Add(-time.Hour)) }), ca), 1, []string{"has expired", "(UNAUTHENTICATED)"}},
		"no token in the file":     {g.grpc, []string{ca, "--jwt-file=" + g.path("ca.pem")}, 1, []string{"has more in it than a token"}},
		"nobody that a rule knows": {g.grpc, append(certificate("d", "spiffe://test.example/stranger", nil), ca), 1, []string{"(NOT_ALLOWED)", "tokenbroker access explain"}},
		"a certificate that is over": {g.grpc, append(certificate("e", administrator, func(c *x509.Certificate) { c.NotAfter = time.Now().Add(-time.Minute) }), ca), 1,
			[]string{"the certificate in --cert-file issued anew"}},
		"TLS where there is none":       {plain.grpc, []string{ca}, 1, []string{"speaks no TLS", "--insecure"}},
		"plain text where there is TLS": {g.grpc, []string{"--insecure"}, 1, []string{"try without --insecure"}},
	} {
		stdout, stderr, code := verb(t, "", append([]string{"tenants", "list", "--addr=" + test.addr}, test.args...)...)
		if code != test.code {
			t.Errorf("%s: exit code %d: %s%s", name, code, stdout, stderr)
		}
		for _, part := range test.says {
			if !strings.Contains(stderr, part) {
				t.Errorf("%s: nothing says %q:\n%s", name, part, stderr)
			}
		}
	}
}

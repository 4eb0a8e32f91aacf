package main_test

import (
	"crypto/x509"
	"os"
	"strings"
	"sync"
	"time"

	"smokeball.internal/tokenbroker/internal/access/accesstest"
)

const (
	// billing is a caller who has no rule at first.
	billing     = "spiffe://test.example/billing"
	billingRule = `
  - name: billing
    principals: ["` + billing + `"]
    roles: [token.reader]
    tenants: [acme]
`
	noLimits = `
limits:
  - principals: ["` + everything + `"]
    calls_per_second: 100000
`
)

// playGuarded breaks what only a replica with callers, rules and an audit log has.
func playGuarded(s *stage) {
	g := startGuarded(s.t, noLimits, "--log-level=info")
	g.certify("server.pem", "server-key.pem", 365*24*time.Hour)
	s.monitor = watchOver(s.t, g.ops)
	s.desk = newDesk(s.t, machine{journalctl: func(string) string { return g.log.String() }}, map[string]string{
		"TOKENBROKER_ADDR": g.grpc, "TOKENBROKER_CA_FILE": g.path("ca.pem"), "TOKENBROKER_CERT_FILE": g.path("admin.pem"), "TOKENBROKER_KEY_FILE": g.path("admin-key.pem"),
		"OPS": "http://" + g.ops, "TENANT": "acme", "PRINCIPAL": billing, "ACCESS_FILE": g.path("access.yaml"), "AUDIT_LOG": g.path("audit.log"),
		"CERT_FILE": g.path("server.pem"), "CERT_KEY_FILE": g.path("server-key.pem"),
	})
	admin := g.authority.Issue("administrator", accesstest.SPIFFE(administrator))
	g.write("admin.pem", admin.PEM)
	g.write("admin-key.pem", admin.KeyPEM)
	service := g.as(everything)
	register(s.t, service, g.issuer, "acme", time.Hour)
	s.asked(service, "acme")
	rules := basicRules + noLimits

	s.meet(trouble{fires: []string{"TokenBrokerSettingStale"}, provoke: func() {
		g.write("access.yaml", []byte(strings.Replace(rules, "roles:", "role:", 1)))
		g.write("access.yaml.next", []byte(rules))
	}})
	s.meet(trouble{fires: []string{"TokenBrokerCallersRefused"}, provoke: func() {
		g.write("access.yaml.next", []byte(basicRules+billingRule+noLimits))
		s.asked(g.as(billing), "acme")
	}})
	s.meet(trouble{fires: []string{"TokenBrokerAuditDropped"}, provoke: func() {
		// Something else is in the place of the log, and more is asked for than waits for it.
		if err := os.Rename(g.path("audit.log"), g.path("audit.log.1")); err != nil {
			s.t.Fatal(err)
		}
		if err := os.Mkdir(g.path("audit.log"), 0o700); err != nil {
			s.t.Fatal(err)
		}
		var callers sync.WaitGroup
		for range 20 {
			callers.Go(func() {
				for range 1000 {
					_, _ = get(s.t.Context(), service, "acme")
				}
			})
		}
		callers.Wait()
	}})
	for alert, left := range map[string]time.Duration{"TokenBrokerCertificateEnds": 10 * 24 * time.Hour, "TokenBrokerCertificateEndsNow": 2 * time.Hour} {
		s.meet(trouble{fires: []string{alert}, provoke: func() {
			g.certify("server.pem", "server-key.pem", left)
			g.certify("server.pem.next", "server-key.pem.next", 365*24*time.Hour)
		}})
	}
}

// certify writes a certificate of the server that ends in so long, and its key.
func (g *guarded) certify(certificate, key string, left time.Duration) {
	g.t.Helper()
	issued := g.authority.Issue("server", func(c *x509.Certificate) {
		c.DNSNames, c.NotAfter = []string{serverName}, time.Now().Add(left)
	})
	g.write(key, issued.KeyPEM)
	g.write(certificate, issued.PEM)
}

// file writes a file at the desk, and has a variable name it.
func (s *stage) file(variable, name, content string) {
	s.t.Helper()
	if err := os.WriteFile(s.path(name), []byte(content), 0o600); err != nil {
		s.t.Fatal(err)
	}
	s.set(variable, s.path(name))
}

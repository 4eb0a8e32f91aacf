package doctor

import (
	"bytes"
	"context"
	"crypto/tls"
	"crypto/x509"
	"encoding/pem"
	"fmt"
	"net"
	"os"
	"slices"
	"strings"
	"time"

	"smokeball.internal/tokenbroker/internal/access"
)

const insecure = "--insecure takes everyone for an administrator"

// certificate tells whether the server can prove who it is, and for how long.
func (e *examination) certificate(_ context.Context, r *report) {
	s := e.Settings
	if s.Insecure || s.TLSCertFile == "" || s.TLSKeyFile == "" {
		r.skip("%s", skipCallers(s.Insecure, "--tls-cert-file and --tls-key-file are not set"))
		return
	}
	certificate, err := os.ReadFile(s.TLSCertFile)
	if err != nil {
		r.skip("%v", err)
		return
	}
	key, err := os.ReadFile(s.TLSKeyFile)
	if err != nil {
		r.skip("%v", err)
		return
	}
	if err := new(access.Certificates).SetServer(certificate, key); err != nil {
		r.problem("Give --tls-cert-file and --tls-key-file a chain, its own certificate first, and the key that belongs to it.", "%v", err)
		return
	}
	pair, _ := tls.X509KeyPair(certificate, key) // Not an error: SetServer has done it.
	chain := certificates(certificate)
	for n, c := range chain {
		tellLife(r, fmt.Sprintf("certificate %d of %s", n+1, s.TLSCertFile), c, "Have it issued anew; the server takes it up while it runs.")
	}
	leaf := pair.Leaf
	if len(leaf.ExtKeyUsage) > 0 && !slices.Contains(leaf.ExtKeyUsage, x509.ExtKeyUsageServerAuth) && !slices.Contains(leaf.ExtKeyUsage, x509.ExtKeyUsageAny) {
		r.problem("Have it issued for TLS servers (extended key usage serverAuth).", "the certificate is not for servers")
	}
	names := slices.Clone(leaf.DNSNames)
	for _, ip := range leaf.IPAddresses {
		names = append(names, ip.String())
	}
	host, _, _ := net.SplitHostPort(s.GRPCAddr)
	ip := net.ParseIP(host)
	switch {
	case len(names)+len(leaf.URIs) == 0:
		r.problem("Have it issued with the names that callers use (subject alternative names).", "the certificate has no names in it: clients do not look at its subject")
	case host != "" && (ip == nil || !ip.IsUnspecified() && !ip.IsLoopback()) && leaf.VerifyHostname(host) != nil:
		r.warn("Have it issued with the names that callers use, or give callers one of those that it has.", "the certificate is for %s, and not for the host of --grpc-addr, %s", strings.Join(names, ", "), host)
	}
	if r.quiet() {
		r.ok("certificate and key belong together; it is for %s, until %s", strings.Join(names, ", "), leaf.NotAfter.UTC().Format(time.RFC3339))
	}
}

func skipCallers(everybody bool, otherwise string) string {
	if everybody {
		return insecure
	}
	return otherwise
}

// certificates returns those of a PEM file that can be read.
func certificates(content []byte) (all []*x509.Certificate) {
	for block, rest := pem.Decode(content); block != nil; block, rest = pem.Decode(rest) {
		if c, err := x509.ParseCertificate(block.Bytes); err == nil && block.Type == "CERTIFICATE" {
			all = append(all, c)
		}
	}
	return all
}

// tellLife tells when a certificate is not valid, or not for long: a tenth of its
// life is left, by which time whoever renews it should have done so.
func tellLife(r *report, name string, c *x509.Certificate, mend string) {
	now := time.Now()
	switch until := c.NotAfter.UTC().Format(time.RFC3339); {
	case now.After(c.NotAfter):
		r.problem(mend, "%s has expired at %s", name, until)
	case now.Before(c.NotBefore):
		r.problem("Look at the clock of this machine. "+mend, "%s is not valid before %s", name, c.NotBefore.UTC().Format(time.RFC3339))
	case c.NotAfter.Sub(now) < c.NotAfter.Sub(c.NotBefore)/10:
		r.warn(mend, "%s expires soon, at %s", name, until)
	}
}

// authorities tells whether callers' certificates can be verified.
func (e *examination) authorities(_ context.Context, r *report) {
	s := e.Settings
	if s.Insecure || s.ClientCAFile == "" {
		r.skip("%s", skipCallers(s.Insecure, "--client-ca-file is not set: callers come with bearer tokens alone"))
		return
	}
	content, err := os.ReadFile(s.ClientCAFile)
	if err != nil {
		r.skip("%v", err)
		return
	}
	if err := new(access.Certificates).SetAuthorities(content); err != nil {
		r.problem("Put the certificates of the callers' authorities into the file, PEM, and nothing else.", "%s: %v", s.ClientCAFile, err)
		return
	}
	all := certificates(content)
	for n, c := range all {
		tellLife(r, fmt.Sprintf("authority %d of %s", n+1, s.ClientCAFile), c, "Add the authority's next certificate to the file; leave this one in it as long as it is valid.")
		if !c.IsCA {
			r.warn("Put the certificate of its authority there instead.", "authority %d of %s is no authority, but somebody's certificate", n+1, s.ClientCAFile)
		}
	}
	if r.quiet() {
		r.ok("%d authorities of callers can be read", len(all))
	}
}

// accessFile tells whether the rules can be read, and who is missing in them.
func (e *examination) accessFile(_ context.Context, r *report) {
	s := e.Settings
	if s.Insecure || s.AccessFile == "" {
		r.skip("%s", skipCallers(s.Insecure, "--access-file is not set"))
		return
	}
	content, err := os.ReadFile(s.AccessFile)
	if err != nil {
		r.skip("%v", err)
		return
	}
	policy, err := access.ParsePolicy(s.AccessFile, content)
	if err != nil {
		for line := range strings.Lines(err.Error()) {
			r.problem(`Correct it; "tokenbroker access check `+s.AccessFile+`" tells the same.`, "%s", strings.TrimSpace(line))
		}
		return
	}
	for _, gap := range policy.Gaps(s.ClientCAFile != "", s.JWTIssuer != "") {
		r.warn(`Add a rule, if that is not meant so (docs/security.md); "tokenbroker access check `+s.AccessFile+`" reads them aloud.`, "%s", gap)
	}
	if r.quiet() {
		r.ok("it can be read, and somebody has each role")
	}
}

// bearerTokens tells whether bearer tokens can be verified.
func (e *examination) bearerTokens(ctx context.Context, r *report) {
	s := e.Settings
	if s.Insecure || s.JWTIssuer == "" || s.JWTKeys == "" {
		r.skip("%s", skipCallers(s.Insecure, "--jwt-issuer is not set: callers come with certificates alone"))
		return
	}
	var content []byte
	var err error
	if s.JWTKeysURL() == "" {
		content, err = os.ReadFile(s.JWTKeys)
	} else {
		content, err = e.FetchKeys(ctx)
	}
	if err != nil {
		r.problem("Callers with tokens are refused until there are keys. Correct --jwt-keys, or look at the issuer's machine, the network and --jwt-keys-ca-file.",
			"the keys of the issuer of bearer tokens cannot be had: %v", err)
		return
	}
	if err := access.NewTokens(s.JWTIssuer, s.JWTAudience, nil).SetKeys(content); err != nil {
		r.problem("Have --jwt-keys name the issuer's JWK set.", "the keys of the issuer of bearer tokens cannot be used: %v", err)
		return
	}
	r.ok("there are keys for tokens of %s", s.JWTIssuer)
	if bytes.Contains(content, []byte(`"kid"`)) {
		return
	}
	r.warn("Have the issuer name its keys, or replacing one will refuse tokens that are still good.", "the keys of the issuer of bearer tokens have no names (kid)")
}

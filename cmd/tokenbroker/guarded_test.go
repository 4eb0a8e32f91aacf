package main_test

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"os"
	"path/filepath"
	"testing"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials"

	"smokeball.internal/tokenbroker/internal/access/accesstest"
	"smokeball.internal/tokenbroker/internal/redisstore/redistest"
)

// guarded is a replica as in production: with TLS, callers who prove who they
// are, rules, and an audit log.
type guarded struct {
	*process
	t      testing.TB
	dir    string
	redis  *redistest.Server
	issuer *issuer

	authority *accesstest.Authority   // of the server and of callers
	tokens    *accesstest.TokenIssuer // of bearer tokens
	keyset    string
	args      []string // it was started with
}

const (
	tokenIssuer   = "https://idp.example"
	tokenAudience = "tokenbroker"
	// administrator may do everything with all tenants but read their tokens.
	administrator = "spiffe://test.example/administrator"
	// everything may do everything.
	everything = "spiffe://test.example/everything"
)

// Among the arguments of startGuarded, withTokens lets callers come with bearer tokens,
// and withGarbage has garbage lie as in production (see startProgram).
const (
	withTokens  = "with tokens"
	withGarbage = "with garbage"
)

const basicRules = `rules:
  - name: administration
    principals: ["` + administrator + `", "` + everything + `"]
    roles: [tenant.admin]
    tenants: ["*"]
  - name: all tokens
    principals: ["` + everything + `"]
    roles: [token.reader]
    tenants: ["*"]
`

// startGuarded starts a replica with basicRules and these.
func startGuarded(t testing.TB, rules string, args ...string) *guarded {
	t.Helper()
	g := &guarded{
		t: t, dir: t.TempDir(), redis: redistest.Start(t, "--appendonly", "yes"), issuer: startIssuer(t), keyset: keysetFile(t),
		authority: accesstest.NewAuthority(t), tokens: accesstest.NewTokenIssuer(t, tokenIssuer, "key"),
	}
	g.writeServer()
	g.write("ca.pem", g.authority.PEM())
	g.write("jwks.json", g.tokens.JWKS())
	g.write("access.yaml", []byte(basicRules+rules))
	var given, variables []string
	for _, arg := range args {
		switch arg {
		case withGarbage:
			variables = append(variables, "GOGC=")
		case withTokens:
			given = append(given, "--jwt-issuer="+tokenIssuer, "--jwt-audience="+tokenAudience, "--jwt-keys="+g.path("jwks.json"))
		default:
			given = append(given, arg)
		}
	}
	args = append([]string{"--tls-cert-file=" + g.path("server.pem"), "--tls-key-file=" + g.path("server-key.pem"), "--client-ca-file=" + g.path("ca.pem"),
		"--access-file=" + g.path("access.yaml"), "--audit=file:" + g.path("audit.log")}, given...)
	all := serveArgs(g.redis.URL(), g.keyset, g.issuer, args...)
	for i, arg := range all {
		if arg == "--insecure" {
			all = append(all[:i:i], all[i+1:]...)
			break
		}
	}
	g.args = all
	g.process = startProgram(t, binary, variables, all...).ready()
	return g
}

func (g *guarded) path(name string) string { return filepath.Join(g.dir, name) }

// write replaces a file at once, as those who write certificates do.
func (g *guarded) write(name string, content []byte) {
	g.t.Helper()
	next := g.path(name + ".next")
	if err := os.WriteFile(next, content, 0o600); err != nil {
		g.t.Fatal(err)
	}
	if err := os.Rename(next, g.path(name)); err != nil {
		g.t.Fatal(err)
	}
}

// serverName is what the server's certificate says, beside its address.
const serverName = "tokenbroker.internal"

// writeServer gives the server another certificate.
func (g *guarded) writeServer() {
	g.t.Helper()
	server := g.authority.Issue("server", func(c *x509.Certificate) { c.DNSNames = []string{serverName} })
	g.write("server-key.pem", server.KeyPEM)
	g.write("server.pem", server.PEM)
}

// bearer is a token that goes with each call.
type bearer string

func (b bearer) GetRequestMetadata(context.Context, ...string) (map[string]string, error) {
	return map[string]string{"authorization": "Bearer " + string(b)}, nil
}

func (bearer) RequireTransportSecurity() bool { return true }

// dial returns a connection with a certificate and a token, both of which may be missing.
func (g *guarded) dial(certificate *accesstest.Certificate, token string, options ...grpc.DialOption) *grpc.ClientConn {
	g.t.Helper()
	config := &tls.Config{RootCAs: g.authority.Pool(), ServerName: "127.0.0.1"}
	if certificate != nil {
		config.Certificates = []tls.Certificate{certificate.TLS}
	}
	options = append(options, grpc.WithTransportCredentials(credentials.NewTLS(config)))
	if token != "" {
		options = append(options, grpc.WithPerRPCCredentials(bearer(token)))
	}
	conn, err := grpc.NewClient(g.grpc, options...)
	if err != nil {
		g.t.Fatal(err)
	}
	g.t.Cleanup(func() { _ = conn.Close() })
	return conn
}

// as returns a connection of the caller with this SPIFFE ID.
func (g *guarded) as(id string) *grpc.ClientConn {
	g.t.Helper()
	certificate := g.authority.Issue("caller", accesstest.SPIFFE(id))
	return g.dial(&certificate, "")
}

// soon is a context for one call.
func soon(t testing.TB) context.Context {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), 20*time.Second)
	t.Cleanup(cancel)
	return ctx
}

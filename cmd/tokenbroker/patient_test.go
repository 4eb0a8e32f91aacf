package main_test

import (
	"bytes"
	"crypto/x509"
	"encoding/json"
	"maps"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"smokeball.internal/tokenbroker/internal/access/accesstest"
	"smokeball.internal/tokenbroker/internal/doctor"
	"smokeball.internal/tokenbroker/internal/redisstore/redistest"
)

// patient is a set-up that doctor looks at: as in production, with two tenants, and
// healthy until something is broken.
type patient struct {
	t         *testing.T
	dir       string
	redis     *redistest.Server
	issuer    *issuer
	authority *accesstest.Authority
	settings  map[string]string // the value of each flag
	more      []string          // further arguments
	env       []string
}

func newPatient(t *testing.T, redisArgs ...string) *patient {
	t.Helper()
	p := &patient{t: t, dir: t.TempDir(), redis: redistest.Start(t, append([]string{"--appendonly", "yes"}, redisArgs...)...),
		issuer: startIssuer(t), authority: accesstest.NewAuthority(t)}
	keyset := keysetFile(t)
	registered(t, p.redis, keyset, 0, 2)
	server := p.authority.Issue("server", func(c *x509.Certificate) { c.DNSNames = []string{serverName} })
	p.settings = map[string]string{
		"redis-url": p.redis.URL(), "keyset-file": keyset, "grpc-addr": loopbackAddress(t), "ops-addr": loopbackAddress(t),
		"tls-cert-file": p.write("server.pem", server.PEM), "tls-key-file": p.write("server-key.pem", server.KeyPEM),
		"client-ca-file": p.write("ca.pem", p.authority.PEM()), "access-file": p.write("access.yaml", []byte(basicRules)),
		"jwt-issuer": tokenIssuer, "jwt-audience": tokenAudience, "jwt-keys": p.write("jwks.json", accesstest.NewTokenIssuer(t, tokenIssuer, "key").JWKS()),
		"audit": "file:" + filepath.Join(p.dir, "audit.log"), "issuer-override": "us/production=" + p.issuer.url + "/us/production/oauth2/token",
	}
	return p
}

// write writes a file and returns its path.
func (p *patient) write(name string, content []byte) string {
	p.t.Helper()
	path := filepath.Join(p.dir, name)
	if err := os.WriteFile(path, content, 0o600); err != nil {
		p.t.Fatal(err)
	}
	return path
}

// do has Redis do something.
func (p *patient) do(args ...any) {
	p.t.Helper()
	if err := p.redis.Client().Do(p.t.Context(), args...).Err(); err != nil {
		p.t.Fatal(err)
	}
}

// withUser has the server come to Redis as somebody.
func (p *patient) withUser(user string) {
	p.settings["redis-url"] = strings.Replace(p.redis.URL(), "redis://", "redis://"+user+"@", 1)
}

// examination is what doctor says.
type examination struct {
	code     int
	output   string
	Problems int
	Warnings int
	Findings []doctor.Finding
}

// examine runs doctor.
func (p *patient) examine(more ...string) examination {
	p.t.Helper()
	args := append([]string{"doctor", "--output=json"}, p.more...)
	for _, flag := range slices.Sorted(maps.Keys(p.settings)) {
		args = append(args, "--"+flag+"="+p.settings[flag])
	}
	cmd := exec.CommandContext(p.t.Context(), binary, append(args, more...)...)
	cmd.Env = append([]string{"PATH=" + os.Getenv("PATH")}, p.env...)
	var out bytes.Buffer
	cmd.Stdout, cmd.Stderr = &out, &out
	_ = cmd.Run()
	e := examination{code: cmd.ProcessState.ExitCode(), output: out.String()}
	if strings.HasPrefix(e.output, "{") {
		if err := json.Unmarshal(out.Bytes(), &e); err != nil {
			p.t.Errorf("%v: %s", err, e.output)
		}
	}
	return e
}

// found returns the findings in a state.
func (e *examination) found(state doctor.State) (found []doctor.Finding) {
	for _, f := range e.Findings {
		if f.State == state {
			found = append(found, f)
		}
	}
	return found
}

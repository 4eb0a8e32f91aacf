//go:build linux

package main_test

import (
	"bufio"
	"bytes"
	"encoding/base64"
	"encoding/pem"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	pb "smokeball.internal/tokenbroker/gen/tokenbroker/v1"
	"smokeball.internal/tokenbroker/internal/redisstore/redistest"
	"smokeball.internal/tokenbroker/internal/simulator"
)

// confined is a replica with a directory of its own for all that it may write.
type confined struct {
	*process
	dir string
}

// startConfined starts a replica in an empty directory, with standard output and temporary files there too, and as much
// leave to dump core as can be given. program is the binary, or what leads to it.
func startConfined(t *testing.T, variables, program []string, args ...string) *confined {
	t.Helper()
	dir := t.TempDir()
	variables = append(variables, "TMPDIR="+dir)
	shell := slices.Concat([]string{"-c", `cd "$0" && ulimit -c "$(ulimit -H -c)" && exec "$@" >stdout`, dir}, program, args)
	return &confined{startProgram(t, "/bin/sh", variables, shell...), dir}
}

// written returns all that the replica has written, by place, after it has ended.
func (c *confined) written() map[string]string {
	c.t.Helper()
	<-c.done
	places := map[string]string{"standard error": c.log.String()}
	err := filepath.WalkDir(c.dir, func(path string, d os.DirEntry, err error) error {
		if err != nil || d.IsDir() {
			return err
		}
		content, err := os.ReadFile(path)
		places[filepath.Base(path)] = string(content)
		return err
	})
	if err != nil {
		c.t.Fatal(err)
	}
	return places
}

// encryptedIssuer is a simulated issuer that speaks HTTP/2, and the file of its certificate.
func encryptedIssuer(t *testing.T) (*issuer, string) {
	t.Helper()
	sim := simulator.New()
	server := httptest.NewUnstartedServer(sim)
	server.EnableHTTP2 = true
	server.StartTLS()
	t.Cleanup(func() { sim.Close(); server.Close() })
	file := filepath.Join(t.TempDir(), "issuer")
	if err := os.WriteFile(file, pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: server.Certificate().Raw}), 0o600); err != nil {
		t.Fatal(err)
	}
	return &issuer{sim, server.URL}, file
}

// TestNoSecretIsFoundWithEveryDebuggingAidOn turns on all that the libraries have to be debugged with, takes secrets
// through the calls that have them, and crashes the process.
func TestNoSecretIsFoundWithEveryDebuggingAidOn(t *testing.T) {
	t.Parallel()
	store, keyset := redistest.Start(t), keysetFile(t)
	// Whoever sees what goes to a proxy sees the host that is asked. On loopback none is used.
	proxied := make(chan struct{}, 1)
	proxy := httptest.NewServer(http.HandlerFunc(func(http.ResponseWriter, *http.Request) { proxied <- struct{}{} }))
	t.Cleanup(proxy.Close)
	for _, signal := range []syscall.Signal{syscall.SIGQUIT, syscall.SIGABRT, syscall.SIGSEGV} {
		t.Run(signal.String(), func(t *testing.T) {
			issuer, certificate := encryptedIssuer(t)
			p := startConfined(t, []string{
				"GRPC_GO_LOG_VERBOSITY_LEVEL=99", "GRPC_GO_LOG_SEVERITY_LEVEL=info", "GRPC_BINARY_LOG_FILTER=*", "GRPC_TRACE=all", "GRPC_VERBOSITY=DEBUG",
				"GODEBUG=http2debug=2,http2client=1", "GOTRACEBACK=crash", "SSL_CERT_FILE=" + certificate, "HTTP_PROXY=" + proxy.URL, "HTTPS_PROXY=" + proxy.URL,
			}, []string{binary}, serveArgs(store.URL(), keyset, issuer)...)
			p.ready()
			planted := takeSecretsThrough(t, p.process, issuer, strings.ReplaceAll(signal.String(), " ", "-"))
			if err := p.cmd.Process.Signal(signal); err != nil {
				t.Fatal(err)
			}
			places := p.written()
			if log := places["standard error"]; !strings.Contains(log, "goroutine ") || !strings.Contains(log, "INFO: [core]") {
				t.Error("no goroutines were dumped, or gRPC was not debugged: nothing was shown")
			}
			for place, text := range places {
				for what, forms := range planted {
					for _, form := range forms {
						if i := strings.Index(text, form); i >= 0 {
							t.Errorf("%s is in %s: ...%.60q", what, place, text[max(0, i-60):i])
						}
					}
				}
			}
			t.Logf("%d secrets looked for in %d places, %d bytes on standard error", len(planted), len(places), len(places["standard error"]))
		})
	}
	if len(proxied) > 0 {
		t.Error("a proxy was asked about a loopback address")
	}
}

// takeSecretsThrough makes the calls with secrets in them, and returns the secrets in every form that they travel in.
func takeSecretsThrough(t *testing.T, p *process, issuer *issuer, id string) map[string][]string {
	t.Helper()
	const client = "acme-client"
	planted := map[string][]string{}
	plant := func(what, text string) string {
		basic := base64.StdEncoding.EncodeToString([]byte(client + ":" + text))
		planted[what] = []string{text, basic, fmt.Sprintf("%x", text), base64.StdEncoding.EncodeToString([]byte(text))}
		return text
	}
	first, second, key := plant("client secret", "planted-secret-Zx81"), plant("new client secret", "planted-rotated-Zx81"), plant("api key", "planted-key-Zx81")
	issuer.SetClient(simulator.Client{Endpoint: "us/production", ID: client, Secrets: []string{first, second}, Scopes: []string{"matters/read"}})
	tokens, tenants := pb.NewTokenServiceClient(p.connect()), pb.NewTenantServiceClient(p.connect())
	if _, err := tenants.CreateTenant(t.Context(), &pb.CreateTenantRequest{TenantId: id, Tenant: &pb.Tenant{
		Region: pb.Region_REGION_US, ClientId: client, ClientSecret: first, ApiKey: key}}); err != nil {
		t.Fatal(err)
	}
	for n := range 2 {
		got, err := tokens.GetToken(t.Context(), &pb.GetTokenRequest{Tenant: "tenants/" + id})
		if err != nil {
			t.Fatal(err)
		}
		token := got.GetToken().GetAccessToken()
		plant(fmt.Sprint("access token ", n), token)
		plant(fmt.Sprint("beginning of access token ", n), token[:80])
		if _, err := tenants.RotateClientSecret(t.Context(), &pb.RotateClientSecretRequest{Name: "tenants/" + id, ClientSecret: second}); err != nil {
			t.Fatal(err)
		}
	}
	_, _ = tenants.RotateClientSecret(t.Context(), &pb.RotateClientSecretRequest{Name: "tenants/" + id, ClientSecret: plant("refused secret", "planted-refused-Zx81")})
	return planted
}

// TestAnswerThatNobodyAskedForIsNotLogged has an issuer send a token behind the end of its answer, as one does whose
// answer came too late. net/http quotes that on the standard logger.
func TestAnswerThatNobodyAskedForIsNotLogged(t *testing.T) {
	t.Parallel()
	const late = "HTTP/1.1 200 OK\r\nContent-Length: 60\r\n\r\n" + `{"access_token":"planted-token-Zx81","token_type":"Bearer"}`
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = l.Close() })
	sent := make(chan struct{}, 100)
	go func() {
		for {
			conn, err := l.Accept()
			if err != nil {
				return
			}
			go func() {
				defer func() { _ = conn.Close() }()
				if r, err := http.ReadRequest(bufio.NewReader(conn)); err == nil {
					_, _ = io.Copy(io.Discard, r.Body)
				}
				_, _ = io.WriteString(conn, "HTTP/1.1 503 Busy\r\nContent-Length: 0\r\n\r\n"+late)
				_, _ = io.Copy(io.Discard, conn) // Until it is closed there: the rest has been read.
				sent <- struct{}{}
			}()
		}
	}()
	p := startConfined(t, nil, []string{binary}, serveArgs(redistest.Start(t).URL(), keysetFile(t), &issuer{nil, "http://" + l.Addr().String()})...)
	p.ready()
	if _, err := pb.NewTenantServiceClient(p.connect()).CreateTenant(t.Context(), &pb.CreateTenantRequest{TenantId: "acme", Tenant: &pb.Tenant{
		Region: pb.Region_REGION_US, ClientId: "acme-client", ClientSecret: "planted-secret-Zx81"}}); err != nil {
		t.Fatal(err)
	}
	if _, err := get(t.Context(), p.connect(), "acme"); err == nil {
		t.Fatal("a token was handed out")
	}
	select {
	case <-sent:
	case <-time.After(10 * time.Second):
		t.Fatal("the connection was not closed")
	}
	p.terminate()
	for place, text := range p.written() {
		if bytes.Contains([]byte(text), []byte("planted")) {
			t.Errorf("what the issuer sent is in %s:\n%s", place, text)
		}
	}
}

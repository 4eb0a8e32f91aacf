package main_test

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"fmt"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	"smokeball.internal/tokenbroker/internal/doctor"
	"smokeball.internal/tokenbroker/internal/redisstore/redistest"
	"smokeball.internal/tokenbroker/internal/seal/kmstest"
)

// brokenSetUps are what doctor is to name: in which state, of what, with which words.
var brokenSetUps = []struct {
	name  string
	hurt  func(*patient)
	state doctor.State
	check string
	says  []string
	mends string
}{
	{"Redis: wrong password", func(p *patient) {
		p.do("CONFIG", "SET", "requirepass", "right")
		p.settings["redis-password-file"] = p.write("password", []byte("planted-password\n"))
	}, doctor.Problem, "redis", []string{"refuses user and password"}, "--redis-password-file"},
	{"Redis: no password", func(p *patient) { p.do("CONFIG", "SET", "requirepass", "right") },
		doctor.Problem, "redis", []string{"wants a password"}, "--redis-password-file"},
	{"Redis: rights are missing", func(p *patient) {
		p.do("ACL", "SETUSER", "broker", "on", ">planted-word", "~*", "+@all", "-xadd", "-hset")
		p.withUser("broker:planted-word")
	}, doctor.Problem, "redis", []string{"the user may not", "hset, xadd"}, "deploy/redis.conf"},
	{"Redis: keys of another prefix", func(p *patient) {
		p.do("ACL", "SETUSER", "broker", "on", ">planted-word", "~other:*", "+@all")
		p.withUser("broker:planted-word")
	}, doctor.Problem, "redis", []string{"with the keys tokenbroker:*", "hset"}, "deploy/redis.conf"},
	{"Redis: evicts", func(p *patient) {
		p.do("CONFIG", "SET", "maxmemory", "1gb")
		p.do("CONFIG", "SET", "maxmemory-policy", "allkeys-lru")
	}, doctor.Warning, "redis data", []string{"evicts any key", "noeviction"}, "docs/redis.md"},
	{"Redis: nothing on disk", func(p *patient) { p.do("CONFIG", "SET", "appendonly", "no") },
		doctor.Warning, "redis data", []string{"writes nothing to disk", "Set appendonly yes"}, "docs/redis.md"},
	{"Redis: a replica", func(p *patient) { p.do("REPLICAOF", "127.0.0.1", "1") },
		doctor.Problem, "redis", []string{"is a replica"}, "primary"},
	{"Redis: nobody there", func(p *patient) { p.redis.Kill() },
		doctor.Problem, "redis", []string{"refuses the connection"}, "Start Redis"},
	{"Redis: does not answer", func(p *patient) { p.redis.Pause() },
		doctor.Problem, "redis", []string{"does not answer"}, "load"},
	{"Redis: no such name", func(p *patient) { p.settings["redis-url"] = "redis://:planted-word@no-such-host.invalid" },
		doctor.Problem, "redis", []string{"no-such-host.invalid:6379", "no address"}, "DNS"},
	{"Redis: TLS where there is none", func(p *patient) { p.settings["redis-url"] = strings.Replace(p.redis.URL(), "redis", "rediss", 1) },
		doctor.Problem, "redis", []string{"TLS fails"}, "without TLS"},
	{"Redis: emptied", func(p *patient) {
		p.do("FLUSHALL")
		p.do("XADD", "tokenbroker:{tenants}:changes", "*", "token", "digest", "id", "x") // A broker goes on buying.
	}, doctor.Problem, "registry", []string{"the registry of tenants is gone"}, "tokenbroker tenants import"},
	{"Redis: never used", func(p *patient) { p.do("FLUSHALL") },
		doctor.Warning, "registry", []string{"there is no registry"}, "tokenbroker tenants create"},
	{"keyset: another", func(p *patient) { p.settings["keyset-file"] = keysetFile(p.t) },
		doctor.Problem, "registry", []string{"wrong keyset", "none of 2 tenants", "there is no key"}, "tokenbroker keyset show"},
	{"keyset: for everybody to read", func(p *patient) { _ = os.Chmod(p.settings["keyset-file"], 0o644) },
		doctor.Problem, "files", []string{"every user of this machine may read", "0644"}, "chmod 600"},
	{"keyset: a rotation is pending", func(p *patient) {
		if out, err := exec.Command(binary, "keyset", "rotate", p.settings["keyset-file"]).CombinedOutput(); err != nil {
			p.t.Errorf("%v: %s", err, out)
		}
	}, doctor.Warning, "keyset", []string{"a rotation is pending"}, "every replica"},
	{"keyset: the KMS does not answer", func(p *patient) {
		p.env = kmstest.Start(p.t).Env()
		wrap := exec.Command(binary, "keyset", "wrap", p.settings["keyset-file"], "--kms-key-uri="+kmstest.KeyURI)
		wrap.Env = p.env
		if out, err := wrap.CombinedOutput(); err != nil {
			p.t.Errorf("%v: %s", err, out)
		}
		p.env[0] = "AWS_ENDPOINT_URL_KMS=http://127.0.0.1:1"
		p.more = []string{"--timeout=5s"} // The SDK tries more than once.
	}, doctor.Problem, "keyset", []string{"the KMS does not decrypt it", "AWS KMS Decrypt"}, "credentials"},
	{"keyset: damaged", func(p *patient) { p.settings["keyset-file"] = p.write("damaged", []byte(`{"planted": 1}`)) },
		doctor.Problem, "keyset", []string{"not a file made by"}, "tokenbroker keyset show"},
	{"certificate: expired", func(p *patient) {
		old := p.authority.Issue("server", func(c *x509.Certificate) { c.NotAfter = time.Now().Add(-time.Minute) })
		p.settings["tls-cert-file"], p.settings["tls-key-file"] = p.write("old.pem", old.PEM), p.write("old-key.pem", old.KeyPEM)
	}, doctor.Problem, "certificate", []string{"has expired"}, "issued anew"},
	{"certificate: soon", func(p *patient) {
		old := p.authority.Issue("server", func(c *x509.Certificate) {
			c.NotBefore, c.NotAfter = time.Now().Add(-20*time.Hour), time.Now().Add(time.Hour)
		})
		p.settings["tls-cert-file"], p.settings["tls-key-file"] = p.write("old.pem", old.PEM), p.write("old-key.pem", old.KeyPEM)
	}, doctor.Warning, "certificate", []string{"expires soon"}, "issued anew"},
	{"certificate: key of another", func(p *patient) {
		p.settings["tls-key-file"] = p.write("other-key.pem", p.authority.Issue("other", nil).KeyPEM)
	}, doctor.Problem, "certificate", []string{"private key does not match"}, "the key that belongs to it"},
	{"certificate: no names", func(p *patient) {
		nameless := p.authority.Issue("server", func(c *x509.Certificate) { c.IPAddresses = nil })
		p.settings["tls-cert-file"], p.settings["tls-key-file"] = p.write("n.pem", nameless.PEM), p.write("n-key.pem", nameless.KeyPEM)
	}, doctor.Problem, "certificate", []string{"no names in it"}, "subject alternative names"},
	{"client authorities: none in the file", func(p *patient) { p.settings["client-ca-file"] = p.write("none.pem", []byte("planted\n")) },
		doctor.Problem, "client authorities", []string{"no PEM certificate"}, "PEM"},
	{"access file: a typo", func(p *patient) {
		p.settings["access-file"] = p.write("typo.yaml", []byte(strings.Replace(basicRules, "roles: [tenant.admin]", "rolls: [tenant.admin]", 1)))
	}, doctor.Problem, "access file", []string{"typo.yaml:4: ", `"rolls": is no key of a rule`}, "tokenbroker access check"},
	{"access file: nobody administers", func(p *patient) {
		p.settings["access-file"] = p.write("few.yaml", []byte(strings.ReplaceAll(basicRules, "tenant.admin", "tenant.viewer")))
	}, doctor.Warning, "access file", []string{"nobody can register tenants"}, "Add a rule"},
	{"bearer tokens: no keys", func(p *patient) { p.settings["jwt-keys"] = "https://127.0.0.1:1/jwks" },
		doctor.Problem, "bearer tokens", []string{"cannot be had", "connection refused"}, "--jwt-keys"},
	{"issuer: nobody there", func(p *patient) { p.settings["issuer-override"] = "us/production=https://127.0.0.1:1/oauth2/token" },
		doctor.Problem, "issuer", []string{"us/production: 127.0.0.1:1 refuses the connection"}, "--issuer-override"},
	{"issuer: certificate of another host", func(p *patient) {
		other := p.authority.Issue("other", func(c *x509.Certificate) { c.IPAddresses, c.DNSNames = nil, []string{"other.example"} })
		server := httptest.NewUnstartedServer(http.NotFoundHandler())
		server.TLS = &tls.Config{Certificates: []tls.Certificate{other.TLS}}
		server.StartTLS()
		p.t.Cleanup(server.Close)
		p.settings["issuer-override"] = "us/production=" + server.URL + "/oauth2/token"
		p.env = []string{"SSL_CERT_FILE=" + p.settings["client-ca-file"]}
	}, doctor.Problem, "issuer", []string{"does not verify", "of another host"}, "--issuer-override"},
	{"clock: an hour behind", func(p *patient) {
		server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
			w.Header().Set("Date", time.Now().Add(time.Hour).UTC().Format(http.TimeFormat))
			w.WriteHeader(http.StatusMethodNotAllowed)
		}))
		p.t.Cleanup(server.Close)
		p.settings["issuer-override"] = "us/production=" + server.URL + "/oauth2/token"
	}, doctor.Problem, "issuer", []string{"ahead of this machine's"}, "NTP"},
	{"audit log: no directory", func(p *patient) { p.settings["audit"] = "file:" + filepath.Join(p.dir, "no", "audit.log") },
		doctor.Problem, "audit log", []string{"no such file or directory"}, "Make the directory"},
	{"addresses: in use", func(p *patient) {
		l, err := new(net.ListenConfig).Listen(context.Background(), "tcp", "127.0.0.1:0")
		if err != nil {
			p.t.Fatal(err)
		}
		p.t.Cleanup(func() { _ = l.Close() })
		p.settings["grpc-addr"] = l.Addr().String()
	}, doctor.Problem, "addresses", []string{"--grpc-addr", "is in use"}, "ss -ltnp"},
	{"settings: not a duration", func(p *patient) { p.settings["drain-timeout"] = "30" },
		doctor.Problem, "settings", []string{"--drain-timeout: want a duration"}, "tokenbroker serve --help"},
	{"settings: no such flag", func(p *patient) { p.more = []string{"--redis-pasword=planted-word"} },
		doctor.Problem, "settings", []string{"unknown flag --redis-pasword"}, "tokenbroker serve --help"},
	{"settings: do not go together", func(p *patient) { p.settings["jwt-keys-ca-file"] = p.settings["client-ca-file"] },
		doctor.Problem, "settings", []string{"--jwt-keys-ca-file is for a --jwt-keys that is a URL"}, "tokenbroker serve --help"},
}

func TestDoctorNamesTheFault(t *testing.T) {
	t.Parallel()
	table := make([]string, len(brokenSetUps))
	t.Run("set-ups", func(t *testing.T) {
		for n, broken := range brokenSetUps {
			t.Run(broken.name, func(t *testing.T) {
				t.Parallel()
				p := newPatient(t)
				broken.hurt(p)
				e := p.examine()
				said := ""
				for _, f := range e.found(broken.state) {
					fits := f.Check == broken.check && strings.Contains(f.Mend, broken.mends)
					for _, word := range broken.says {
						fits = fits && strings.Contains(f.Says, word)
					}
					if fits {
						said = f.Says
					}
				}
				want := 0
				if broken.state == doctor.Problem {
					want = 1
				}
				if said == "" || e.code != want || strings.Contains(e.output, "planted") {
					t.Errorf("exit code %d, want %d and %q of %s:\n%s", e.code, want, broken.says, broken.check, e.output)
				}
				// What is healthy is not called a problem for it.
				for _, f := range e.found(doctor.Problem) {
					if f.Check != broken.check {
						t.Errorf("and %s: %s", f.Check, f.Says)
					}
				}
				table[n] = fmt.Sprintf("%-38s exit %d  %-8s %s: %s", broken.name, e.code, broken.state, broken.check, said)
			})
		}
	})
	t.Logf("%d broken set-ups:\n%s", len(table), strings.Join(table, "\n"))
}

// What doctor has nothing to say about serves.
func TestDoctorFindsAHealthySetUpHealthy(t *testing.T) {
	t.Parallel()
	p := newPatient(t)
	dirty := func() string {
		return regexp.MustCompile(`rdb_changes_since_last_save:\d+`).FindString(p.redis.Client().Info(t.Context(), "persistence").Val())
	}
	before := dirty()
	want := func(what string, e examination) {
		t.Helper()
		if e.code != 0 || e.Problems != 0 || len(e.Findings) < 14 {
			t.Errorf("%s: exit code %d: %s", what, e.code, e.output)
		}
		for _, f := range e.Findings {
			if strings.Contains(f.Says, "for the quickest of some commands") { // A machine that runs tests is busy.
				continue
			}
			if f.State != doctor.OK && f.Check != "limits" || strings.Contains(f.Says, "planted") {
				t.Errorf("%s: %s: %s: %s", what, f.State, f.Check, f.Says)
			}
		}
	}
	first := p.examine()
	want("at rest", first)
	if now := dirty(); now != before || before == "" {
		t.Errorf("it has changed what is in Redis: %q, then %q", before, now)
	}
	if _, err := os.Stat(filepath.Join(p.dir, "audit.log")); err == nil {
		t.Error("it has made the audit log")
	}
	if p.issuer.Bought("client") != 0 {
		t.Error("it has bought a token")
	}
	var args []string
	for flag, value := range p.settings {
		args = append(args, "--"+flag+"="+value)
	}
	broker := start(t, append([]string{"serve"}, args...)...).ready()
	want("while a broker runs", p.examine())
	if e := p.examine("--output=table"); e.code != 0 || !strings.Contains(e.output, "STATE") || !strings.Contains(e.output, "a broker is running here") || !strings.Contains(e.output, "\nproblem 0, warning ") {
		t.Errorf("as a table, exit code %d:\n%s", e.code, e.output)
	}
	broker.terminate()
	broker = start(t, append([]string{"serve", "--ops-tls"}, args...)...)
	until(t, "ready", func() bool { return exec.Command(binary, "health", "--ops-tls", "--ops-addr="+broker.ops).Run() == nil })
	p.settings["ops-tls"] = "true"
	want("while a broker runs, its status over TLS", p.examine())
	// In the order of the documentation, whatever was quick.
	document, err := os.ReadFile(filepath.Join(root, "docs", "doctor.md"))
	if err != nil {
		t.Fatal(err)
	}
	var documented, found []string
	for _, row := range regexp.MustCompile("(?m)^\\| (`[^|]*`) \\|").FindAllStringSubmatch(string(document), -1) {
		for _, name := range strings.Split(row[1], ", ") {
			documented = append(documented, strings.Trim(name, "`"))
		}
	}
	for _, f := range first.Findings {
		found = append(found, f.Check)
	}
	if found = slices.Compact(found); !slices.Equal(found, documented) {
		t.Errorf("looked at %q, and the documentation has %q", found, documented)
	}
}

func TestDoctorOfSentinels(t *testing.T) {
	t.Parallel()
	p := newPatient(t)
	sentinel := redistest.StartSentinel(t, "--appendonly", "yes")
	for name, test := range map[string]struct {
		url   string
		state doctor.State
		says  string
	}{
		"all":           {sentinel.URL(), doctor.OK, "the primary that the sentinels name answers"},
		"one is away":   {strings.Replace(sentinel.URL(), "://", "://127.0.0.1:1,", 1), doctor.Warning, "127.0.0.1:1: refuses the connection"},
		"another name":  {sentinel.URL() + "-other", doctor.Problem, "the sentinel watches no primary of this name"},
		"not sentinels": {strings.Replace(p.redis.URL(), "redis://", "redis+sentinel://", 1) + "/registry", doctor.Problem, "redis"},
	} {
		p.settings["redis-url"] = test.url
		e, said := p.examine(), false
		for _, f := range e.found(test.state) {
			said = said || f.Check == "redis" && strings.Contains(f.Says, test.says)
		}
		if (e.code != 0) != (test.state == doctor.Problem) || !said {
			t.Errorf("%s: exit code %d: %s", name, e.code, e.output)
		}
	}
}

func TestDoctorOfACluster(t *testing.T) {
	t.Parallel()
	p := newPatient(t)
	p.settings["redis-url"] = redistest.StartCluster(t, "--appendonly", "yes").URL()
	e := p.examine()
	if e.code != 0 || len(e.found(doctor.Warning)) != 1 || e.found(doctor.Warning)[0].Check != "registry" {
		t.Errorf("exit code %d: %s", e.code, e.output)
	}
}

// All of it is bounded, whatever does not answer.
func TestDoctorTakesNoLongerThanItMay(t *testing.T) {
	t.Parallel()
	p := newPatient(t)
	pipe := filepath.Join(p.dir, "pipe") // To open it waits for somebody who writes to it.
	if err := syscall.Mkfifo(pipe, 0o600); err != nil {
		t.Fatal(err)
	}
	p.settings["keyset-file"] = pipe
	p.redis.Pause()
	ended := make(chan examination, 1)
	go func() { ended <- p.examine("--timeout=500ms") }()
	select {
	case e := <-ended:
		if e.code != 1 || !strings.Contains(e.output, "this was not done within") || !strings.Contains(e.output, "belong together") {
			t.Errorf("exit code %d: %s", e.code, e.output)
		}
	case <-time.After(20 * time.Second):
		t.Error("it does not end")
	}
}

// Where kong gives up, doctor goes on.
func TestDoctorTellsAllThatIsWrongWithSettings(t *testing.T) {
	t.Parallel()
	p := newPatient(t)
	delete(p.settings, "access-file")
	p.settings["log-level"], p.settings["exchange-rate"] = "loud", "0"
	p.settings["config"] = p.write("settings.yaml", []byte("redis-pasword-file: planted\nredis-prefix: \"tokenbroker:\"\n"))
	p.env = []string{"TOKENBROKER_MAX_STALENESS=planted"}
	e := p.examine()
	for _, want := range []string{"--log-level must be one of", `unknown setting \"redis-pasword-file\"`, "TOKENBROKER_MAX_STALENESS", "--access-file is needed", "--exchange-rate must be"} {
		if !strings.Contains(e.output, want) {
			t.Errorf("nothing says %s", want)
		}
	}
	if e.code != 1 || e.Problems != 5 || strings.Contains(e.output, "planted") || !strings.Contains(e.output, "2 tenants are registered") {
		t.Errorf("exit code %d: %s", e.code, e.output)
	}
}

package config_test

import (
	"io"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/alecthomas/kong"

	"smokeball.internal/tokenbroker/internal/config"
	"smokeball.internal/tokenbroker/internal/smokeball"
	"smokeball.internal/tokenbroker/internal/tenant"
)

// parse reads settings as the command line does. yaml is the content of a file
// that --config names; empty: there is none.
func parse(t *testing.T, yaml string, env map[string]string, args ...string) (*config.Serve, error) {
	t.Helper()
	for name, value := range env {
		t.Setenv(name, value)
	}
	if yaml != "" {
		args = append(args, "--config="+write(t, "config.yaml", yaml))
	}
	return parseArgs(t, args...)
}

func parseArgs(t *testing.T, args ...string) (*config.Serve, error) {
	t.Helper()
	var grammar struct {
		Serve struct {
			config.Serve `embed:""`
		} `cmd:""`
	}
	parser, err := kong.New(&grammar, kong.DefaultEnvars("TOKENBROKER"), kong.Configuration(config.File),
		kong.Writers(io.Discard, io.Discard), kong.Exit(func(int) { t.Error("the parser ended the process") }))
	if err != nil {
		t.Fatal(err)
	}
	_, err = parser.Parse(append([]string{"serve"}, args...))
	return &grammar.Serve.Serve, err
}

func write(t *testing.T, name, content string) string {
	t.Helper()
	path := filepath.Join(t.TempDir(), name)
	if err := os.WriteFile(path, []byte(content), 0o600); err != nil {
		t.Fatal(err)
	}
	return path
}

// enough is what every server needs.
var enough = []string{"--keyset-file=k", "--insecure"}

func wantRefused(t *testing.T, err error, words ...string) {
	t.Helper()
	if err == nil {
		t.Error("not refused")
		return
	}
	for _, word := range words {
		if !strings.Contains(err.Error(), word) {
			t.Errorf("%q does not say %q", err, word)
		}
	}
}

func TestDefaults(t *testing.T) {
	c, err := parse(t, "", nil, enough...)
	if err != nil {
		t.Fatal(err)
	}
	if c.GRPCAddr != "127.0.0.1:9090" || c.OpsAddr != "127.0.0.1:9091" || c.RedisURL != "redis://127.0.0.1:6379" ||
		c.RedisPrefix != "tokenbroker:" || c.MaxConnectionAge != 5*time.Minute || c.TokenPrice != 0.00225 || c.DrainTimeout != 30*time.Second ||
		c.LogLevel != "info" || c.LogFormat != "json" || len(c.IssuerOverride)+len(c.APIOverride) != 0 {
		t.Errorf("defaults are %+v", c)
	}
}

// Flag before variable, variable before file, file before default.
func TestPrecedence(t *testing.T) {
	const yaml = "redis-url: redis://file\ndrain-timeout: 3s\nlog-level: error\n"
	env := map[string]string{"TOKENBROKER_REDIS_URL": "redis://env", "TOKENBROKER_DRAIN_TIMEOUT": "2s"}
	for _, test := range []struct {
		name  string
		yaml  string
		env   map[string]string
		args  []string
		url   string
		drain time.Duration
		level string
	}{
		{"file", yaml, nil, nil, "redis://file", 3 * time.Second, "error"},
		{"variable", "", env, nil, "redis://env", 2 * time.Second, "info"},
		{"variable before file", yaml, env, nil, "redis://env", 2 * time.Second, "error"},
		{"flag before variable before file", yaml, env, []string{"--redis-url=redis://flag"}, "redis://flag", 2 * time.Second, "error"},
		{"flag before file", yaml, nil, []string{"--drain-timeout=1s", "--log-level=debug"}, "redis://file", time.Second, "debug"},
		{"flag at its default before file", yaml, nil, []string{"--log-level=info"}, "redis://file", 3 * time.Second, "info"},
	} {
		t.Run(test.name, func(t *testing.T) {
			c, err := parse(t, test.yaml, test.env, append(test.args, enough...)...)
			if err != nil {
				t.Fatal(err)
			}
			if c.RedisURL != test.url || c.DrainTimeout != test.drain || c.LogLevel != test.level {
				t.Errorf("got %s, %v, %s; want %s, %v, %s", c.RedisURL, c.DrainTimeout, c.LogLevel, test.url, test.drain, test.level)
			}
		})
	}
}

// The file can be named by a variable as well, like everything else.
func TestFileNamedByVariable(t *testing.T) {
	c, err := parse(t, "", map[string]string{"TOKENBROKER_CONFIG": write(t, "config.yaml", "log-level: error\n")}, enough...)
	if err != nil || c.LogLevel != "error" {
		t.Errorf("got %q, %v", c.LogLevel, err)
	}
}

func TestWholeFile(t *testing.T) {
	c, err := parse(t, `
# Comments are allowed.
grpc-addr: "127.0.0.1:1"
ops-addr: 0.0.0.0:2
redis-url: rediss://user@redis:6380/1
redis-password-file: /run/redis
redis-sentinel-password-file: /run/sentinels
redis-prefix: 0010
keyset-file: /run/keyset
insecure: true
max-connection-age: 0s
token-price: 0
log-format: text
`, nil)
	if err != nil {
		t.Fatal(err)
	}
	// What YAML would take for a number is still what was written.
	if c.GRPCAddr != "127.0.0.1:1" || c.OpsAddr != "0.0.0.0:2" || c.RedisPasswordFile != "/run/redis" || c.RedisSentinelPasswordFile != "/run/sentinels" || c.RedisPrefix != "0010" ||
		!c.Insecure || c.MaxConnectionAge != 0 || c.TokenPrice != 0 || c.LogFormat != "text" {
		t.Errorf("got %+v", c)
	}
}

func TestBadFile(t *testing.T) {
	for name, test := range map[string]struct {
		yaml  string
		words []string
	}{
		"unknown name":          {"redis-uri: x\n", []string{"redis-uri"}},
		"a flag of no command":  {"help: true\n", []string{"help"}},
		"a setting of dev":      {"token-lifetime: 5m\n", []string{"unknown setting", "token-lifetime"}},
		"a name with _":         {"keyset_file: x\n", []string{"unknown setting", "keyset_file", "line 1"}},
		"the file itself":       {"config: other.yaml\n", []string{"config"}},
		"name with dashes":      {"--insecure: true\n", []string{"--insecure"}},
		"name of a variable":    {"TOKENBROKER_REDIS_URL: x\n", []string{"TOKENBROKER_REDIS_URL"}},
		"no names":              {"- a\n- b\n", []string{"not YAML of names and values"}},
		"only text":             {"insecure", []string{"not YAML of names and values"}},
		"no YAML":               {"a: [\n", []string{"not YAML of names and values"}},
		"a name twice":          {"log-level: info\nlog-level: warn\n", []string{"log-level"}},
		"no boolean":            {"insecure: perhaps\n", []string{"insecure"}},
		"no duration":           {"drain-timeout: 30\n", []string{"drain-timeout"}},
		"not among the values":  {"log-level: loud\n", []string{"log-level"}},
		"no value":              {"redis-password-file:\n", []string{"redis-password-file"}},
		"values under a name":   {"redis-prefix: {a: b}\n", []string{"redis-prefix"}},
		"values under a list":   {"issuer-override: [{a: b}]\n", []string{"issuer-override"}},
		"a second document":     {"log-level: info\n---\nredis-uri: x\n", []string{"document"}},
		"refused as flags are":  {"max-connection-age: -1s\n", []string{"max-connection-age"}},
		"override of no region": {"issuer-override: [nz/production=https://a/b]\n", []string{"issuer override"}},
	} {
		t.Run(name, func(t *testing.T) {
			args := enough
			if strings.HasPrefix(test.yaml, "insecure") {
				args = enough[:1:1] // The flag would go before the file.
			}
			_, err := parse(t, test.yaml, nil, args...)
			wantRefused(t, err, test.words...)
		})
	}
	_, err := parse(t, "", nil, append(enough, "--config="+filepath.Join(t.TempDir(), "missing"))...)
	wantRefused(t, err, "missing")
	if _, err := parse(t, "# Nothing is set.\n", nil, enough...); err != nil {
		t.Errorf("a file of comments: %v", err)
	}
}

func TestBadFlags(t *testing.T) {
	for name, args := range map[string][]string{
		"no keyset":          {"--insecure"},
		"no duration":        {"--keyset-file=k", "--insecure", "--drain-timeout=30"},
		"operators' TLS":     {"--keyset-file=k", "--insecure", "--ops-tls"},
		"negative drain":     {"--keyset-file=k", "--insecure", "--drain-timeout=-1s"},
		"negative age":       {"--keyset-file=k", "--insecure", "--max-connection-age=-1s"},
		"prefix with braces": {"--keyset-file=k", "--insecure", "--redis-prefix=x{y}:"},
		"no exchanges":       {"--keyset-file=k", "--insecure", "--exchange-rate=0"},
		"too many exchanges": {"--keyset-file=k", "--insecure", "--exchange-rate=1001"},
		"no rate":            {"--keyset-file=k", "--insecure", "--exchange-rate=NaN"},
		"a price below 0":    {"--keyset-file=k", "--insecure", "--token-price=-0.1"},
		"no price":           {"--keyset-file=k", "--insecure", "--token-price=NaN"},
		"no end of a price":  {"--keyset-file=k", "--insecure", "--token-price=+Inf"},
		"no staleness":       {"--keyset-file=k", "--insecure", "--max-staleness=0s"},
		"unknown log level":  {"--keyset-file=k", "--insecure", "--log-level=trace"},
		"collector, a URL":   {"--keyset-file=k", "--insecure", "--otlp-endpoint=http://127.0.0.1:4317"},
		"collector, no port": {"--keyset-file=k", "--insecure", "--otlp-endpoint=collector"},
		"collector, no host": {"--keyset-file=k", "--insecure", "--otlp-endpoint=:4317"},
		"CA of no collector": {"--keyset-file=k", "--insecure", "--otlp-ca-file=ca.pem"},
		"sampling more":      {"--keyset-file=k", "--insecure", "--trace-sample=1.1"},
		"sampling less":      {"--keyset-file=k", "--insecure", "--trace-sample=-0.1"},
		"sampling NaN":       {"--keyset-file=k", "--insecure", "--trace-sample=NaN"},
		"unknown log format": {"--keyset-file=k", "--insecure", "--log-format=xml"},
		"unknown flag":       {"--keyset-file=k", "--insecure", "--verbose"},
	} {
		t.Run(name, func(t *testing.T) {
			_, err := parse(t, "", nil, args...)
			wantRefused(t, err)
		})
	}
}

const (
	us, au = "us/production=https://one.example/oauth2/token", "au/staging=http://127.0.0.1:9092/token"
	// The one is of a place with a token endpoint, the other of a place without.
	auAPI, ukAPI = "au/staging=http://127.0.0.1:9092/api/", "uk/production=https://two.example"
)

func TestOverrides(t *testing.T) {
	for name, parsed := range map[string]func(*testing.T) (*config.Serve, error){
		"flags": func(t *testing.T) (*config.Serve, error) {
			return parse(t, "", nil, append(enough, "--issuer-override="+us, "--issuer-override="+au, "--api-override="+auAPI, "--api-override="+ukAPI)...)
		},
		"variable": func(t *testing.T) (*config.Serve, error) {
			return parse(t, "", map[string]string{"TOKENBROKER_ISSUER_OVERRIDE": us + "," + au, "TOKENBROKER_API_OVERRIDE": auAPI + "," + ukAPI}, enough...)
		},
		"file": func(t *testing.T) (*config.Serve, error) {
			return parse(t, "issuer-override:\n  - "+us+"\n  - "+au+"\napi-override:\n  - "+auAPI+"\n  - "+ukAPI+"\n", nil, enough...)
		},
	} {
		t.Run(name, func(t *testing.T) {
			c, err := parsed(t)
			if err != nil {
				t.Fatal(err)
			}
			got, err := c.Overrides()
			if err != nil {
				t.Fatal(err)
			}
			want := smokeball.Overrides{
				{Region: tenant.US, Environment: tenant.Production}: {TokenEndpoint: "https://one.example/oauth2/token"},
				{Region: tenant.AU, Environment: tenant.Staging}:    {TokenEndpoint: "http://127.0.0.1:9092/token", API: "http://127.0.0.1:9092/api"},
				{Region: tenant.UK, Environment: tenant.Production}: {API: "https://two.example"},
			}
			if !maps.Equal(got, want) {
				t.Errorf("got %v, want %v", got, want)
			}
		})
	}
	for name, refused := range map[string][]string{
		"the same place twice": {us, "us/production=https://two.example/token"},
		"plain http":           {"us/production=http://one.example/token"},
		"no place":             {"https://one.example/token"},
		"no endpoint":          {"us/production="},
		"with a password":      {"us/production=https://user:planted@one.example/token"},
	} {
		for flag, said := range map[string]string{"--issuer-override=": "issuer override", "--api-override=": "API override"} {
			t.Run(flag+" "+name, func(t *testing.T) {
				args := slices.Clone(enough)
				for _, override := range refused {
					args = append(args, flag+override)
				}
				_, err := parse(t, "", nil, args...)
				wantRefused(t, err, said)
				if strings.Contains(err.Error(), "planted") {
					t.Errorf("%q tells a password", err)
				}
			})
		}
	}
}

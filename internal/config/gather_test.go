package config_test

import (
	"path/filepath"
	"reflect"
	"strings"
	"testing"
	"time"

	"smokeball.internal/tokenbroker/internal/config"
)

// Whatever kong takes, Gather takes for the same.
func TestGatherReadsAsKongDoes(t *testing.T) {
	const yaml = "redis-url: redis://file\ndrain-timeout: 3s\nlog-level: error\nissuer-override:\n  - " + us + "\n  - " + au + "\njwt-audience: [a, b]\n"
	for name, test := range map[string]struct {
		yaml string
		env  map[string]string
		args []string
	}{
		"defaults":                    {},
		"file":                        {yaml: yaml},
		"variables before the file":   {yaml, map[string]string{"TOKENBROKER_REDIS_URL": "redis://env", "TOKENBROKER_API_OVERRIDE": auAPI + "," + ukAPI}, nil},
		"flags before the others":     {yaml, map[string]string{"TOKENBROKER_DRAIN_TIMEOUT": "2s"}, []string{"--drain-timeout=1s", "--log-level", "debug"}},
		"a flag that is repeated":     {"", nil, []string{"--issuer-override=" + us, "--issuer-override", au, "--jwt-audience=a", "--jwt-audience=b"}},
		"the last of two":             {"", nil, []string{"--max-staleness=1h", "--max-staleness=2h", "--exchange-rate=3.5"}},
		"a flag without a value":      {"insecure: false\n", nil, []string{"--audit-strict"}},
		"a value that is like a flag": {"", nil, []string{"--redis-prefix=--x:"}},
	} {
		t.Run(name, func(t *testing.T) {
			args := append([]string{"--keyset-file=k"}, test.args...)
			if !strings.Contains(test.yaml, "insecure") {
				args = append(args, "--insecure")
			}
			if test.yaml != "" {
				args = append(args, "--config="+write(t, "config.yaml", test.yaml))
			}
			want, err := parse(t, "", test.env, args...)
			if err != nil && !strings.Contains(err.Error(), "needed") && !strings.Contains(err.Error(), "excludes") {
				t.Fatal(err)
			}
			var got config.Serve
			if problems := config.Gather(&got, "TOKENBROKER", args); problems != nil {
				t.Errorf("problems: %v", problems)
			}
			if !reflect.DeepEqual(&got, want) {
				t.Errorf("got  %+v\nwant %+v", &got, want)
			}
		})
	}
}

func TestGatherTellsAllThatIsWrong(t *testing.T) {
	t.Setenv("TOKENBROKER_MAX_STALENESS", "planted")
	path := write(t, "config.yaml", "redis-uri: planted\nlog-format: planted\nops-addr: 127.0.0.1:1\nredis-prefix: {a: planted}\n")
	var got config.Serve
	problems := config.Gather(&got, "TOKENBROKER", []string{"--config", path, "--drain-timeout=planted", "--log-level=planted", "--redis-password=planted", "planted",
		"--insecure=planted", "-x", "--exchange-rate=1", "--grpc-addr"})
	var said []string
	for _, problem := range problems {
		said = append(said, problem.Error())
	}
	all := strings.Join(said, "\n")
	for _, want := range []string{
		"unknown flag --redis-password", "argument 6 is no flag", "unknown flag -x", "--grpc-addr: there is no value behind it",
		`unknown setting "redis-uri" in the configuration file, line 1`, `setting "redis-prefix" in the configuration file, line 4`,
		"missing flags: --keyset-file=FILE", "--insecure: want true or false",
		"--max-staleness (variable TOKENBROKER_MAX_STALENESS): want a duration", "--drain-timeout: want a duration",
		"--log-level must be one of debug, info, warn, error", "--log-format (configuration file) must be one of json, text",
	} {
		if !strings.Contains(all, want) {
			t.Errorf("nothing says %q", want)
		}
	}
	if len(problems) != 12 || strings.Contains(all, "planted") {
		t.Errorf("%d problems:\n%s", len(problems), all)
	}
	// What can be understood counts, and the rest is as if it were not there.
	if got.OpsAddr != "127.0.0.1:1" || got.ExchangeRate != 1 || got.DrainTimeout != 30*time.Second || got.LogLevel != "info" || got.MaxStaleness != 24*time.Hour {
		t.Errorf("got %+v", got)
	}
	if problems := config.Gather(&got, "TOKENBROKER", []string{"--keyset-file=k", "--config=" + filepath.Join(t.TempDir(), "missing.yaml")}); len(problems) != 2 ||
		!strings.Contains(problems[0].Error(), "missing.yaml") {
		t.Errorf("a file that is missing: %v", problems)
	}
}

func TestProblemsAreAllOfThem(t *testing.T) {
	var c config.Serve
	if problems := config.Gather(&c, "TOKENBROKER", []string{"--keyset-file=k", "--exchange-rate=0", "--redis-prefix={}", "--jwt-issuer=i", "--grpc-addr=x"}); problems != nil {
		t.Fatal(problems)
	}
	problems := c.Problems()
	for n, want := range []string{"--grpc-addr=x", "--tls-cert-file", "--access-file", "--exchange-rate", "--redis-prefix", "--jwt-audience"} {
		if n >= len(problems) || !strings.Contains(problems[n].Error(), want) {
			t.Errorf("no %q as number %d of %v", want, n, problems)
		}
	}
	if len(problems) != 6 {
		t.Errorf("problems: %v", problems)
	}
}

package main_test

import (
	"os/exec"
	"regexp"
	"strings"
	"testing"
	"time"
)

// TestNoBalancerCutsAQuietStream looks at what the shipped configurations say: to
// see it happen would take as long.
func TestNoBalancerCutsAQuietStream(t *testing.T) {
	t.Parallel()
	const never, shortest = 0, 10 * time.Minute
	for file, settings := range map[string][]string{
		// Of a stream, and of a connection with nothing on it.
		"nginx.conf":     {`\n *grpc_read_timeout (\w+);`, `http2_max_concurrent_streams .*\n(?:        .*\n)* +keepalive_timeout (\w+);`},
		"nginx-tcp.conf": {`\n *proxy_timeout (\w+);`},
		"haproxy.cfg":    {`\ndefaults\n(?:    .*\n)*    timeout client (\w+)`, `\ndefaults\n(?:    .*\n)*    timeout server (\w+)`, `\nfrontend calls\n(?:    .*\n)*    timeout http-keep-alive (\w+)`},
		"envoy.yaml":     {`stream_idle_timeout: (\w+)`, ` timeout: (0s)`, ` idle_timeout: (\w+)`, `grpc_timeout_header_max: (\w+)`},
	} {
		text := readShipped(t, file)
		for _, setting := range settings {
			found := regexp.MustCompile(setting).FindStringSubmatch(text)
			if found == nil {
				t.Errorf("%s does not say %s", file, setting)
				continue
			}
			if d, err := time.ParseDuration(found[1]); err != nil || d != never && d < shortest {
				t.Errorf("%s: %s", file, strings.TrimSpace(found[0]))
			}
		}
	}
}

// TestWhatComposeSetsIsASetting looks for variables that nobody reads.
func TestWhatComposeSetsIsASetting(t *testing.T) {
	t.Parallel()
	help, err := exec.Command(binary, "serve", "--help").Output()
	if err != nil {
		t.Fatal(err)
	}
	set := regexp.MustCompile(`\n    (TOKENBROKER_\w+):`).FindAllStringSubmatch(readShipped(t, "compose.yaml"), -1)
	if len(set) < 10 {
		t.Fatalf("%d variables are set", len(set))
	}
	for _, variable := range set {
		if !strings.Contains(string(help), "$"+variable[1]+")") {
			t.Errorf("there is no setting %s", variable[1])
		}
	}
}

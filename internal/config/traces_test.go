package config_test

import (
	"testing"

	"smokeball.internal/tokenbroker/internal/access/accesstest"
)

// Plain text goes no further than this host.
func TestCollectorInPlainText(t *testing.T) {
	ca := write(t, "ca.pem", string(accesstest.NewAuthority(t).PEM()))
	for name, test := range map[string]struct {
		args []string
		want bool
	}{
		"loopback":               {[]string{"--otlp-endpoint=127.0.0.1:4317"}, true},
		"loopback, IPv6":         {[]string{"--otlp-endpoint=[::1]:4317"}, true},
		"loopback, by name":      {[]string{"--otlp-endpoint=localhost:4317"}, true},
		"loopback, authorities":  {[]string{"--otlp-endpoint=127.0.0.1:4317", "--otlp-ca-file=" + ca}, false},
		"another host":           {[]string{"--otlp-endpoint=collector.internal:4317"}, false},
		"another host, loopback": {[]string{"--otlp-endpoint=127.0.0.1.example:4317"}, false},
	} {
		c, err := parse(t, "", nil, append(test.args, enough...)...)
		if err != nil {
			t.Errorf("%s: %v", name, err)
			continue
		}
		if got := c.OTLPPlaintext(); got != test.want {
			t.Errorf("%s: in plain text %t, want %t", name, got, test.want)
		}
		if pool, err := c.OTLPAuthorities(); err != nil || (pool != nil) != (c.OTLPCAFile != "") {
			t.Errorf("%s: authorities %v, %v", name, pool, err)
		}
	}
}

func TestCollectorAuthoritiesThatAreNone(t *testing.T) {
	for _, file := range []string{write(t, "ca.pem", "no PEM"), "/nonexistent/ca.pem"} {
		c, err := parse(t, "", nil, append([]string{"--otlp-endpoint=c:1", "--otlp-ca-file=" + file}, enough...)...)
		if err != nil {
			t.Fatal(err)
		}
		_, err = c.OTLPAuthorities()
		wantRefused(t, err, "--otlp-ca-file", file)
	}
}

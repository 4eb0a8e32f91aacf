package config_test

import (
	"bytes"
	"errors"
	"log/slog"
	"path/filepath"
	"strings"
	"testing"

	"smokeball.internal/tokenbroker/internal/config"
	"smokeball.internal/tokenbroker/internal/secret"
)

func TestInsecure(t *testing.T) {
	for addr, fine := range map[string]bool{
		"127.0.0.1:9090": true, "127.8.8.8:9090": true, "[::1]:9090": true, "localhost:9090": true,
		"0.0.0.0:9090": false, "[::]:9090": false, ":9090": false, "broker.example:9090": false, "localhost.example:9090": false,
		"192.168.0.1:9090": false, "127.0.0.1.example:9090": false,
	} {
		t.Run(addr, func(t *testing.T) {
			_, err := parse(t, "", nil, append(enough, "--grpc-addr="+addr)...)
			if fine && err != nil {
				t.Error(err)
			}
			if !fine {
				wantRefused(t, err, "--insecure", "--grpc-addr")
			}
		})
	}
}

func TestAddressesHaveAPort(t *testing.T) {
	for _, flag := range []string{"--grpc-addr", "--ops-addr"} {
		for _, addr := range []string{"", "127.0.0.1", "127.0.0.1:", "9090", "[::1]"} {
			_, err := parse(t, "", nil, append(enough, flag+"="+addr)...)
			wantRefused(t, err, flag, "HOST:PORT")
		}
	}
}

func TestWhoMayCallIsSaid(t *testing.T) {
	const cert, key, ca, rules = "--tls-cert-file=c", "--tls-key-file=k", "--client-ca-file=a", "--access-file=r"
	const issuer, audience, keys = "--jwt-issuer=i", "--jwt-audience=broker", "--jwt-keys=jwks.json"
	for name, test := range map[string]struct {
		args []string
		word string // that the error has in it; empty: fine
	}{
		"none":                       {nil, "--insecure"},
		"certificates":               {[]string{cert, key, ca, rules}, ""},
		"tokens":                     {[]string{cert, key, rules, issuer, audience, keys}, ""},
		"both":                       {[]string{cert, key, ca, rules, issuer, audience, keys}, ""},
		"no certificate":             {[]string{key, ca, rules}, "--tls-cert-file"},
		"no key":                     {[]string{cert, ca, rules}, "--tls-key-file"},
		"no way to be known":         {[]string{cert, key, rules}, "--client-ca-file or --jwt-issuer"},
		"no rules":                   {[]string{cert, key, ca}, "--access-file"},
		"insecure and all":           {[]string{cert, key, ca, rules, "--insecure"}, "--insecure"},
		"insecure and a certificate": {[]string{cert, "--insecure"}, "--insecure"},
		"insecure and authorities":   {[]string{ca, "--insecure"}, "--insecure"},
		"insecure and rules":         {[]string{rules, "--insecure"}, "--insecure"},
		"insecure and tokens":        {[]string{issuer, audience, keys, "--insecure"}, "--insecure"},
		"no audience":                {[]string{cert, key, rules, issuer, keys}, "--jwt-audience"},
		"an empty audience":          {[]string{cert, key, rules, issuer, keys, "--jwt-audience="}, "--jwt-audience"},
		"no keys":                    {[]string{cert, key, rules, issuer, audience}, "--jwt-keys"},
		"no issuer":                  {[]string{cert, key, ca, rules, audience, keys}, "--jwt-issuer"},
		"keys over plain http":       {[]string{cert, key, rules, issuer, audience, "--jwt-keys=http://idp.example/jwks"}, "--jwt-keys"},
		"keys with a password":       {[]string{cert, key, rules, issuer, audience, "--jwt-keys=https://user:planted@idp.example/jwks"}, "--jwt-keys"},
		"keys on this host":          {[]string{cert, key, rules, issuer, audience, "--jwt-keys=http://127.0.0.1:9/jwks"}, ""},
		"keys at a URL":              {[]string{cert, key, rules, issuer, audience, "--jwt-keys=https://idp.example/jwks", "--jwt-keys-ca-file=a"}, ""},
		"authorities for a file":     {[]string{cert, key, rules, issuer, audience, keys, "--jwt-keys-ca-file=a"}, "--jwt-keys-ca-file"},
		"TLS 1.2":                    {[]string{cert, key, ca, rules, "--tls-min-version=1.2"}, ""},
		"TLS 1.1":                    {[]string{cert, key, ca, rules, "--tls-min-version=1.1"}, "--tls-min-version"},
		"an audit log nowhere":       {[]string{cert, key, ca, rules, "--audit=printer"}, "--audit"},
	} {
		t.Run(name, func(t *testing.T) {
			_, err := parse(t, "", nil, append(test.args, "--keyset-file=k")...)
			if test.word != "" {
				wantRefused(t, err, test.word)
				if strings.Contains(err.Error(), "planted") {
					t.Errorf("%q tells a password", err)
				}
			} else if err != nil {
				t.Error(err)
			}
		})
	}
}

func TestRedisPasswords(t *testing.T) {
	for name, read := range map[string]func(file string) (secret.Text, error){
		"redis": func(file string) (secret.Text, error) {
			return (&config.Redis{RedisPasswordFile: file}).RedisPassword()
		},
		"sentinels": func(file string) (secret.Text, error) {
			return (&config.Redis{RedisSentinelPasswordFile: file}).RedisSentinelPassword()
		},
	} {
		for content, want := range map[string]string{"p\n": "p", "p": "p", "p\r\n": "p", "p q\n\n": "p q", " p": " p", "": "", "\n": "", "\r\n": ""} {
			got, err := read(write(t, "password", content))
			if got.Reveal() != want || (err == nil) != (want != "") {
				t.Errorf("%s: %q: got %q, %v", name, content, got.Reveal(), err)
			}
		}
		if _, err := read(filepath.Join(t.TempDir(), "missing")); err == nil {
			t.Errorf("%s: a file that is missing: no error", name)
		}
		if got, err := read(""); !got.IsZero() || err != nil {
			t.Errorf("%s: no file: %v, %v", name, got, err)
		}
	}
}

func TestLogger(t *testing.T) {
	levels := []slog.Level{slog.LevelDebug, slog.LevelInfo, slog.LevelWarn, slog.LevelError}
	for i, name := range []string{"debug", "info", "warn", "error"} {
		var out bytes.Buffer
		log, _ := (&config.Serve{LogLevel: name, LogFormat: "json"}).Logger(&out)
		for _, level := range levels {
			log.Log(t.Context(), level, "said", "error", errors.New("why"))
		}
		if got, want := strings.Count(out.String(), `"msg":"said"`), len(levels)-i; got != want {
			t.Errorf("%s: %d records, want %d:\n%s", name, got, want, out.String())
		}
	}
	var out bytes.Buffer
	log, _ := (&config.Serve{LogLevel: "info", LogFormat: "text"}).Logger(&out)
	log.Info("said")
	if !strings.Contains(out.String(), "msg=said") {
		t.Errorf("text: %s", out.String())
	}
}

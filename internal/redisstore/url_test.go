package redisstore_test

import (
	"log/slog"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"smokeball.internal/tokenbroker/internal/redisstore"
	"smokeball.internal/tokenbroker/internal/redisstore/redistest"
	"smokeball.internal/tokenbroker/internal/secret"
)

func TestOpenTakesEveryFormOfURL(t *testing.T) {
	t.Parallel()
	for _, url := range []string{
		"redis://redis.internal",
		"redis://redis.internal:6380/15",
		"redis://redis.internal/",
		"redis://user:p%40ss%2Fword%3F@redis.internal:6379/0",
		"redis://user@[::1]:6379",
		"redis://:only-a-password@[fe80::1%25eth0]",
		"rediss://redis.internal",
		"redis+sentinel://one/primary",
		"redis+sentinel://one,two:26380,[::1]:26381/primary/3",
		"redis+sentinel://user:p%2Css@one,two/primary?sentinel_user=watcher&sentinel_password=p%40ss",
		"rediss+sentinel://one/primary",
		"redis+cluster://one,two:7001,[::1]:7002",
		"redis+cluster://user:pass@one/",
		"rediss+cluster://one",
	} {
		s, err := redisstore.Open(redisstore.Config{URL: url, Keyset: newKeyset(t), Logger: slog.New(slog.DiscardHandler)})
		if err != nil {
			t.Errorf("%s: %v", url, err)
			continue
		}
		_ = s.Close()
	}
}

func TestOpenNamesTheParameterThatItRefusesAndNotItsValue(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	pem := func(name, content string) string {
		path := filepath.Join(dir, name)
		if err := os.WriteFile(path, []byte(content), 0o600); err != nil {
			t.Fatal(err)
		}
		return path
	}
	empty, missing := pem("planted-empty.pem", "planted"), filepath.Join(dir, "planted-missing.pem")
	for url, name := range map[string]string{
		"redis://h?ca_file=planted":                                           "ca_file",
		"redis://h?sentinel_password=planted":                                 "sentinel_password",
		"redis+cluster://h?sentinel_user=planted":                             "sentinel_user",
		"redis+sentinel://h/p?db=planted":                                     "no parameters but",
		"rediss://h?skip_verify=planted":                                      "no parameters but",
		"rediss://h?read_timeout=planted":                                     "no parameters but",
		"redis+sentinel://h/p?sentinel_password=x&planted=y":                  "no parameters but",
		"rediss://h?ca_file=planted&ca_file=planted":                          "ca_file",
		"rediss://h?ca_file=":                                                 "ca_file",
		"rediss://h?cert_file=planted":                                        "key_file",
		"rediss+cluster://h?key_file=planted":                                 "cert_file",
		"rediss://h?ca_file=" + missing:                                       "ca_file",
		"rediss://h?ca_file=" + empty:                                         "ca_file",
		"rediss+sentinel://h/p?cert_file=" + missing + "&key_file=" + missing: "cert_file",
		"rediss+cluster://h?cert_file=" + empty + "&key_file=" + missing:      "key_file",
		"rediss+cluster://h?cert_file=" + empty + "&key_file=" + empty:        "cert_file",
	} {
		s, err := redisstore.Open(redisstore.Config{URL: url, Keyset: newKeyset(t), Logger: slog.New(slog.DiscardHandler)})
		if err == nil {
			t.Errorf("%s: opened", url)
			_ = s.Close()
			continue
		}
		if !strings.Contains(err.Error(), name) || strings.Contains(err.Error(), "planted") {
			t.Errorf("%s: %v", url, err)
		}
	}
}

// A server is believed only with a certificate of an authority that is known, and
// believes nobody without one here.
func TestTLSIsVerifiedBothWays(t *testing.T) {
	t.Parallel()
	server := redistest.StartTLS(t)
	where, ca, _ := strings.Cut(server.URL(), "?")
	ca, _, _ = strings.Cut(ca, "&") // ca_file comes first.
	_, strangers, _ := strings.Cut(redistest.StartTLS(t).URL(), "?")
	for name, test := range map[string]struct {
		url   string
		works bool
	}{
		"all":                        {server.URL(), true},
		"without a certificate":      {where + "?" + ca, false},
		"of an authority not known":  {where, false},
		"by a name not in it":        {strings.Replace(server.URL(), "127.0.0.1", "localhost", 1), false},
		"without TLS":                {strings.Replace(where, "rediss", "redis", 1), false},
		"of an authority not theirs": {where + "?" + strangers, false},
	} {
		f := newFixtureAt(t, test.url)
		if err := f.Ping(t.Context()); (err == nil) != test.works {
			t.Errorf("%s: %v", name, err)
		}
	}
}

func TestPasswordsOfSentinelsAreTheirOwn(t *testing.T) {
	t.Parallel()
	d := redistest.StartSentinel(t)
	for _, s := range d.Sentinels() {
		if err := s.Client().Do(t.Context(), "ACL", "SETUSER", "watcher", "on", ">right@password", "+sentinel|get-master-addr-by-name").Err(); err != nil {
			t.Fatal(err)
		}
		if err := s.Client().Do(t.Context(), "ACL", "SETUSER", "default", "off").Err(); err != nil {
			t.Fatal(err)
		}
	}
	for name, test := range map[string]struct {
		query, beside string
		works         bool
	}{
		"in the URL":              {"?sentinel_user=watcher&sentinel_password=right%40password", "", true},
		"beside the URL":          {"?sentinel_user=watcher", "right@password", true},
		"beside it, which counts": {"?sentinel_user=watcher&sentinel_password=wrong", "right@password", true},
		"wrong":                   {"?sentinel_user=watcher&sentinel_password=wrong-one", "", false},
		"none":                    {"", "", false},
	} {
		s, err := redisstore.Open(redisstore.Config{
			URL: d.URL() + test.query, SentinelPassword: secret.New(test.beside), Prefix: prefix,
			Keyset: newKeyset(t), Logger: slog.New(slog.DiscardHandler),
		})
		if err != nil {
			t.Fatal(err)
		}
		err = s.Ping(t.Context())
		if (err == nil) != test.works || err != nil && strings.Contains(err.Error(), "wrong-one") {
			t.Errorf("%s: %v", name, err)
		}
		_ = s.Close()
	}
	if s, err := redisstore.Open(redisstore.Config{URL: "redis://h", SentinelPassword: secret.New("x"), Keyset: newKeyset(t), Logger: slog.New(slog.DiscardHandler)}); err == nil {
		t.Error("a password for sentinels that there are not is taken")
		_ = s.Close()
	}
}

package redisstore_test

import (
	"context"
	"log/slog"
	"strings"
	"testing"

	"smokeball.internal/tokenbroker/internal/redisstore"
	"smokeball.internal/tokenbroker/internal/redisstore/redistest"
	"smokeball.internal/tokenbroker/internal/secret"
)

func TestOpenRefusesBadURLsWithoutQuotingThem(t *testing.T) {
	t.Parallel()
	const password = "Pl4nted"
	for _, url := range []string{
		"",
		password,
		"http://:" + password + "@redis.internal:6379",
		"redis://:" + password + "%zz@redis.internal:6379",
		"redis://:" + password + "/x@redis.internal:6379",
		"redis://:" + password + "#x@redis.internal:6379",
		"redis://:" + password + "@redis.internal:6379/not-a-number",
		"redis://:" + password + "@redis.internal:port",
		"redis://:" + password + "@redis.internal:6379?" + password + "=1",
		"redis://:" + password + " @redis.internal:6379",
		"redis://:" + password + "@redis.internal:6379/0/1",
		"redis://:\x7f" + password + "@redis.internal:6379",
		"redis://:" + password + "@",
		"redis://:" + password + "@redis.internal:0",
		"redis://:" + password + "@redis.internal:65536",
		"redis://:" + password + "@redis.internal:6379,redis.internal:6380",
		"redis://:" + password + "@redis.internal:6379/-1",
		"redis://user:6379?" + password + "@redis.internal",
		"redis://user:6379?sec&ca_file=" + password + "@redis.internal",
		"unix://:" + password + "@/redis.internal",
		"redis+sentinel://:" + password + "@redis.internal:6379",
		"redis+sentinel://:" + password + "@redis.internal:6379/",
		"redis+sentinel://:" + password + "@redis.internal:6379/primary/x",
		"redis+sentinel://:" + password + "@redis.internal:6379,/primary",
		"redis+sentinel://:" + password + "@redis.internal:6379,user@redis.internal/primary",
		"redis+cluster://:" + password + "@redis.internal:6379/1",
		"redis+cluster://:" + password + "@redis.internal:6379,:6380",
		"redis+cluster://:" + password + "@::1:6379",
		"redis+cluster+sentinel://:" + password + "@redis.internal:6379",
	} {
		s, err := redisstore.Open(redisstore.Config{URL: url, Keyset: newKeyset(t), Logger: slog.New(slog.DiscardHandler)})
		if err == nil {
			t.Errorf("%q: opened", url)
			_ = s.Close()
			continue
		}
		for _, part := range []string{password, "internal", "6379", "user:", "sec"} {
			if strings.Contains(err.Error(), part) {
				t.Errorf("%q: %v", url, err)
			}
		}
		for _, form := range []string{"redis://", "redis+sentinel://", "redis+cluster://", "rediss", "percent-encoded"} {
			if !strings.Contains(err.Error(), form) {
				t.Errorf("%q: %v: does not say %s", url, err, form)
			}
		}
	}
}

func TestOpenDoesNotNeedRedisAndErrorsHidePasswords(t *testing.T) {
	t.Parallel()
	server := redistest.Start(t)
	if err := server.Client().ConfigSet(t.Context(), "requirepass", "right%password").Err(); err != nil {
		t.Fatal(err)
	}
	for _, test := range []struct {
		name, inURL, beside string
		ok                  bool
	}{
		{"in the URL", "right%25password", "", true},
		{"beside the URL", "", "right%password", true},
		{"beside it, which counts", "wrong", "right%password", true},
		{"wrong", "wrong-one", "", false},
		{"none", "", "", false},
	} {
		s, err := redisstore.Open(redisstore.Config{
			URL:      strings.Replace(server.URL(), "://", "://:"+test.inURL+"@", 1),
			Password: secret.New(test.beside), Keyset: newKeyset(t), Logger: slog.New(slog.DiscardHandler),
		})
		if err != nil {
			t.Fatal(err)
		}
		err = s.Ping(context.Background())
		if (err == nil) != test.ok {
			t.Errorf("password %s: %v", test.name, err)
		}
		if err != nil && strings.Contains(err.Error(), "wrong-one") {
			t.Errorf("password %s: in the error %v", test.name, err)
		}
		_ = s.Close()
		if err := s.Ping(context.Background()); err == nil {
			t.Error("a closed store answers")
		}
	}
}

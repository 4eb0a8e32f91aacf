package redisstore_test

import (
	"encoding/base64"
	"encoding/hex"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"smokeball.internal/tokenbroker/internal/redisstore/redistest"
	"smokeball.internal/tokenbroker/internal/secret"
	"smokeball.internal/tokenbroker/internal/tenant"
)

var planted = map[string]string{
	"client secret":   "planted-client-secret-4711",
	"fallback secret": "planted-fallback-secret-4712",
	"api key":         "planted-api-key-4713",
	"access token":    "planted.access.token.4714",
	"other token":     "planted.other.token.4715",
}

// plant leaves secrets in every kind of record there is.
func plant(t *testing.T, f *fixture) {
	t.Helper()
	acme := newTenant("acme-in-plain")
	acme.Secret.Value = secret.New(planted["client secret"])
	acme.Fallback = tenant.Secret{Value: secret.New(planted["fallback secret"])}
	acme.FallbackUntil = time.Now().Add(time.Hour)
	acme.APIKey = secret.New(planted["api key"])
	updated, err := f.UpdateTenant(t.Context(), *f.create(t, acme))
	if err != nil {
		t.Fatal(err)
	}
	k := keyOf("acme")
	k.SecretID = updated.Secret.ID
	f.save(t, k, newToken(planted["other token"], time.Minute, time.Hour))
	f.save(t, k, newToken(planted["access token"], 0, time.Hour))
	if err := f.SaveFailure(t.Context(), k, newFailure("unavailable", time.Hour)); err != nil {
		t.Fatal(err)
	}
	if acquired, err := f.Lease(t.Context(), k, "a", time.Minute); !acquired || err != nil {
		t.Fatalf("acquired %v, error %v", acquired, err)
	}
}

func wantNoSecrets(t *testing.T, where, content string) {
	t.Helper()
	for name, s := range planted {
		for _, form := range []string{s, hex.EncodeToString([]byte(s)), base64.StdEncoding.EncodeToString([]byte(s))} {
			if strings.Contains(content, form) {
				t.Errorf("%s: the %s is in it", where, name)
			}
		}
	}
}

func TestNoSecretIsInAnyValue(t *testing.T) {
	onBoth(t, func(t *testing.T, f *fixture) {
		plant(t, f)
		kinds := map[string]bool{}
		for _, key := range f.keys(t) {
			kind, content := f.dump(t, key)
			kinds[kind] = true
			wantNoSecrets(t, key, key+"\n"+content)
		}
		if len(kinds) != 4 { // Or this looks at less than there is.
			t.Errorf("kinds of values: %v", kinds)
		}
		wantNoSecrets(t, "log", f.log.String())
	})
}

// dump returns all that is kept under a key.
func (f *fixture) dump(t *testing.T, key string) (kind, content string) {
	t.Helper()
	ctx := t.Context()
	kind, err := f.raw.Type(ctx, key).Result()
	if err != nil {
		t.Fatal(err)
	}
	var value any
	switch kind {
	case "string":
		value, err = f.raw.Get(ctx, key).Result()
	case "hash":
		value, err = f.raw.HGetAll(ctx, key).Result()
	case "zset":
		value, err = f.raw.ZRangeWithScores(ctx, key, 0, -1).Result()
	case "stream":
		value, err = f.raw.XRange(ctx, key, "-", "+").Result()
	default:
		t.Fatalf("%s: a %s is not looked into", key, kind)
	}
	if err != nil {
		t.Fatal(err)
	}
	return kind, fmt.Sprint(value)
}

func TestNoSecretIsOnDisk(t *testing.T) {
	t.Parallel()
	server := redistest.Start(t, "--appendonly", "yes", "--appendfsync", "always",
		// In plain, or a secret would be there and not be found.
		"--aof-use-rdb-preamble", "no", "--rdbcompression", "no")
	f := newFixture(t, server.URL())
	plant(t, f)
	if err := f.raw.Save(t.Context()).Err(); err != nil {
		t.Fatal(err)
	}
	looked := map[string]bool{}
	err := filepath.WalkDir(server.Dir(), func(path string, entry fs.DirEntry, err error) error {
		if err != nil || entry.IsDir() {
			return err
		}
		content, err := os.ReadFile(path)
		wantNoSecrets(t, path, string(content))
		if strings.Contains(string(content), "acme-in-plain") {
			looked[filepath.Ext(path)] = true
		}
		return err
	})
	// The id of the tenant shows that the files hold what was written.
	if err != nil || !looked[".rdb"] || !looked[".aof"] {
		t.Errorf("looked into %v, error %v", looked, err)
	}
}

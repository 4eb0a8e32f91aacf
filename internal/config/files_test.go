package config_test

import (
	"slices"
	"testing"

	"smokeball.internal/tokenbroker/internal/config"
)

func TestFilesAreThoseThatSettingsName(t *testing.T) {
	c, err := parse(t, "log-level: info\n", nil, "--keyset-file=k", "--tls-cert-file=c", "--tls-key-file=t", "--client-ca-file=a", "--access-file=r",
		"--redis-password-file=p", "--redis-sentinel-password-file=s", "--jwt-issuer=i", "--jwt-audience=b", "--jwt-keys=https://idp.example/jwks", "--jwt-keys-ca-file=j")
	if err != nil {
		t.Fatal(err)
	}
	files, err := c.Files()
	want := []config.NamedFile{
		{"config", string(c.Config), false}, {"redis-password-file", "p", true}, {"redis-sentinel-password-file", "s", true}, {"keyset-file", "k", true},
		{"tls-cert-file", "c", false}, {"tls-key-file", "t", true}, {"client-ca-file", "a", false}, {"access-file", "r", false}, {"jwt-keys-ca-file", "j", false},
	}
	if err != nil || !slices.Equal(files, want) {
		t.Errorf("got %v, %v", files, err)
	}
	c.JWTKeys, c.JWTKeysCA = "jwks.json", ""
	if files, err = c.Files(); err != nil || !slices.Contains(files, config.NamedFile{Setting: "jwt-keys", Path: "jwks.json"}) || c.KeysetFile != "k" {
		t.Errorf("with a file of keys: %v, %v", files, err)
	}
}

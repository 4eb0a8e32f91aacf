package redisstore_test

import (
	"bytes"
	"log/slog"
	"strings"
	"testing"

	"smokeball.internal/tokenbroker/internal/redisstore"
	"smokeball.internal/tokenbroker/internal/redisstore/redistest"
	"smokeball.internal/tokenbroker/internal/secret"
)

// Redis quotes a command that it does not know, with its arguments; AUTH can be
// one.
func TestWhatRedisQuotesIsNotPassedOn(t *testing.T) {
	t.Parallel()
	server := redistest.Start(t, "--rename-command", "AUTH", "", "--rename-command", "HELLO", "")
	log := &logBuffer{}
	s, err := redisstore.Open(redisstore.Config{
		URL: server.URL(), Password: secret.New("planted-password"), Prefix: prefix, Keyset: newKeyset(t),
		Logger: slog.New(slog.NewTextHandler(log, &slog.HandlerOptions{Level: slog.LevelDebug})),
	})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = s.Close() })
	_, _, loadErr := s.Load(t.Context(), keyOf("acme"))
	_, saveErr := s.CreateTenant(t.Context(), newTenant("acme"))
	for name, err := range map[string]error{"ping": s.Ping(t.Context()), "load": loadErr, "create": saveErr} {
		if err == nil || !strings.Contains(err.Error(), "ERR: redis refuses") {
			t.Errorf("%s: %v", name, err)
		}
		if err != nil && strings.Contains(err.Error(), "planted") {
			t.Errorf("%s quotes the password: %v", name, err)
		}
	}
	if strings.Contains(log.String(), "planted") {
		t.Errorf("logged: %s", log)
	}
}

// Who has to mend it reads the kind.
func TestTheKindOfARefusalIsSaidOfAllThatIsChanged(t *testing.T) {
	t.Parallel()
	for kind, config := range map[string][]string{
		"OOM":        {"maxmemory", "1"},
		"NOREPLICAS": {"min-replicas-to-write", "1"},
	} {
		f := newFixture(t, redistest.Start(t).URL())
		f.create(t, newTenant("acme"))
		var file bytes.Buffer
		if _, err := f.Export(t.Context(), &file); err != nil {
			t.Fatal(err)
		}
		backup, err := redisstore.ReadBackup(&file)
		if err != nil {
			t.Fatal(err)
		}
		if err := f.raw.ConfigSet(t.Context(), config[0], config[1]).Err(); err != nil {
			t.Fatal(err)
		}
		_, created := f.CreateTenant(t.Context(), newTenant("other"))
		_, imported := f.Import(t.Context(), backup, redisstore.ImportOptions{Overwrite: true})
		for what, err := range map[string]error{"create": created, "import": imported} {
			if err == nil || !strings.Contains(err.Error(), kind) {
				t.Errorf("%s, %s: %v", kind, what, err)
			}
		}
	}
}

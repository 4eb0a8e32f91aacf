package redisstore_test

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"log/slog"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"

	"github.com/redis/go-redis/v9"

	"smokeball.internal/tokenbroker/internal/redisstore"
	"smokeball.internal/tokenbroker/internal/redisstore/redistest"
)

const reference = "../../deploy/redis.conf"

// withPassword returns the reference configuration with the password "word" for
// its users.
func withPassword(t *testing.T) string {
	t.Helper()
	content, err := os.ReadFile(reference)
	if err != nil {
		t.Fatal(err)
	}
	sum := sha256.Sum256([]byte("word"))
	hash := regexp.MustCompile(`#[0-9a-f]{64}`)
	if len(hash.FindAll(content, -1)) != 2 {
		t.Fatalf("%s has not two passwords", reference)
	}
	return hash.ReplaceAllString(string(content), "#"+hex.EncodeToString(sum[:]))
}

// asReplica opens a store as a broker with default settings is, as the reference
// configuration's user.
func asReplica(t *testing.T, url string) *fixture {
	t.Helper()
	f := &fixture{url: withUser(url, "tokenbroker:word"), keyset: newKeyset(t), log: &logBuffer{}}
	s, err := redisstore.Open(redisstore.Config{
		URL: f.url, Prefix: "tokenbroker:", Keyset: f.keyset, Logger: slog.New(slog.NewTextHandler(f.log, nil)),
	})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = s.Close() })
	f.Store = s
	return f
}

func TestTheReferenceConfigurationIsEnough(t *testing.T) {
	t.Parallel()
	file := filepath.Join(t.TempDir(), "redis.conf")
	if err := os.WriteFile(file, []byte(withPassword(t)), 0o600); err != nil {
		t.Fatal(err)
	}
	for name, start := range map[string]func(testing.TB, ...string) *redistest.Server{
		"redis-server": redistest.Start, "with WAITAOF": redistest.StartWaiting,
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			server := start(t, file)
			f := asReplica(t, server.URL())
			wantAllCalls(t, f)
			if got := warnings(t, f.Store); got != nil {
				t.Errorf("warned of %q", got)
			}
			as := func(user string) *redis.Client {
				c := redis.NewClient(&redis.Options{Addr: server.Client().Options().Addr, Username: user, Password: "word", DisableIdentity: true})
				t.Cleanup(func() { _ = c.Close() })
				return c
			}
			if err := server.Client().Ping(t.Context()).Err(); err == nil {
				t.Error("whoever comes without a password is let in")
			}
			permission := regexp.MustCompile(`NOPERM|ACL failure|can't run this command|can't access at least|DEBUG command not allowed`)
			for user, refused := range map[string][]string{
				"tokenbroker": {"FLUSHALL", "FLUSHDB", "KEYS *", "CONFIG GET requirepass", "CONFIG SET save x", "ACL LIST", "DEBUG SLEEP 0",
					"SHUTDOWN", "MONITOR", "CLIENT LIST", "REPLICAOF NO ONE", "SAVE", "SCRIPT FLUSH", "GET other:key", "SET other:key x",
					"EVAL return(redis.call('keys','*')) 0", "EVAL return(redis.call('get','other:key')) 0", "PUBLISH tokenbroker:x y", "SORT tokenbroker:x"},
				"operator": {"FLUSHALL", "FLUSHDB", "KEYS *", "DEBUG SLEEP 0", "MODULE LIST", "SWAPDB 0 1"},
			} {
				for _, command := range refused {
					if err := as(user).Do(t.Context(), anys(strings.Fields(command))...).Err(); err == nil || !permission.MatchString(err.Error()) {
						t.Errorf("%s: %s: %v", user, command, err)
					}
				}
			}
			if err := as("operator").ConfigGet(t.Context(), "maxmemory").Err(); err != nil {
				t.Errorf("operator: %v", err)
			}
		})
	}
}

// The file as it is lets nobody in: its passwords are nobody's.
func TestTheReferenceConfigurationHasNoPasswordThatWorks(t *testing.T) {
	t.Parallel()
	file, err := filepath.Abs(reference)
	if err != nil {
		t.Fatal(err)
	}
	if err := asReplica(t, redistest.Start(t, file).URL()).Ping(t.Context()); err == nil {
		t.Error("the password is one that is guessed")
	}
}

// The user that the reference configuration has is enough for a cluster as well.
func TestTheUserOfTheReferenceConfigurationIsEnoughForACluster(t *testing.T) {
	t.Parallel()
	user := regexp.MustCompile(`(?m)^user (tokenbroker .*)$`).FindStringSubmatch(withPassword(t))
	if user == nil {
		t.Fatalf("%s has no user tokenbroker", reference)
	}
	wantAllCalls(t, asReplica(t, redistest.StartCluster(t, slices.Concat([]string{"--user"}, strings.Fields(user[1]))...).URL()))
}

func TestEveryWarningIsInTheDocumentation(t *testing.T) {
	t.Parallel()
	document, err := os.ReadFile("../../docs/redis.md")
	if err != nil {
		t.Fatal(err)
	}
	for _, kind := range redisstore.WarningKinds() {
		if !strings.Contains(string(document), "| `"+kind+"` |") {
			t.Errorf("docs/redis.md has no row for %s", kind)
		}
	}
}

// wantAllCalls wants everything to be answered that a store asks for.
func wantAllCalls(t *testing.T, f *fixture) {
	t.Helper()
	for name, call := range calls(f) {
		if err := call(t.Context()); isOutage(err) {
			t.Errorf("%s: %v", name, err)
		}
	}
	comeAndGo(t, f)
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	heard := &follower{}
	ended := make(chan struct{})
	go func() { defer close(ended); f.Follow(ctx, heard) }()
	heard.awaitOneOf(t, "as this user", func() string {
		created, err := f.CreateTenant(t.Context(), newTenant("follow-"+hex.EncodeToString([]byte(t.Name()))[:8]))
		if err == nil {
			err = f.DeleteTenant(t.Context(), created.ID, created.Etag)
		}
		if err != nil {
			t.Errorf("create and delete: %v", err)
			return ""
		}
		return "tenant " + created.ID
	})
	cancel()
	<-ended
	if strings.Contains(f.log.String(), "NOPERM") {
		t.Errorf("log: %s", f.log)
	}
}

func anys(words []string) []any {
	var list []any
	for _, word := range words {
		list = append(list, word)
	}
	return list
}

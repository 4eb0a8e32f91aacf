package redisstore_test

import (
	"bytes"
	"log/slog"
	"os"
	"sync"
	"testing"
	"time"

	"github.com/redis/go-redis/v9"
	"github.com/redis/go-redis/v9/logging"

	"smokeball.internal/tokenbroker/internal/redisstore"
	"smokeball.internal/tokenbroker/internal/redisstore/redistest"
	"smokeball.internal/tokenbroker/internal/seal"
	"smokeball.internal/tokenbroker/internal/secret"
	"smokeball.internal/tokenbroker/internal/tenant"
	"smokeball.internal/tokenbroker/internal/token"
)

const (
	prefix = "fleet:"
	// How long tests wait for what must happen; far longer than it takes.
	patience = 20 * time.Second
)

func TestMain(m *testing.M) {
	// What the client says of a Redis that tests take away would bury what fails.
	logging.Disable()
	os.Exit(m.Run())
}

// fixture is a store and the Redis behind it.
type fixture struct {
	*redisstore.Store
	url    string
	raw    *redis.Client // sees what is really there
	keyset *seal.Keyset
	log    *logBuffer

	observer redisstore.Observer // of the stores that are opened; nil: nobody
}

// onBoth runs a test on redis-server and on the embedded store: whoever develops
// on the one must not be surprised by the other.
func onBoth(t *testing.T, test func(*testing.T, *fixture)) {
	t.Helper()
	t.Parallel()
	t.Run("redis", func(t *testing.T) {
		t.Parallel()
		test(t, newFixture(t, redistest.Start(t).URL()))
	})
	t.Run("embedded", func(t *testing.T) {
		t.Parallel()
		embedded, err := redisstore.StartEmbedded()
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(embedded.Close)
		test(t, newFixture(t, embedded.URL()))
	})
}

func newFixture(t *testing.T, url string) *fixture {
	t.Helper()
	options, err := redis.ParseURL(url)
	if err != nil {
		t.Fatal(err)
	}
	f := &fixture{url: url, raw: redis.NewClient(options), keyset: newKeyset(t), log: &logBuffer{}}
	t.Cleanup(func() { _ = f.raw.Close() })
	f.Store = f.open(t, f.keyset)
	return f
}

// open returns another store on the same Redis, as another replica has it.
func (f *fixture) open(t *testing.T, keyset *seal.Keyset) *redisstore.Store {
	t.Helper()
	return f.openAt(t, f.url, keyset)
}

func (f *fixture) openAt(t *testing.T, url string, keyset *seal.Keyset) *redisstore.Store {
	t.Helper()
	return f.openUnder(t, url, prefix, keyset)
}

func (f *fixture) openUnder(t *testing.T, url, prefix string, keyset *seal.Keyset) *redisstore.Store {
	t.Helper()
	s, err := redisstore.Open(redisstore.Config{
		URL: url, Prefix: prefix, Keyset: keyset, Logger: slog.New(slog.NewTextHandler(f.log, nil)), Observer: f.observer,
	})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = s.Close() })
	return s
}

// keys returns all keys there are.
func (f *fixture) keys(t *testing.T) []string {
	t.Helper()
	var keys []string
	all := f.raw.Scan(t.Context(), 0, "*", 1000).Iterator()
	for all.Next(t.Context()) {
		keys = append(keys, all.Val())
	}
	if err := all.Err(); err != nil {
		t.Fatal(err)
	}
	return keys
}

func (f *fixture) pttl(t *testing.T, key string) time.Duration {
	t.Helper()
	left, err := f.raw.PTTL(t.Context(), key).Result()
	if err != nil {
		t.Fatal(err)
	}
	return left
}

func tokenKey(k token.Key) string   { return prefix + "token:{" + k.Digest() + "}" }
func failureKey(k token.Key) string { return prefix + "fail:{" + k.Digest() + "}" }

const (
	recordsKey = prefix + "{tenants}:records"
	indexKey   = prefix + "{tenants}:index"
	changesKey = prefix + "{tenants}:changes"
)

func newKeyset(t *testing.T) *seal.Keyset {
	t.Helper()
	k, err := seal.Ephemeral()
	if err != nil {
		t.Fatal(err)
	}
	return k
}

func keyOf(client string) token.Key {
	return token.Key{Endpoint: "https://issuer.test/oauth2/token", ClientID: client, SecretID: "5ec2e7", Scope: "matters/read"}
}

// newToken makes a token that was issued age ago.
func newToken(accessToken string, age, life time.Duration) *token.Token {
	text := secret.New(accessToken)
	issued := time.Now().Add(-age)
	return &token.Token{
		ID: token.ID(text), AccessToken: text, Scopes: []string{"documents/write", "matters/read"},
		Issued: issued, Expires: issued.Add(life), RefreshAt: issued.Add(life * 3 / 4),
	}
}

func newTenant(id string) tenant.Tenant {
	return tenant.Tenant{
		ID: id, Region: tenant.AU, Environment: tenant.Production,
		ClientID: "client-of-" + id, Secret: tenant.Secret{Value: secret.New("secret-of-" + id)},
	}
}

func (f *fixture) save(t *testing.T, k token.Key, saved *token.Token) *token.Token {
	t.Helper()
	kept, err := f.Save(t.Context(), k, saved)
	if err != nil {
		t.Fatal(err)
	}
	return kept
}

func (f *fixture) load(t *testing.T, k token.Key) (*token.Token, *token.Failure) {
	t.Helper()
	held, failure, err := f.Load(t.Context(), k)
	if err != nil {
		t.Fatal(err)
	}
	return held, failure
}

func (f *fixture) create(t *testing.T, registered tenant.Tenant) *tenant.Tenant {
	t.Helper()
	created, err := f.CreateTenant(t.Context(), registered)
	if err != nil {
		t.Fatal(err)
	}
	return created
}

// text names a token in failures of tests.
func text(t *token.Token) string {
	if t == nil {
		return "none"
	}
	return t.AccessToken.Reveal()
}

// eventually waits until what is described is so.
func eventually(t *testing.T, what string, so func() bool) {
	t.Helper()
	for deadline := time.Now().Add(patience); !so(); {
		if time.Now().After(deadline) {
			t.Fatalf("not within %v: %s", patience, what)
		}
		<-time.After(5 * time.Millisecond)
	}
}

// near allows for the time between two looks at a clock on a busy machine.
func near(got, want time.Duration) bool {
	const tolerance = 2 * time.Second
	return want-tolerance < got && got < want+tolerance
}

type logBuffer struct {
	mu  sync.Mutex
	buf bytes.Buffer
}

func (b *logBuffer) Write(p []byte) (int, error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.buf.Write(p)
}

func (b *logBuffer) String() string {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.buf.String()
}

func ids(tenants []*tenant.Tenant) []string {
	var ids []string
	for _, t := range tenants {
		ids = append(ids, t.ID)
	}
	return ids
}

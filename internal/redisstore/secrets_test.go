package redisstore_test

import (
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"math"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/redis/go-redis/v9"

	"smokeball.internal/tokenbroker/internal/redisstore"
	"smokeball.internal/tokenbroker/internal/secret"
	"smokeball.internal/tokenbroker/internal/tenant"
)

const (
	secretsKey = prefix + "{tenants}:secrets"
	day        = 24 * time.Hour
)

// put has a record in Redis as a broker from before the index of secrets writes it,
// with more in it.
func (f *fixture) put(t testing.TB, pipe redis.Cmdable, id string, created time.Time, more map[string]any) {
	t.Helper()
	const etag = "0123456789abcdef01234567"
	fields := map[string]any{"id": id, "etag": etag, "region": "au", "environment": "production", "client_id": "client", "client_secret": "secret-of-" + id,
		"created": created, "updated": created.Add(time.Hour)}
	maps.Copy(fields, more)
	plain, err := json.Marshal(fields)
	if err != nil {
		t.Fatal(err)
	}
	sealed, err := f.keyset.Seal(plain, recordsKey+"/"+id)
	if err != nil {
		t.Fatal(err)
	}
	pipe.HSet(t.Context(), recordsKey, id, etag+"."+string(sealed))
	pipe.ZAdd(t.Context(), indexKey, redis.Z{Member: id})
	pipe.SetNX(t.Context(), registryKey, "a registry", 0)
}

// ages returns what is said of three ages and the two oldest.
func (f *fixture) ages(t *testing.T) tenant.SecretAges {
	t.Helper()
	found, err := f.SecretAges(t.Context(), []time.Duration{day, 30 * day, 365 * day}, 2)
	if err != nil {
		t.Fatal(err)
	}
	return found
}

// wantAges compares: count, counts within, and the oldest with their ages in days.
func (f *fixture) wantAges(t *testing.T, what, want string) {
	t.Helper()
	found := f.ages(t)
	got := fmt.Sprint(found.Count, found.Within)
	for _, oldest := range found.Oldest {
		got += fmt.Sprintf(" %s:%.1f", oldest.Tenant, time.Since(oldest.Since).Hours()/24)
	}
	if got != want {
		t.Errorf("%s: %s, want %s", what, got, want)
	}
}

func TestASecretIsAsOldAsSinceItWasSet(t *testing.T) {
	onBoth(t, func(t *testing.T, f *fixture) {
		ctx, now := t.Context(), time.Now()
		f.wantAges(t, "nobody there", "0 [0 0 0]")
		f.put(t, f.raw, "rotated", now.Add(-800*day), map[string]any{"client_secret_updated": now.Add(-100 * day)})
		f.put(t, f.raw, "unknown", now.Add(-700*day), nil)
		f.create(t, newTenant("fresh"))
		f.wantAges(t, "three", "3 [1 1 2] unknown:700.0 rotated:100.0")

		update := func(id string, change func(*tenant.Tenant)) *tenant.Tenant {
			t.Helper()
			current, err := f.Tenant(ctx, id)
			if err != nil {
				t.Fatal(err)
			}
			change(current)
			updated, err := f.UpdateTenant(ctx, *current)
			if err != nil {
				t.Fatal(err)
			}
			return updated
		}
		rotated := update("rotated", func(c *tenant.Tenant) { c.DisplayName = "Another" })
		unknown := update("unknown", func(c *tenant.Tenant) { c.DisplayName = "Another" })
		if !rotated.SecretUpdated.Equal(now.Add(-100*day)) || !unknown.SecretUpdated.IsZero() {
			t.Errorf("after other changes: %v, %v", rotated.SecretUpdated, unknown.SecretUpdated)
		}
		f.wantAges(t, "after other changes", "3 [1 1 2] unknown:700.0 rotated:100.0")

		disable := func(c *tenant.Tenant) { c.Disabled = true }
		update("unknown", disable)
		update("fresh", disable)
		f.wantAges(t, "two are disabled", "1 [0 0 1] rotated:100.0")
		update("unknown", func(c *tenant.Tenant) { c.Disabled = false })
		fresh := update("fresh", func(c *tenant.Tenant) { c.Disabled = false })
		f.wantAges(t, "and enabled", "3 [1 1 2] unknown:700.0 rotated:100.0")

		unknown = update("unknown", func(c *tenant.Tenant) { c.Secret = tenant.Secret{Value: secret.New("another")} })
		if !unknown.SecretUpdated.Equal(unknown.Updated) {
			t.Errorf("a new secret since %v, changed %v", unknown.SecretUpdated, unknown.Updated)
		}
		f.wantAges(t, "a new secret", "3 [2 2 3] rotated:100.0 fresh:0.0")
		for _, gone := range []*tenant.Tenant{rotated, fresh} {
			if err := f.DeleteTenant(ctx, gone.ID, gone.Etag); err != nil {
				t.Fatal(err)
			}
		}
		f.wantAges(t, "one is left", "1 [1 1 1] unknown:0.0")
	})
}

// Whoever writes to Redis can put anything there, and a metric's label is not anything.
func TestWhatIsNoTenantHasNoOldSecret(t *testing.T) {
	onBoth(t, func(t *testing.T, f *fixture) {
		f.create(t, newTenant("acme"))
		for _, key := range []string{indexKey, secretsKey} {
			if err := f.raw.ZAdd(t.Context(), key, redis.Z{Member: "\xff"}).Err(); err != nil {
				t.Fatal(err)
			}
		}
		f.wantAges(t, "beside what is none", "2 [1 1 1] acme:0.0")
	})
}

func TestTheAgeOfASecretIsInABackup(t *testing.T) {
	onBoth(t, func(t *testing.T, f *fixture) {
		now := time.Now()
		f.put(t, f.raw, "noted", now.Add(-800*day), map[string]any{"client_secret_updated": now.Add(-100 * day)})
		f.put(t, f.raw, "unnoted", now.Add(-700*day), nil)
		f.put(t, f.raw, "disabled", now.Add(-900*day), map[string]any{"disabled": true})
		const want = "2 [0 0 1] unnoted:700.0 noted:100.0"
		f.wantAges(t, "before", want)
		file, _ := export(t, f.Store)
		before := f.registry(t)
		f.flush(t)
		if _, err := f.SecretAges(t.Context(), nil, 2); !errors.Is(err, tenant.ErrLost) {
			t.Errorf("of a registry that was lost: %v", err)
		}
		if _, err := f.Import(t.Context(), readBackup(t, file), redisstore.ImportOptions{}); err != nil {
			t.Fatal(err)
		}
		if got := f.registry(t); !maps.Equal(got, before) {
			t.Errorf("registry\n%q, before the loss\n%q", got, before)
		}
		f.wantAges(t, "after", want)
	})
}

// A broker from before the index leaves out some, and does not take out others.
func TestAnIncompleteIndexOfSecretsIsCompleted(t *testing.T) {
	onBoth(t, func(t *testing.T, f *fixture) {
		const tenants = 1300 // More than two pages.
		ctx, now := t.Context(), time.Now()
		f.create(t, newTenant("fresh"))
		pipe := f.raw.Pipeline()
		for n := range tenants {
			f.put(t, pipe, fmt.Sprintf("firm-%d", n), now.Add(-time.Duration(n)*time.Hour-30*time.Minute), map[string]any{"disabled": n == tenants-1})
			pipe.ZAdd(ctx, secretsKey, redis.Z{Score: 1, Member: fmt.Sprintf("deleted-%d", n)})
		}
		pipe.HSet(ctx, recordsKey, "unreadable", "junk")
		pipe.ZAdd(ctx, indexKey, redis.Z{Member: "unreadable"})
		if _, err := pipe.Exec(ctx); err != nil {
			t.Fatal(err)
		}
		const want = "1300 [25 721 1300] firm-1298:54.1 firm-1297:54.1"
		f.wantAges(t, "completed", want)
		if n := f.raw.ZCard(ctx, secretsKey).Val(); n != tenants+1 {
			t.Errorf("%d places for %d tenants", n, tenants+1)
		}
		before := f.commands(t)
		f.wantAges(t, "again", want)
		if after := f.commands(t); after != before {
			t.Errorf("it is looked through again: %s, before %s", after, before)
		}
		if err := f.raw.Del(ctx, secretsKey).Err(); err != nil {
			t.Fatal(err)
		}
		f.wantAges(t, "removed", want)
	})
}

// An index of ids that has lost one of them is not put right by this one: it is looked
// through once, and not again and again.
func TestWhatTheIndexOfSecretsCannotMendIsLookedAtOnce(t *testing.T) {
	onBoth(t, func(t *testing.T, f *fixture) {
		f.create(t, newTenant("acme"))
		f.create(t, newTenant("globex"))
		if err := f.raw.ZRem(t.Context(), indexKey, "acme").Err(); err != nil {
			t.Fatal(err)
		}
		f.ages(t)
		before := f.calls(t, "zrangebylex")
		f.ages(t)
		if after := f.calls(t, "zrangebylex"); after != before {
			t.Errorf("it is looked through again: %s, before %s", after, before)
		}
	})
}

// commands returns how often records were read, where Redis counts it.
func (f *fixture) commands(t *testing.T) string {
	t.Helper()
	return f.calls(t, "hmget")
}

// calls returns how often a command was sent, where Redis counts it.
func (f *fixture) calls(t *testing.T, command string) string {
	t.Helper()
	for line := range strings.Lines(f.raw.Info(t.Context(), "commandstats").Val()) {
		if name, stats, _ := strings.Cut(line, ":"); name == "cmdstat_"+command {
			calls, _, _ := strings.Cut(stats, ",")
			return calls
		}
	}
	return ""
}

// What a tenant's change says of its place is not undone by who read it before.
func TestTenantsChangeWhileTheIndexOfSecretsIsCompleted(t *testing.T) {
	onBoth(t, func(t *testing.T, f *fixture) {
		ctx := t.Context()
		disabled, deleted := f.create(t, newTenant("disabled")), f.create(t, newTenant("deleted"))
		f.raw.Del(ctx, secretsKey)
		f.raw.ZAdd(ctx, secretsKey, redis.Z{Score: 1, Member: "registered-again"})
		line := newLine(t, f.url)
		s := f.openAt(t, line.url(), f.keyset)
		line.onAnswer("HMGET", sync.OnceFunc(func() {
			disabled.Disabled = true
			if _, err := f.UpdateTenant(ctx, *disabled); err != nil {
				t.Error(err)
			}
			if err := f.DeleteTenant(ctx, "deleted", deleted.Etag); err != nil {
				t.Error(err)
			}
			if _, err := f.CreateTenant(ctx, newTenant("registered-again")); err != nil {
				t.Error(err)
			}
		}))
		if found, err := s.SecretAges(ctx, nil, 10); err != nil || found.Count != 1 {
			t.Errorf("%+v, error %v", found, err)
		}
		places := map[string]float64{}
		for _, z := range f.raw.ZRangeWithScores(ctx, secretsKey, 0, -1).Val() {
			places[fmt.Sprint(z.Member)] = z.Score
		}
		if len(places) != 2 || !math.IsInf(places["disabled"], 1) || places["registered-again"] < float64(time.Now().Add(-time.Hour).Unix()) {
			t.Errorf("places: %v", places)
		}
	})
}

package brokertest

import (
	"errors"
	"slices"
	"sync"
	"testing"
	"time"

	"smokeball.internal/tokenbroker/internal/secret"
	"smokeball.internal/tokenbroker/internal/tenant"
	"smokeball.internal/tokenbroker/internal/token"
)

func tenantOf(id string, warm bool) tenant.Tenant {
	return tenant.Tenant{
		ID: id, Region: tenant.AU, Environment: tenant.Production, ClientID: "client of " + id,
		Secret: tenant.Secret{Value: secret.New("shared")}, KeepWarm: warm,
	}
}

func testTenant(t *testing.T, s Shared) {
	ctx := t.Context()
	if _, err := s.One.Tenant(ctx, "acme"); !errors.Is(err, tenant.ErrNotFound) {
		t.Errorf("not there: %v", err)
	}
	created := must[*tenant.Tenant](t)(s.One.CreateTenant(ctx, tenantOf("acme", false)))
	if _, err := s.Two.CreateTenant(ctx, tenantOf("acme", true)); !errors.Is(err, tenant.ErrExists) {
		t.Errorf("created twice: %v", err)
	}
	got := must[*tenant.Tenant](t)(s.Two.Tenant(ctx, "acme"))
	if got.Etag != created.Etag || got.Etag == "" || got.ClientID != "client of acme" || got.Secret.ID == "" || got.Secret.ID != created.Secret.ID {
		t.Errorf("created %+v, read %+v", created, got)
	}
	// Equal secrets have equal names, others have others.
	if id := must[string](t)(s.Two.SecretID(secret.New("shared"))); id != created.Secret.ID {
		t.Errorf("SecretID = %q, created with %q", id, created.Secret.ID)
	}
	other := tenantOf("other", false)
	if named := must[*tenant.Tenant](t)(s.One.CreateTenant(ctx, other)); named.Secret.ID != created.Secret.ID {
		t.Error("two names for a secret")
	}
	change := *got
	change.Secret = tenant.Secret{Value: secret.New("new")}
	change.Disabled = true
	updated := must[*tenant.Tenant](t)(s.Two.UpdateTenant(ctx, change))
	if updated.Etag == created.Etag || updated.Secret.ID == created.Secret.ID {
		t.Errorf("updated %+v", updated)
	}
	if _, err := s.One.UpdateTenant(ctx, change); !errors.Is(err, tenant.ErrConflict) {
		t.Errorf("updated at an old version: %v", err)
	}
	if got := must[*tenant.Tenant](t)(s.One.Tenant(ctx, "acme")); !got.Disabled || got.Etag != updated.Etag {
		t.Errorf("read %+v", got)
	}
	if err := s.One.DeleteTenant(ctx, "acme", created.Etag); !errors.Is(err, tenant.ErrConflict) {
		t.Errorf("deleted at an old version: %v", err)
	}
	for range 2 { // That there is none is no error.
		if err := s.One.DeleteTenant(ctx, "acme", updated.Etag); err != nil {
			t.Error(err)
		}
	}
	if _, err := s.Two.Tenant(ctx, "acme"); !errors.Is(err, tenant.ErrNotFound) {
		t.Errorf("deleted: %v", err)
	}
	if _, err := s.Two.UpdateTenant(ctx, *updated); !errors.Is(err, tenant.ErrNotFound) {
		t.Errorf("updated after the delete: %v", err)
	}
}

func testSecrets(t *testing.T, s Shared) {
	ctx := t.Context()
	begun := time.Now().Add(-time.Second)
	created := must[*tenant.Tenant](t)(s.One.CreateTenant(ctx, tenantOf("acme", false)))
	if created.SecretUpdated.Before(begun) {
		t.Errorf("created %+v", created)
	}
	time.Sleep(5 * time.Millisecond)
	change := *must[*tenant.Tenant](t)(s.Two.Tenant(ctx, "acme"))
	change.KeepWarm = true
	if same := must[*tenant.Tenant](t)(s.Two.UpdateTenant(ctx, change)); !same.SecretUpdated.Equal(created.SecretUpdated) {
		t.Errorf("the same secret: since %v, and before since %v", same.SecretUpdated, created.SecretUpdated)
	}
	change = *must[*tenant.Tenant](t)(s.One.Tenant(ctx, "acme"))
	change.Secret.Value = secret.New("new")
	if another := must[*tenant.Tenant](t)(s.One.UpdateTenant(ctx, change)); !another.SecretUpdated.After(created.SecretUpdated) {
		t.Errorf("another secret: since %v, and before since %v", another.SecretUpdated, created.SecretUpdated)
	}
}

func testLists(t *testing.T, s Shared) {
	for _, id := range []string{"c", "a", "e", "b", "d"} {
		must[*tenant.Tenant](t)(s.One.CreateTenant(t.Context(), tenantOf(id, id > "b")))
	}
	for _, test := range []struct {
		after    string
		limit    int
		all      []string
		allNext  string
		warm     []string
		warmNext string
	}{
		{"", 2, []string{"a", "b"}, "b", []string{"c", "d"}, "d"},
		{"b", 3, []string{"c", "d", "e"}, "", []string{"c", "d", "e"}, ""},
		{"d", 3, []string{"e"}, "", []string{"e"}, ""},
		{"e", 3, nil, "", nil, ""},
	} {
		tenants, next, err := s.Two.ListTenants(t.Context(), test.after, test.limit)
		var ids []string
		for _, each := range tenants {
			ids = append(ids, each.ID)
		}
		if err != nil || !slices.Equal(ids, test.all) || next != test.allNext {
			t.Errorf("behind %q: %q, next %q, error %v", test.after, ids, next, err)
		}
		ids, next, err = s.Two.WarmTenants(t.Context(), test.after, test.limit)
		if err != nil || !slices.Equal(ids, test.warm) || next != test.warmNext {
			t.Errorf("warm, behind %q: %q, next %q, error %v", test.after, ids, next, err)
		}
	}
}

// told is a listener that notes what it is told.
type told struct {
	mu   sync.Mutex
	what map[string]bool
}

func (l *told) note(what string) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.what[what] = true
}

func (l *told) TenantChanged(id string, warm bool) {
	if warm {
		id += ", warm"
	}
	l.note("tenant " + id)
}
func (l *told) TokenChanged(digest, id string) { l.note("token " + digest + " " + id) }
func (l *told) Resync()                        { l.note("resync") }
func (l *told) Heard()                         { l.note("heard") }

func testChanges(t *testing.T, s Shared) {
	ctx, k := t.Context(), keyOf("acme")
	must[*tenant.Tenant](t)(s.One.CreateTenant(ctx, tenantOf("before", false)))
	l := &told{what: map[string]bool{}}
	s.Listen(l)
	await := func(want string) {
		t.Helper()
		eventually(t, "told: "+want, func() bool {
			l.mu.Lock()
			defer l.mu.Unlock()
			return l.what[want]
		})
	}
	await("resync")
	await("heard")
	created := must[*tenant.Tenant](t)(s.One.CreateTenant(ctx, tenantOf("acme", false)))
	await("tenant acme")
	created.KeepWarm = true
	must[*tenant.Tenant](t)(s.Two.UpdateTenant(ctx, *created))
	await("tenant acme, warm")
	saved := issued("a", 0, time.Hour)
	must[*token.Token](t)(s.One.Save(ctx, k, saved))
	await("token " + k.Digest() + " " + saved.ID)
	if err := s.Two.SaveFailure(ctx, k, &token.Failure{Class: token.Throttled, RetryAt: time.Now().Add(time.Minute)}); err != nil {
		t.Fatal(err)
	}
	await("token " + k.Digest() + " ")
	// Of an older one it is told which is kept.
	l.mu.Lock()
	clear(l.what)
	l.mu.Unlock()
	must[*token.Token](t)(s.Two.Save(ctx, k, issued("older", time.Minute, time.Hour)))
	await("token " + k.Digest() + " " + saved.ID)
}

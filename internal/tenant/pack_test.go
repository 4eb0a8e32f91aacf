package tenant_test

import (
	"reflect"
	"testing"
	"time"

	"smokeball.internal/tokenbroker/internal/secret"
	"smokeball.internal/tokenbroker/internal/tenant"
)

func TestPackingChangesNothing(t *testing.T) {
	full := func() *tenant.Tenant {
		at := time.Date(2026, 11, 29, 0, 0, 0, 0, time.UTC)
		return &tenant.Tenant{
			ID: "acme", DisplayName: "Acme Öl", Region: tenant.UK, Environment: tenant.Staging, ClientID: "client",
			Secret: tenant.Secret{ID: "name", Value: secret.New("secret")}, Fallback: tenant.Secret{ID: "before", Value: secret.New("former")}, FallbackUntil: at,
			APIKey: secret.New("key"), AccountID: "account", Scopes: []string{"a", "b"}, Disabled: true, KeepWarm: true,
			Labels: map[string]string{"l": "v"}, Created: at, Updated: at, SecretUpdated: at, Etag: "12",
		}
	}
	for name, change := range map[string]func(*tenant.Tenant){
		"with all": func(*tenant.Tenant) {},
		"with less": func(r *tenant.Tenant) {
			r.DisplayName, r.AccountID, r.APIKey, r.Fallback = "", "", secret.Text{}, tenant.Secret{}
		},
		"with none": func(r *tenant.Tenant) { *r = tenant.Tenant{} },
		"once more": func(r *tenant.Tenant) { r.Pack() },
		"only names": func(r *tenant.Tenant) {
			r.Secret.Value, r.Fallback.Value, r.APIKey = secret.Text{}, secret.Text{}, secret.Text{}
		},
	} {
		want, got := full(), full()
		change(want)
		change(got)
		got.Pack()
		if !reflect.DeepEqual(got, want) {
			t.Errorf("%s: %+v, want %+v", name, got, want)
		}
		for n, texts := range [][2]secret.Text{{got.Secret.Value, want.Secret.Value}, {got.Fallback.Value, want.Fallback.Value}, {got.APIKey, want.APIKey}} {
			if !texts[0].Equal(texts[1]) || texts[0].IsZero() != texts[1].IsZero() {
				t.Errorf("%s: text %d is another", name, n)
			}
		}
	}
}

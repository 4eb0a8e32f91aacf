package tenant_test

import (
	"errors"
	"fmt"
	"strings"
	"testing"

	"smokeball.internal/tokenbroker/internal/secret"
	"smokeball.internal/tokenbroker/internal/tenant"
)

func valid() tenant.Tenant {
	return tenant.Tenant{
		ID: "acme", Region: tenant.US, Environment: tenant.Production,
		ClientID: "client", Secret: tenant.Secret{Value: secret.New("planted-secret")},
	}
}

func TestValidateNamesTheFirstFieldThatIsMissing(t *testing.T) {
	for _, test := range []struct {
		name   string
		change func(*tenant.Tenant)
		field  string // "" if the tenant stays valid
	}{
		{"all that is needed", func(*tenant.Tenant) {}, ""},
		{"no region", func(t *tenant.Tenant) { t.Region = "" }, "region"},
		{"unknown region", func(t *tenant.Tenant) { t.Region = "nz" }, "region"},
		{"region in capitals", func(t *tenant.Tenant) { t.Region = "US" }, "region"},
		{"no environment", func(t *tenant.Tenant) { t.Environment = "" }, "environment"},
		{"unknown environment", func(t *tenant.Tenant) { t.Environment = "test" }, "environment"},
		{"no client id", func(t *tenant.Tenant) { t.ClientID = "" }, "client_id"},
		{"no secret", func(t *tenant.Tenant) { t.Secret = tenant.Secret{} }, "client_secret"},
		{"a secret's name is not a secret", func(t *tenant.Tenant) { t.Secret = tenant.Secret{ID: "id"} }, "client_secret"},
		{"nor is the fallback", func(t *tenant.Tenant) { t.Fallback, t.Secret = t.Secret, tenant.Secret{} }, "client_secret"},
		{"a disabled tenant needs all of it too", func(t *tenant.Tenant) { t.Disabled, t.ClientID = true, "" }, "client_id"},
		{"nothing at all", func(t *tenant.Tenant) { *t = tenant.Tenant{} }, "region"},
	} {
		t.Run(test.name, func(t *testing.T) {
			tn := valid()
			test.change(&tn)
			err := tn.Validate()
			if test.field == "" {
				if err != nil {
					t.Errorf("Validate() = %v", err)
				}
				return
			}
			var fieldError *tenant.FieldError
			if !errors.As(fmt.Errorf("wrapped: %w", err), &fieldError) || fieldError.Field != test.field || fieldError.Description == "" {
				t.Fatalf("Validate() = %v, want a complaint about %s", err, test.field)
			}
			if !strings.HasPrefix(err.Error(), test.field+": ") {
				t.Errorf("the error does not begin with the field: %v", err)
			}
		})
	}
}

func TestEveryPlaceIsValid(t *testing.T) {
	if len(tenant.Regions()) != 3 || len(tenant.Environments()) != 2 {
		t.Fatalf("%d regions and %d environments", len(tenant.Regions()), len(tenant.Environments()))
	}
	for _, region := range tenant.Regions() {
		for _, environment := range tenant.Environments() {
			tn := valid()
			tn.Region, tn.Environment = region, environment
			if err := tn.Validate(); err != nil {
				t.Errorf("%s/%s: %v", region, environment, err)
			}
		}
	}
}

// The lists are made anew for each caller: one that sorts or changes its own must not change what is valid.
func TestListsOfPlacesAreTheCallersOwn(t *testing.T) {
	tenant.Regions()[0] = "nz"
	tenant.Environments()[0] = "test"
	tn := valid()
	if err := tn.Validate(); err != nil {
		t.Error(err)
	}
}

func TestScopesOfATenantBoundWhatCallersMayAskFor(t *testing.T) {
	bounded := []string{"documents/read", "matters/read"}
	for _, test := range []struct {
		name           string
		tenant, caller []string
		want           bool
	}{
		{"a tenant without scopes admits any", nil, []string{"odata/read"}, true},
		{"and none", nil, nil, true},
		{"a caller may name none", bounded, nil, true},
		{"one of them", bounded, []string{"matters/read"}, true},
		{"all of them, in any order", bounded, []string{"matters/read", "documents/read"}, true},
		{"one that is not among them", bounded, []string{"matters/write"}, false},
		{"one that is and one that is not", bounded, []string{"matters/read", "matters/write"}, false},
		{"one that is not and one that is", bounded, []string{"a", "matters/read"}, false},
		{"part of one", bounded, []string{"matters"}, false},
		{"one in other letters", bounded, []string{"Matters/Read"}, false},
		{"the empty scope", bounded, []string{""}, false},
	} {
		tn := tenant.Tenant{Scopes: test.tenant}
		if got := tn.Admits(test.caller); got != test.want {
			t.Errorf("%s: Admits(%q) = %v, want %v", test.name, test.caller, got, test.want)
		}
	}
}

func TestTenantIsPrintedWithoutItsSecrets(t *testing.T) {
	tn := valid()
	tn.APIKey, tn.Fallback.Value = secret.New("planted-key"), secret.New("planted-fallback")
	for _, verb := range []string{"%v", "%+v", "%#v", "%s", "%x"} {
		for _, value := range []any{tn, &tn} {
			text := fmt.Sprintf(verb, value)
			if strings.Contains(text, "planted") || strings.Contains(text, fmt.Sprintf("%x", "planted")) {
				t.Errorf("%s prints %s", verb, text)
			}
		}
	}
}

// Package tenant says what a tenant is: one set of Smokeball credentials, as a
// rule one law firm in one region and environment. It holds values and their
// rules only: no I/O.
package tenant

import (
	"errors"
	"slices"
	"time"

	"smokeball.internal/tokenbroker/internal/secret"
)

// Region is a Smokeball region. Source: https://docs.smokeball.com, "Base URLs".
type Region string

// The regions.
const (
	US Region = "us"
	AU Region = "au"
	UK Region = "uk"
)

// Regions lists every region.
func Regions() []Region { return []Region{US, AU, UK} }

// Environment is a Smokeball environment.
type Environment string

// The environments.
const (
	Production Environment = "production"
	Staging    Environment = "staging"
)

// Environments lists every environment.
func Environments() []Environment { return []Environment{Production, Staging} }

// Errors of a registry.
var (
	// ErrNotFound: no tenant has this id.
	ErrNotFound = errors.New("tenant not found")
	// ErrLost: there is no such tenant in the registry, but the registry is not the
	// one that was there before: its tenants were lost, not deleted.
	ErrLost = errors.New("registry of tenants was lost")
	// ErrExists: a tenant has this id already.
	ErrExists = errors.New("tenant exists")
	// ErrConflict: the tenant is not, or no longer, at the version named.
	ErrConflict = errors.New("tenant changed meanwhile")
	// ErrUnreadable: there is a record, but not one that can be opened.
	ErrUnreadable = errors.New("tenant record cannot be opened")
)

// Tenant is a registered tenant.
type Tenant struct {
	// ID is the last part of the resource name, a DNS label.
	ID string
	// DisplayName is for people.
	DisplayName string
	// Region and Environment say which hosts the credentials belong to.
	Region      Region
	Environment Environment
	// ClientID and Secret are the OAuth 2.0 client credentials.
	ClientID string
	Secret   Secret
	// Fallback is the secret before this one, tried if the issuer refuses Secret
	// before FallbackUntil. Empty: there is none.
	Fallback      Secret
	FallbackUntil time.Time
	// AccountID prefixes the paths of requests; mostly empty.
	AccountID string
	// Scopes are asked for when a caller names none, and bound what a caller may
	// name. Canonical. Empty: no bound.
	Scopes []string
	// APIKey is the x-api-key of the app; may be empty.
	APIKey secret.Text
	// Disabled tenants get no token.
	Disabled bool
	// KeepWarm tenants have their token refreshed though nobody asks for it.
	KeepWarm bool
	// Labels are free-form.
	Labels map[string]string
	// Created and Updated are set by the registry.
	Created, Updated time.Time
	// SecretUpdated is when Secret became what it is. Zero: before registries noted
	// it. The registry sets it.
	SecretUpdated time.Time
	// Etag names this version of the record. The registry sets it.
	Etag string
}

// Secret is a client secret and its name.
type Secret struct {
	// ID names the secret without revealing it: equal secrets have equal IDs.
	// The registry sets it. A secret without it is a new one.
	ID string
	// Value is the secret.
	Value secret.Text
}

// FieldError says what is wrong with a field of a tenant.
type FieldError struct {
	// Field is the field's name in the API.
	Field string
	// Description says what it must be.
	Description string
}

// Error returns the field and its description.
func (e *FieldError) Error() string { return e.Field + ": " + e.Description }

// Validate returns a *FieldError if t lacks what every tenant has. The form of
// each field is the API's to check.
func (t *Tenant) Validate() error {
	switch {
	case !slices.Contains(Regions(), t.Region):
		return &FieldError{"region", "must be given: the Smokeball region of the credentials"}
	case !slices.Contains(Environments(), t.Environment):
		return &FieldError{"environment", "must be production or staging"}
	case t.ClientID == "":
		return &FieldError{"client_id", "must be given"}
	case t.Secret.Value.IsZero():
		return &FieldError{"client_secret", "must be given"}
	}
	return nil
}

// Admits says whether a caller may ask for tokens with these scopes: any, if the
// tenant is registered without scopes.
func (t *Tenant) Admits(scopes []string) bool {
	if len(t.Scopes) == 0 {
		return true
	}
	for _, s := range scopes {
		if !slices.Contains(t.Scopes, s) {
			return false
		}
	}
	return true
}

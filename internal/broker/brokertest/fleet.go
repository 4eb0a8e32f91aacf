package brokertest

import (
	"log/slog"
	"testing"

	"smokeball.internal/tokenbroker/internal/broker"
	"smokeball.internal/tokenbroker/internal/secret"
	"smokeball.internal/tokenbroker/internal/tenant"
)

// Fleet is a store, an issuer and the replicas that share them.
type Fleet struct {
	Store    *Store
	Issuer   *Issuer
	Replicas []*broker.Broker
}

// NewFleet returns a fleet of n replicas, which end with the test.
func NewFleet(t testing.TB, n int) *Fleet {
	f := &Fleet{Store: &Store{}, Issuer: &Issuer{}}
	for range n {
		f.Add(t)
	}
	return f
}

// Add adds a replica.
func (f *Fleet) Add(t testing.TB) *broker.Broker {
	b := broker.New(broker.Config{
		Issuer: f.Issuer, Store: f.Store, Tenants: f.Store, Logger: slog.New(slog.NewTextHandler(t.Output(), nil)),
	})
	t.Cleanup(b.Close)
	f.Store.Listen(b)
	f.Replicas = append(f.Replicas, b)
	return b
}

// Registry returns the administrators' side of the first replica.
func (f *Fleet) Registry() *broker.Registry { return broker.NewRegistry(f.Replicas[0], f.Store) }

// Register registers a tenant with the client id "client of ID" and the secret
// "good", changed by change (nil: not).
func (f *Fleet) Register(t testing.TB, id string, change func(*tenant.Tenant)) {
	t.Helper()
	r := tenant.Tenant{ID: id, Region: tenant.US, Environment: tenant.Production, ClientID: "client of " + id,
		Secret: tenant.Secret{Value: secret.New("good")}, APIKey: secret.New("key of " + id)}
	if change != nil {
		change(&r)
	}
	if _, err := f.Registry().Create(t.Context(), r, false); err != nil {
		t.Fatal(err)
	}
}

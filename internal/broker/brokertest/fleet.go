package brokertest

import (
	"cmp"
	"log/slog"
	"testing"
	"time"

	"go.opentelemetry.io/otel/trace"

	"smokeball.internal/tokenbroker/internal/broker"
	"smokeball.internal/tokenbroker/internal/secret"
	"smokeball.internal/tokenbroker/internal/tenant"
)

// Fleet is a store, an issuer and the replicas that share them.
type Fleet struct {
	Store    *Store
	Issuer   *Issuer
	Replicas []*broker.Broker

	// Logger of the replicas that are added; nil: the output of the test.
	Logger *slog.Logger
	// ExchangeRate of the replicas that are added; 0: a thousand a second, which
	// holds nobody up.
	ExchangeRate float64
	// MaxStaleness of the replicas that are added; 0: a year, since the store in
	// memory does not say again and again that nothing has changed.
	MaxStaleness time.Duration
	// Observer of the replicas that are added; nil: nobody.
	Observer broker.Observer
	// Tracer of the replicas that are added; nil: there are no traces.
	Tracer trace.Tracer
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
	b := f.Deaf(t)
	f.Store.Listen(b)
	return b
}

// Deaf adds a replica that is told of nothing.
func (f *Fleet) Deaf(t testing.TB) *broker.Broker {
	log := f.Logger
	if log == nil {
		log = slog.New(slog.NewTextHandler(t.Output(), nil))
	}
	b := broker.New(broker.Config{
		Issuer: f.Issuer, Store: f.Store, Tenants: f.Store, Logger: log,
		ExchangeRate: cmp.Or(f.ExchangeRate, 1000), MaxStaleness: cmp.Or(f.MaxStaleness, 365*24*time.Hour),
		Observer: f.Observer, Tracer: f.Tracer,
	})
	t.Cleanup(b.Close)
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

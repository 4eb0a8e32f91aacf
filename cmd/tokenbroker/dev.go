package main

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/http"
	"sync"
	"time"

	"smokeball.internal/tokenbroker/internal/audit"
	"smokeball.internal/tokenbroker/internal/logging"
	"smokeball.internal/tokenbroker/internal/ops"
	"smokeball.internal/tokenbroker/internal/redisstore"
	"smokeball.internal/tokenbroker/internal/reload"
	"smokeball.internal/tokenbroker/internal/seal"
	"smokeball.internal/tokenbroker/internal/secret"
	"smokeball.internal/tokenbroker/internal/simulator"
	"smokeball.internal/tokenbroker/internal/smokeball"
	"smokeball.internal/tokenbroker/internal/tenant"
)

type devCommand struct {
	GRPCAddr      string        `name:"grpc-addr" default:"127.0.0.1:9090" placeholder:"HOST:PORT" help:"Address of the gRPC API, loopback only. Default ${default}."`
	OpsAddr       string        `name:"ops-addr" default:"127.0.0.1:9091" placeholder:"HOST:PORT" help:"Address for operators, loopback only. Default ${default}."`
	SimulatorAddr string        `name:"simulator-addr" default:"127.0.0.1:9092" placeholder:"HOST:PORT" help:"Address of the simulated issuer and API, loopback only. Default ${default}."`
	TokenLifetime time.Duration `name:"token-lifetime" default:"1h" placeholder:"DURATION" help:"Lifetime of the simulated issuer's tokens. Default ${default}."`
	LogLevel      slog.Level    `name:"log-level" default:"info" placeholder:"LEVEL" help:"debug, info, warn or error. Default ${default}."`
}

// devTenants are registered when dev starts. Their secrets are no secrets.
var devTenants = []tenant.Tenant{
	{ID: "acme", DisplayName: "Acme Law", Region: tenant.US, Environment: tenant.Production, ClientID: "acme-client",
		Secret: tenant.Secret{Value: secret.New("acme-secret")}, APIKey: secret.New("acme-api-key")},
	{ID: "globex", DisplayName: "Globex Legal", Region: tenant.AU, Environment: tenant.Production, ClientID: "globex-client",
		AccountID: "5d1c7e9a-3f42-4b86-9a0e-6b7d2c8f1e34", Secret: tenant.Secret{Value: secret.New("globex-secret")}, APIKey: secret.New("globex-api-key")},
}

// devClient is known to the simulated issuer, for a tenant to be registered by
// hand.
var devClient = simulator.Client{Endpoint: "uk/production", ID: "initech-client", Secrets: []string{"initech-secret"}, Scopes: devScopes, APIKey: "initech-api-key"}

// devScopes are what the simulated clients may ask for.
var devScopes = []string{"contacts/read", "contacts/write", "documents/read", "documents/write", "matters/read", "matters/write"}

// Run serves until ctx ends.
func (c *devCommand) Run(ctx context.Context, out output) error {
	level := new(slog.LevelVar)
	level.Set(c.LogLevel)
	log := logging.New(out.stderr, logging.Text, level)
	listeners, err := listenLoopback(ctx, c.GRPCAddr, c.OpsAddr, c.SimulatorAddr)
	if err != nil {
		return err
	}
	api, operators, issuer := listeners[0], listeners[1], listeners[2]

	sim := simulator.New()
	sims := &http.Server{Handler: sim, ReadHeaderTimeout: 5 * time.Second}
	var below sync.WaitGroup // what the service stands on, and outlives it
	defer below.Wait()
	defer func() { sim.Close(); _ = sims.Close() }()
	below.Go(func() {
		if err := sims.Serve(issuer); !errors.Is(err, http.ErrServerClosed) {
			log.Error("the simulated issuer has ended", "error", err)
		}
	})
	redis, err := redisstore.StartEmbedded()
	if err != nil {
		return err
	}
	defer redis.Close()
	keyset, err := seal.Ephemeral()
	if err != nil {
		return err
	}
	commands := ops.NewRedisObserver()
	store, err := redisstore.Open(redisstore.Config{URL: redis.URL(), Prefix: "tokenbroker:", Keyset: keyset, Logger: log, Observer: commands})
	if err != nil {
		return err
	}
	records, err := audit.Open(audit.Config{Sink: "none", Logger: log})
	if err != nil {
		return err
	}
	s, err := newService(serviceConfig{store: store, commands: commands, overrides: simulated(issuer.Addr()), watcher: reload.New(log), audit: records, log: log, logLevel: level, drainTimeout: 5 * time.Second, embedded: true})
	if err != nil {
		return err
	}
	for _, t := range devTenants {
		place := smokeball.Place{Region: t.Region, Environment: t.Environment}
		sim.SetClient(simulator.Client{Endpoint: place.String(), ID: t.ClientID, Secrets: []string{t.Secret.Value.Reveal()},
			Scopes: devScopes, AccountID: t.AccountID, APIKey: t.APIKey.Reveal(), ExpiresIn: c.TokenLifetime})
		if _, err := s.registry.Create(ctx, t, false); err != nil {
			return fmt.Errorf("register %s: %w", t.ID, err)
		}
	}
	newcomer := devClient
	newcomer.ExpiresIn = c.TokenLifetime
	sim.SetClient(newcomer)
	_, _ = fmt.Fprintf(out.stdout, devBanner, api.Addr(), operators.Addr(), issuer.Addr())
	return s.run(ctx, api, operators)
}

// simulated returns addresses on addr for every place, so that dev asks nobody
// else, and nobody else gets its tokens.
func simulated(addr net.Addr) smokeball.Overrides {
	overrides := smokeball.Overrides{}
	for _, region := range tenant.Regions() {
		for _, environment := range tenant.Environments() {
			place := smokeball.Place{Region: region, Environment: environment}
			at := fmt.Sprintf("http://%s/%s", addr, place)
			overrides[place] = smokeball.Addresses{TokenEndpoint: at + simulator.TokenPath, API: at + simulator.APIPath}
		}
	}
	return overrides
}

// listenLoopback listens on loopback addresses: dev takes everyone for an
// administrator.
func listenLoopback(ctx context.Context, addrs ...string) ([]net.Listener, error) {
	var listeners []net.Listener
	for _, addr := range addrs {
		l, err := new(net.ListenConfig).Listen(ctx, "tcp", addr)
		if err == nil && !l.Addr().(*net.TCPAddr).IP.IsLoopback() {
			err = fmt.Errorf("%s is not a loopback address, and dev takes everyone for an administrator", addr)
			_ = l.Close()
		}
		if err != nil {
			for _, open := range listeners {
				_ = open.Close()
			}
			return nil, err
		}
		listeners = append(listeners, l)
	}
	return listeners, nil
}

const devBanner = `tokenbroker dev: the API on %[1]s, operators on http://%[2]s, a simulated Smokeball on http://%[3]s
Tenants tenants/acme (US) and tenants/globex (AU) are registered. Nothing is kept. Ctrl-C ends it.

Get a token:
  grpcurl -plaintext -d '{"tenant": "tenants/acme"}' %[1]s tokenbroker.v1.TokenService/GetToken
See how they fare, in a browser:
  http://%[2]s/status
See a tenant, and what there is to call:
  grpcurl -plaintext -d '{"name": "tenants/globex"}' %[1]s tokenbroker.v1.TenantService/GetTenant
  grpcurl -plaintext %[1]s list
List their matters, as a service does; have Smokeball reject its tokens, and list again:
  go run ./examples/go -broker %[1]s
  curl -X DELETE http://%[3]s/control/tokens/acme-client
Break the issuer, see what callers get, and mend it:
  curl -X PUT http://%[3]s/control/faults/globex-client -d '{"kind": "status", "status": 503}'
  grpcurl -plaintext -d '{"tenant": "tenants/globex"}' %[1]s tokenbroker.v1.TokenService/GetToken
  curl -X DELETE http://%[3]s/control/faults

If grpcurl is missing: go install github.com/fullstorydev/grpcurl/cmd/grpcurl@v1.9.4

`

package main

import (
	"context"
	"log/slog"
	"net"
	"sync"
	"time"

	"golang.org/x/sync/errgroup"

	"smokeball.internal/tokenbroker/internal/access"
	"smokeball.internal/tokenbroker/internal/audit"
	"smokeball.internal/tokenbroker/internal/broker"
	"smokeball.internal/tokenbroker/internal/ops"
	"smokeball.internal/tokenbroker/internal/redisstore"
	"smokeball.internal/tokenbroker/internal/reload"
	"smokeball.internal/tokenbroker/internal/rpc"
	"smokeball.internal/tokenbroker/internal/smokeball"
	"smokeball.internal/tokenbroker/internal/statuspage"
)

// serviceConfig is where production and development differ.
type serviceConfig struct {
	store            *redisstore.Store
	overrides        smokeball.Overrides
	callers          *callers // nil: everyone is an administrator
	watcher          *reload.Watcher
	audit            *audit.Log
	log              *slog.Logger
	exchangeRate     float64       // 0: broker's default
	maxStaleness     time.Duration // 0: broker's default
	maxConnectionAge time.Duration
	drainTimeout     time.Duration
	embedded         bool // The store keeps nothing, and nobody is warned of that.
}

// service is the house put together.
type service struct {
	serviceConfig
	broker   *broker.Broker
	guard    *access.Guard
	registry *broker.Registry
	api      *rpc.Server
	ops      *ops.Server
	warnings *ops.RedisWarnings
}

func newService(c serviceConfig) (*service, error) {
	metrics, observer := ops.NewMetrics(), ops.NewBrokerObserver()
	tokens := broker.New(broker.Config{
		Issuer: smokeball.New(c.overrides), Store: c.store, Tenants: c.store, Logger: c.log,
		ExchangeRate: c.exchangeRate, MaxStaleness: c.maxStaleness, Observer: observer,
	})
	registry := broker.NewRegistry(tokens, c.store)
	metrics.MustRegister(ops.BrokerMetrics(tokens.Stats), observer, ops.HeldMetrics(tokens.Held), ops.SettingMetrics(c.watcher.Stale), ops.AuditMetrics(c.audit.Stats))
	guard, certificates := access.Unguarded(tokens), (*access.Certificates)(nil)
	if c.callers != nil {
		guard, certificates = access.NewGuard(c.callers.tokens, tokens), c.callers.certificates
	}
	api, err := rpc.NewServer(rpc.Config{
		Broker: tokens, Registry: registry, Logger: c.log, Metrics: metrics, Guard: guard, Certificates: certificates, Audit: c.audit,
		MaxConnectionAge: c.maxConnectionAge,
	})
	if err != nil {
		return nil, err
	}
	warnings := ops.NewRedisWarnings(redisstore.WarningKinds(), c.look, c.log)
	metrics.MustRegister(warnings)
	var operators *ops.Server
	page := statuspage.Config{
		Version: version, Registry: registry, Stats: tokens.Stats, Redis: pageRedis{c.store, warnings}, Audit: c.audit, Logger: c.log,
		Hindrances: func() []string { return operators.Hindrances() },
	}
	if c.callers != nil { // Else everybody would be an administrator, on this machine or not.
		page.Guard, page.Certificates = guard, certificates
	}
	operators = ops.NewServer(ops.Config{Version: version, Metrics: metrics, PingRedis: c.store.Ping, Warnings: warnings, Page: statuspage.New(page), Logger: c.log})
	return &service{c, tokens, guard, registry, api, operators, warnings}, nil
}

// look returns what the store warns of, by kind.
func (c *serviceConfig) look(ctx context.Context) (map[string]string, error) {
	found, err := c.store.Warnings(ctx)
	texts := map[string]string{}
	for _, w := range found {
		texts[w.Kind] = w.Text
	}
	return texts, err
}

// run serves on the two listeners until ctx ends or serving fails. Then it says
// that it is going, lets calls under way finish, and takes the house down from
// the front door to the cellar.
func (s *service) run(ctx context.Context, api, operators net.Listener) error {
	work, stop := context.WithCancel(context.WithoutCancel(ctx))
	tasks, failed := errgroup.WithContext(work)
	tasks.Go(func() error { return s.ops.Serve(operators) })
	tasks.Go(func() error { return s.api.Serve(api) })
	tasks.Go(func() error { s.store.Follow(failed, s.broker); return nil })
	tasks.Go(func() error { s.watcher.Run(failed); return nil })
	tasks.Go(func() error { s.attend(failed, api); return nil })
	recording, stopRecording := context.WithCancel(context.WithoutCancel(ctx))
	var recorder sync.WaitGroup // It outlives what it records.
	recorder.Go(func() { s.audit.Run(recording) })
	starting, started := context.WithCancel(failed)
	ready := make(chan struct{})
	tasks.Go(func() error { defer close(ready); s.becomeReady(starting); return nil })
	tasks.Go(func() error {
		if <-ready; !s.embedded {
			s.warnings.Watch(starting)
		}
		return nil
	})
	s.log.Info("serving", "grpc", api.Addr().String(), "ops", operators.Addr().String(), "version", version)

	select {
	case <-ctx.Done():
	case <-failed.Done():
	}
	s.log.Info("shutting down")
	started()
	<-ready // So that it does not become ready any more.
	s.ops.NotReady("shutting down")
	limit, cancel := context.WithTimeout(context.WithoutCancel(ctx), s.drainTimeout)
	defer cancel()
	s.api.Drain(limit)
	s.broker.Close()
	stop()
	s.ops.Close(limit)
	err := tasks.Wait()
	stopRecording()
	recorder.Wait()
	_ = s.store.Close()
	s.log.Info("shut down")
	return err
}

// becomeReady waits for Redis to answer once. From then on the service is ready,
// also while Redis is away: it has tokens in memory, and the issuer. If every
// replica stopped serving when Redis does, Redis would be missed by everyone.
func (s *service) becomeReady(ctx context.Context) {
	for wait := 250 * time.Millisecond; ; wait = min(2*wait, 2*time.Second) {
		ping, cancel := context.WithTimeout(ctx, time.Second)
		err := s.store.Ping(ping)
		cancel()
		if ctx.Err() != nil {
			return
		}
		if err == nil {
			s.ops.Ready()
			s.api.SetServing(true)
			return
		}
		s.log.Warn("not ready: redis does not serve", "error", err)
		select {
		case <-time.After(wait):
		case <-ctx.Done():
			return
		}
	}
}

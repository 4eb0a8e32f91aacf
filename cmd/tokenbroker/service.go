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
	"smokeball.internal/tokenbroker/internal/tracing"
)

// serviceConfig is where production and development differ.
type serviceConfig struct {
	store            *redisstore.Store
	commands         *ops.RedisObserver // of the store
	overrides        smokeball.Overrides
	callers          *callers // nil: everyone is an administrator
	watcher          *reload.Watcher
	audit            *audit.Log
	auditStrict      bool
	log              *slog.Logger
	logLevel         *slog.LevelVar
	traces           *tracing.Exporter // nil: there are none
	exchangeRate     float64           // 0: broker's default
	tokenPrice       float64           // 0: without metrics of cost
	maxStaleness     time.Duration     // 0: broker's default
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
	secrets  *ops.SecretAges
	reached  chan struct{} // closed when Redis has been reached
}

func newService(c serviceConfig) (*service, error) {
	metrics, observer := ops.NewMetrics(), ops.NewBrokerObserver()
	tokens := broker.New(broker.Config{
		Issuer: smokeball.New(c.overrides), Store: c.store, Tenants: c.store, Logger: c.log,
		ExchangeRate: c.exchangeRate, MaxStaleness: c.maxStaleness, Observer: observer, Tracer: c.traces.Tracer(),
	})
	s := &service{
		serviceConfig: c, broker: tokens, guard: access.Unguarded(tokens), registry: broker.NewRegistry(tokens, c.store),
		warnings: ops.NewRedisWarnings(redisstore.WarningKinds(), c.look, c.log), secrets: ops.NewSecretAges(c.store.SecretAges, c.log),
		reached: make(chan struct{}),
	}
	metrics.MustRegister(
		ops.BuildInfo(version), ops.BrokerMetrics(tokens.Stats), observer, ops.HeldMetrics(tokens.Held), ops.StoreMetrics(c.store.Stats), c.commands,
		ops.SettingMetrics(c.watcher.Stale), ops.AuditMetrics(c.audit.Stats), s.warnings, s.secrets,
	)
	if c.tokenPrice > 0 {
		metrics.MustRegister(ops.CostMetrics(tokens.Stats, c.tokenPrice))
	}
	var certificates *access.Certificates
	if c.callers != nil {
		s.guard, certificates = access.NewGuard(c.callers.tokens, tokens), c.callers.certificates
		metrics.MustRegister(ops.CertificateMetrics(certificates.Ends))
	}
	var err error
	s.api, err = rpc.NewServer(rpc.Config{
		Broker: tokens, Registry: s.registry, Logger: c.log, Metrics: metrics, Guard: s.guard, Certificates: certificates, Audit: c.audit,
		MaxConnectionAge: c.maxConnectionAge, Tracer: c.traces.Tracer(),
	})
	if err != nil {
		return nil, err
	}
	s.ops = ops.NewServer(ops.Config{
		Version: version, Metrics: metrics, PingRedis: c.store.Ping, Warnings: pageRedis{c.store, s.warnings}.Warnings, Page: s.page(), Logger: c.log, LogLevel: c.logLevel,
	})
	return s, nil
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
	recording, stopRecording := context.WithCancel(context.WithoutCancel(ctx))
	var recorder sync.WaitGroup // It outlives what it records.
	recorder.Go(func() { s.audit.Run(recording) })
	serving, leave := context.WithCancel(failed)                  // until the shutdown begins
	tasks.Go(func() error { s.attend(serving, api); return nil }) // It says goodbye while calls finish.
	var judges sync.WaitGroup
	judges.Go(func() { s.judgeTokens().Watch(serving) })
	judges.Go(func() { s.judgeTenants().Watch(serving) })
	later := func(watch func(context.Context)) { // Before Redis is reached there is nothing to look at.
		tasks.Go(func() error {
			select {
			case <-s.reached:
				watch(serving)
			case <-serving.Done():
			}
			return nil
		})
	}
	later(s.secrets.Watch)
	if !s.embedded {
		later(s.warnings.Watch)
	}
	s.log.Info("serving", "grpc", api.Addr().String(), "ops", operators.Addr().String(), "version", version)

	select {
	case <-ctx.Done():
	case <-failed.Done():
	}
	s.log.Info("shutting down")
	s.tellSystemd(systemdStopping)
	leave()
	judges.Wait() // So that it does not become ready any more.
	s.ops.NotReady("shutting down")
	limit, cancel := context.WithTimeout(context.WithoutCancel(ctx), s.drainTimeout)
	defer cancel()
	s.api.Drain(limit)
	s.broker.Close()
	var traces sync.WaitGroup // What was done up to now is all that there is to tell. The rest does not wait for it.
	traces.Go(func() { s.traces.Close(context.WithoutCancel(ctx)) })
	stop()
	s.ops.Close(limit)
	err := tasks.Wait()
	stopRecording()
	recorder.Wait()
	traces.Wait()
	_ = s.store.Close()
	s.log.Info("shut down")
	return err
}

package main

import (
	"context"
	"crypto/tls"
	"fmt"
	"log/slog"
	"net"
	"os/signal"
	"syscall"

	"smokeball.internal/tokenbroker/internal/audit"
	"smokeball.internal/tokenbroker/internal/config"
	"smokeball.internal/tokenbroker/internal/ops"
	"smokeball.internal/tokenbroker/internal/redisstore"
	"smokeball.internal/tokenbroker/internal/reload"
	"smokeball.internal/tokenbroker/internal/seal"
	"smokeball.internal/tokenbroker/internal/tracing"
)

type serveCommand struct {
	config.Serve `embed:""`
}

// Run serves until ctx ends.
func (c *serveCommand) Run(ctx context.Context, out output) error {
	letGarbageLie()
	log, level := c.Logger(out.stderr)
	// Before there is a secret in memory. Where it cannot be done, serving goes before.
	if err := forbidCoreDumps(); err != nil {
		log.Warn("a crash may write secrets to disk", "error", err)
	}
	signal.Ignore(syscall.SIGPIPE) // Who reads the audit log may go; the server must not.
	watcher := reload.New(log)
	keyset, err := c.watchKeyset(ctx, watcher)
	if err != nil {
		return fmt.Errorf("keyset: %w", err)
	}
	if everybody, err := seal.WorldReadable(c.KeysetFile); err == nil && everybody {
		log.Warn("every user of this machine may read the keyset file", "file", c.KeysetFile)
	}
	commands := ops.NewRedisObserver()
	store, err := openStore(&c.Redis, keyset, log, commands)
	if err != nil {
		return err
	}
	overrides, err := c.Overrides()
	if err != nil {
		return err
	}
	records, err := audit.Open(audit.Config{Sink: c.Audit, Stdout: out.stdout, Logger: log, Strict: c.AuditStrict})
	if err != nil {
		return fmt.Errorf("audit: %w", err)
	}
	var listener net.ListenConfig
	api, err := listener.Listen(ctx, "tcp", c.GRPCAddr)
	if err != nil {
		return fmt.Errorf("grpc: %w", err)
	}
	operators, err := listener.Listen(ctx, "tcp", c.OpsAddr)
	if err != nil {
		return fmt.Errorf("ops: %w", err)
	}
	traces, err := c.traces(log)
	if err != nil {
		return fmt.Errorf("traces: %w", err)
	}
	s, err := newService(serviceConfig{
		store: store, overrides: overrides, callers: c.callers(), watcher: watcher, audit: records, auditStrict: c.AuditStrict, log: log, logLevel: level, traces: traces,
		exchangeRate: c.ExchangeRate, maxStaleness: c.MaxStaleness,
		maxConnectionAge: c.MaxConnectionAge, drainTimeout: c.DrainTimeout,
		commands: commands, tokenPrice: c.TokenPrice,
	})
	if err != nil {
		return err
	}
	if err := c.watchCallers(s); err != nil {
		return err
	}
	if c.OpsTLS {
		operators = tls.NewListener(operators, s.callers.certificates.OptionalConfig())
	}
	return s.run(ctx, api, operators)
}

// traces returns what sends the spans; nil if nothing is to.
func (c *serveCommand) traces(log *slog.Logger) (*tracing.Exporter, error) {
	if c.OTLPEndpoint == "" {
		return nil, nil
	}
	authorities, err := c.OTLPAuthorities()
	if err != nil {
		return nil, err
	}
	return tracing.Start(tracing.Config{
		Endpoint: c.OTLPEndpoint, Plaintext: c.OTLPPlaintext(), Authorities: authorities, Ratio: c.TraceSample, Version: version, Logger: log,
	})
}

// openStore opens the store that the settings name. An observer may be nil.
func openStore(c *config.Redis, keyset *seal.Keyset, log *slog.Logger, observer redisstore.Observer) (*redisstore.Store, error) {
	password, err := c.RedisPassword()
	if err != nil {
		return nil, fmt.Errorf("redis password: %w", err)
	}
	sentinelPassword, err := c.RedisSentinelPassword()
	if err != nil {
		return nil, fmt.Errorf("redis sentinel password: %w", err)
	}
	return redisstore.Open(redisstore.Config{
		URL: c.RedisURL, Password: password, SentinelPassword: sentinelPassword,
		Prefix: c.RedisPrefix, Keyset: keyset, Logger: log, Observer: observer,
	})
}

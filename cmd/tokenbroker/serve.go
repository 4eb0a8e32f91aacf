package main

import (
	"context"
	"fmt"
	"log/slog"
	"net"

	"smokeball.internal/tokenbroker/internal/config"
	"smokeball.internal/tokenbroker/internal/redisstore"
	"smokeball.internal/tokenbroker/internal/seal"
)

type serveCommand struct {
	config.Serve `embed:""`
}

// Run serves until ctx ends.
func (c *serveCommand) Run(ctx context.Context, out output) error {
	log := c.Logger(out.stderr)
	// Before there is a secret in memory. Where it cannot be done, serving goes before.
	if err := forbidCoreDumps(); err != nil {
		log.Warn("a crash may write secrets to disk", "error", err)
	}
	store, err := openStore(&c.Redis, log)
	if err != nil {
		return err
	}
	tlsConfig, err := c.TLS()
	if err != nil {
		return fmt.Errorf("tls: %w", err)
	}
	overrides, err := c.Overrides()
	if err != nil {
		return err
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
	s, err := newService(serviceConfig{
		store: store, overrides: overrides, tls: tlsConfig, log: log,
		exchangeRate: c.ExchangeRate, maxStaleness: c.MaxStaleness,
		maxConnectionAge: c.MaxConnectionAge, drainTimeout: c.DrainTimeout,
	})
	if err != nil {
		return err
	}
	return s.run(ctx, api, operators)
}

// openStore opens the store that the settings name.
func openStore(c *config.Redis, log *slog.Logger) (*redisstore.Store, error) {
	keyset, err := seal.Load(c.KeysetFile)
	if err != nil {
		return nil, fmt.Errorf("keyset: %w", err)
	}
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
		Prefix: c.RedisPrefix, Keyset: keyset, Logger: log,
	})
}

package main

import (
	"context"
	"net"
	"os"
	"time"

	"smokeball.internal/tokenbroker/internal/ops"
	"smokeball.internal/tokenbroker/internal/redisstore"
	"smokeball.internal/tokenbroker/internal/statuspage"
)

// page returns the status page.
func (s *service) page() *statuspage.Page {
	c := statuspage.Config{
		Version: version, Registry: s.registry, Stats: s.broker.Stats, Redis: pageRedis{s.store, s.warnings}, Audit: s.audit, Logger: s.log,
		Hindrances: func() []string { return s.ops.Hindrances() }, // It is served by that, which is not there yet.
	}
	if s.callers != nil { // Else everybody would be an administrator, on this machine or not.
		c.Guard, c.Certificates = s.guard, s.callers.certificates
	}
	return statuspage.New(c)
}

// pageRedis is what /status shows of Redis, to people and to scripts.
type pageRedis struct {
	*redisstore.Store
	warnings *ops.RedisWarnings
}

// registryLost says on the status page what /metrics calls tokenbroker_registry_lost.
const registryLost = "The registry of tenants is gone from Redis, or is another than before. Tenants in memory are served; others are not. " +
	"Restart no replica, and register nobody: restore it with \"tokenbroker tenants import\"."

// Warnings says what is lost of it, and what is wrong with it.
func (r pageRedis) Warnings() []string {
	warnings := r.warnings.Sentences()
	if r.Store.Stats().RegistryLost {
		warnings = append([]string{registryLost}, warnings...)
	}
	return warnings
}

// Replicas returns those that were heard of.
func (r pageRedis) Replicas(ctx context.Context) ([]statuspage.Replica, int, error) {
	heard, count, err := r.Store.Replicas(ctx)
	replicas := make([]statuspage.Replica, len(heard))
	for i, h := range heard {
		replicas[i] = statuspage.Replica{Name: h.Name, Addr: h.Addr, Version: h.Version, Since: h.Since, Seen: h.Seen, Self: h.Self}
	}
	return replicas, count, err
}

// attend tells the other replicas of this one until ctx ends.
func (s *service) attend(ctx context.Context, api net.Listener) {
	host, _ := os.Hostname() // Without a name there is still the address.
	s.store.Attend(ctx, redisstore.Replica{Name: host, Addr: api.Addr().String(), Version: version, Since: time.Now()})
}

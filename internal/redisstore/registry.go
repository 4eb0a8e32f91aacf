package redisstore

import (
	"context"
	"errors"
	"fmt"

	"github.com/redis/go-redis/v9"

	"smokeball.internal/tokenbroker/internal/tenant"
)

// A registry gets a name with its first record, and keeps it. A Redis that was
// emptied, or that came back without its data, has none, or another: so a tenant
// that was lost can be told from one that was deleted.

// missing says what it means that there is no record of a tenant.
func (s *Store) missing(ctx context.Context) error {
	known := s.knownRegistry() // Before it is asked for: the first registration may come meanwhile.
	name, err := s.registryName(ctx)
	switch {
	case err != nil:
		return err
	case s.lost(known, name):
		return tenant.ErrLost
	default:
		return tenant.ErrNotFound
	}
}

// registryName returns the name of the registry; empty if it has none.
func (s *Store) registryName(ctx context.Context) (string, error) {
	name, err := s.client.Get(ctx, s.registryKey()).Result()
	if err != nil && !errors.Is(err, redis.Nil) {
		return "", fmt.Errorf("read the registry's name: %w", err)
	}
	return name, nil
}

// knownRegistry returns the name that this replica knows; empty if it knows none.
func (s *Store) knownRegistry() string {
	if known := s.registry.Load(); known != nil {
		return *known
	}
	return ""
}

// lost says whether the registry called name (empty: it has no name) is another
// than the one that this replica knows. The first it hears of is the one it knows.
// before is what it knew before it asked for the name: what had none then may have
// been begun since.
func (s *Store) lost(before, name string) bool {
	if before == "" && name == "" || name != "" && s.registry.CompareAndSwap(nil, &name) {
		return false
	}
	return s.knownRegistry() != name
}

package redisstore

import (
	"context"
	"fmt"
	"time"

	"smokeball.internal/tokenbroker/internal/token"
)

// Lease takes the lease for buying a token under k, or prolongs it if owner has
// it already, to ttl from now. There are three answers: owner has it, another
// has it, and, with an error, that Redis could not be asked. An owner is one
// attempt to buy, with a name of its own.
//
// The lease saves exchanges. Nothing depends on there being one holder only: it
// ends with ttl whether its holder is done or not.
func (s *Store) Lease(ctx context.Context, k token.Key, owner string, ttl time.Duration) (acquired bool, err error) {
	acquired, err = leaseScript.Run(ctx, s.client, []string{s.leaseKey(k)}, owner, ttl.Milliseconds()).Bool()
	if err != nil {
		return false, fmt.Errorf("take lease: %w", err)
	}
	return acquired, nil
}

// Release ends the lease if owner has it still.
func (s *Store) Release(ctx context.Context, k token.Key, owner string) error {
	if err := releaseScript.Run(ctx, s.client, []string{s.leaseKey(k)}, owner).Err(); err != nil {
		return fmt.Errorf("release lease: %w", err)
	}
	return nil
}

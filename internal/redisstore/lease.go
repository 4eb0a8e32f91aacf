package redisstore

import (
	"context"
	"crypto/rand"
	"fmt"
	"time"

	"smokeball.internal/tokenbroker/internal/token"
)

// Lease takes the lease for buying a token under k. There are three answers:
// acquired, and release gives it back; held by another (nil, false, nil); and
// not to be known (an error), when Redis could not be asked.
//
// The lease saves exchanges. Nothing depends on there being one holder only: it
// ends with ttl whether its holder is done or not.
func (s *Store) Lease(ctx context.Context, k token.Key, ttl time.Duration) (release func(context.Context), acquired bool, err error) {
	key, owner := s.leaseKey(k), rand.Text()
	acquired, err = leaseScript.Run(ctx, s.client, []string{key}, owner, ttl.Milliseconds()).Bool()
	if err != nil {
		return nil, false, fmt.Errorf("take lease: %w", err)
	}
	if !acquired {
		return nil, false, nil
	}
	return func(ctx context.Context) {
		if err := releaseScript.Run(ctx, s.client, []string{key}, owner).Err(); err != nil {
			s.log.WarnContext(ctx, "lease not released, it ends by itself", "key", key, "error", err)
		}
	}, true, nil
}

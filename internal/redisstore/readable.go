package redisstore

import (
	"context"
	"fmt"
)

// How many records Readable tries: enough that a few that are damaged are not
// taken for all.
const readableSample = 10

// Readable tries the records of the first ten tenants, and says how many there were
// and how many of them the keyset opens. If it opens none, it is not the one that
// the fleet seals with.
func (s *Store) Readable(ctx context.Context) (tried, readable int, err error) {
	ids, _, err := s.page(ctx, s.indexKey(), "", readableSample)
	if err != nil || len(ids) == 0 {
		return 0, 0, err
	}
	records, err := s.client.HMGet(ctx, s.recordsKey(), ids...).Result()
	if err != nil {
		return 0, 0, fmt.Errorf("try records of tenants: %w", err)
	}
	for i, id := range ids {
		record, ok := records[i].(string)
		if !ok {
			continue // Deleted between the two reads.
		}
		tried++
		if _, err := s.openTenant(id, record); err == nil {
			readable++
		}
	}
	return tried, readable, nil
}

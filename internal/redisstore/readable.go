package redisstore

import (
	"context"
	"fmt"
	"slices"

	"github.com/redis/go-redis/v9"
)

const (
	// How many records Readable tries: enough that a few that are damaged are not
	// taken for all.
	readableSample = 10
	// In how many places of the index it tries as many again.
	readablePlaces = 10
)

// Readable tries the records of the first ten tenants, and says how many there were
// and how many of them the keyset opens. If it opens none of them, others are tried
// from all over the registry: somebody may have put ids into Redis that come first. If
// it opens none at all, it is not the one that the fleet seals with.
func (s *Store) Readable(ctx context.Context) (tried, readable int, err error) {
	first, next, err := s.page(ctx, s.indexKey(), "", readableSample)
	if err != nil {
		return 0, 0, err
	}
	tried, readable, err = s.tryRecords(ctx, first)
	if err != nil || readable > 0 || next == "" {
		return tried, readable, err
	}
	others, err := s.spread(ctx, next)
	if err != nil {
		return 0, 0, err
	}
	more, readable, err := s.tryRecords(ctx, others)
	return tried + more, readable, err
}

// spread returns ids from all over the index, behind after.
func (s *Store) spread(ctx context.Context, after string) ([]string, error) {
	n, err := s.CountTenants(ctx)
	if err != nil {
		return nil, err
	}
	pipe := s.client.Pipeline()
	var pages []*redis.StringSliceCmd
	for place := range readablePlaces {
		offset := max(0, place*(n-readableSample)/readablePlaces)
		pages = append(pages, pipe.ZRangeByLex(ctx, s.indexKey(), &redis.ZRangeBy{Min: "(" + after, Max: "+", Offset: int64(offset), Count: readableSample}))
	}
	if _, err := pipe.Exec(ctx); err != nil {
		return nil, fmt.Errorf("try records of tenants: %w", err)
	}
	var ids []string
	for _, page := range pages {
		ids = append(ids, page.Val()...)
	}
	slices.Sort(ids)
	return slices.Compact(ids), nil
}

// tryRecords says how many of these tenants have a record, and how many of those
// open.
func (s *Store) tryRecords(ctx context.Context, ids []string) (tried, readable int, err error) {
	if len(ids) == 0 {
		return 0, 0, nil
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

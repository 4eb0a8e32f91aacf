package redisstore

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"math"
	"slices"
	"strconv"
	"time"

	"github.com/redis/go-redis/v9"

	"smokeball.internal/tokenbroker/internal/tenant"
)

// How many places in an index are read or written with one command: Redis answers
// others in between.
const placesPage = 500

// places is where a tenant stands in the indexes.
type places struct {
	warm bool
	// secret is the score in the index of secrets: since when the tenant has its
	// secret, Unix time in seconds; "inf" if it is disabled. So every tenant has one,
	// and to count shows whether the index is complete.
	secret string
}

func placesOf(t *tenant.Tenant) places {
	p := places{warm: t.KeepWarm, secret: "inf"}
	if !t.Disabled {
		p.secret = strconv.FormatInt(t.SecretSince().Unix(), 10)
	}
	return p
}

// SecretAges says how old the client secrets are by this machine's clock: how many
// there are, how many are no older than each of ages, and which are the oldest, up
// to a number. It reads an index, which is not sealed, and opens no record.
//
// Where brokers from before that index have written, it lacks places, or has some of
// tenants that were deleted. A call that finds as much, by the number of tenants and
// of places, puts it right. It does not look for what does not change the numbers:
// who removes the index has it made anew.
//
// The error is tenant.ErrLost, or says that Redis could not be asked.
func (s *Store) SecretAges(ctx context.Context, ages []time.Duration, oldest int) (tenant.SecretAges, error) {
	found, missing, err := s.readSecretAges(ctx, ages, oldest)
	if err != nil || missing == s.unplaced.Load() {
		return found, err
	}
	unplaced, err := s.placeSecrets(ctx)
	if err != nil {
		return tenant.SecretAges{}, fmt.Errorf("complete the index of secrets: %w", err)
	}
	s.unplaced.Store(unplaced)
	found, _, err = s.readSecretAges(ctx, ages, oldest)
	return found, err
}

// readSecretAges reads the index as it is, and how many more tenants there are than
// places in it. The commands are sent together, and Redis has no reason to do others'
// between them; if it does, the index is looked through once for nothing.
func (s *Store) readSecretAges(ctx context.Context, ages []time.Duration, oldest int) (found tenant.SecretAges, missing int64, err error) {
	known := s.knownRegistry()
	pipe := s.client.Pipeline()
	name := pipe.Get(ctx, s.registryKey())
	tenants, placed := pipe.ZCard(ctx, s.indexKey()), pipe.ZCard(ctx, s.secretsKey())
	first := pipe.ZRangeWithScores(ctx, s.secretsKey(), 0, int64(oldest)-1)
	since := func(when string) *redis.IntCmd { return pipe.ZCount(ctx, s.secretsKey(), when, "(inf") }
	all, within, now := since("-inf"), []*redis.IntCmd{}, time.Now()
	for _, age := range ages {
		within = append(within, since(strconv.FormatInt(now.Add(-age).Unix(), 10)))
	}
	if _, err := pipe.Exec(ctx); err != nil && !errors.Is(err, redis.Nil) {
		return found, 0, fmt.Errorf("read the ages of secrets: %w", err)
	}
	if s.lost(known, name.Val()) {
		return found, 0, tenant.ErrLost
	}
	found.Count = uint64(all.Val())
	for _, n := range within {
		found.Within = append(found.Within, uint64(n.Val()))
	}
	for _, z := range first.Val() {
		if id, ok := z.Member.(string); ok && tenantID.MatchString(id) && !math.IsInf(z.Score, 1) {
			found.Oldest = append(found.Oldest, tenant.SecretAge{Tenant: id, Since: time.Unix(int64(z.Score), 0).UTC()})
		}
	}
	return found, tenants.Val() - placed.Val(), nil
}

// placeSecrets gives tenants that lack it a place in the index of secrets, takes
// those of who is none, and returns by how many places fewer than tenants there are
// then: it cannot place those whose records do not open, and leaves those whose ids are
// not in the index of all. It opens the records of those who lack a place alone, and keeps the ids of all in memory.
func (s *Store) placeSecrets(ctx context.Context) (unplaced int64, err error) {
	there, err := s.placedSecrets(ctx)
	if err != nil {
		return 0, err
	}
	for after, more := "", true; more; more = after != "" {
		var page, lacking []string
		if page, after, err = s.page(ctx, s.indexKey(), after, placesPage); err != nil {
			return 0, err
		}
		for _, id := range page {
			if !there[id] {
				lacking = append(lacking, id)
			}
			delete(there, id)
		}
		n, err := s.placeTenants(ctx, lacking)
		if err != nil {
			return 0, err
		}
		unplaced += n
	}
	for page := range slices.Chunk(slices.Collect(maps.Keys(there)), placesPage) {
		var args []any
		for _, id := range page {
			args = append(args, id, "", "")
		}
		done, err := s.place(ctx, args)
		if err != nil {
			return 0, err
		}
		unplaced -= int64(len(page)) - done
	}
	return unplaced, nil
}

// placedSecrets returns who has a place in the index of secrets. Who gets or changes
// it meanwhile may be missing.
func (s *Store) placedSecrets(ctx context.Context) (map[string]bool, error) {
	there := map[string]bool{}
	for from := int64(0); ; from += placesPage {
		page, err := s.client.ZRange(ctx, s.secretsKey(), from, from+placesPage-1).Result()
		if err != nil {
			return nil, err
		}
		for _, id := range page {
			there[id] = true
		}
		if len(page) < placesPage {
			return there, nil
		}
	}
}

// placeTenants gives tenants their places in the index of secrets, and returns how
// many it cannot.
func (s *Store) placeTenants(ctx context.Context, ids []string) (unplaced int64, err error) {
	if len(ids) == 0 {
		return 0, nil
	}
	records, err := s.client.HMGet(ctx, s.recordsKey(), ids...).Result()
	if err != nil {
		return 0, err
	}
	var args []any
	for i, id := range ids {
		record, _ := records[i].(string)
		_, places, err := s.unseal(s.prefix, id, record)
		if err != nil {
			unplaced++
			continue
		}
		etag, _ := splitEtag(record)
		args = append(args, id, etag, places.secret)
	}
	_, err = s.place(ctx, args)
	return unplaced, err
}

// place runs place.lua, and returns of how many tenants the record was as it was read.
func (s *Store) place(ctx context.Context, args []any) (int64, error) {
	if len(args) == 0 {
		return 0, nil
	}
	return placeScript.Run(ctx, s.client, []string{s.recordsKey(), s.secretsKey()}, args...).Int64()
}

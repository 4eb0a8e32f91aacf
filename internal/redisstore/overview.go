package redisstore

import (
	"context"
	"fmt"
	"strconv"
	"strings"
	"time"

	"github.com/redis/go-redis/v9"

	"smokeball.internal/tokenbroker/internal/tenant"
	"smokeball.internal/tokenbroker/internal/token"
)

// How many ids are looked at together where tenants are searched: Redis does
// nothing else for about a millisecond.
const searchStep = 5000

// FindTenants is ListTenants for those whose ids have part in them. It looks at
// ids until it has found enough, if need be at all of them.
func (s *Store) FindTenants(ctx context.Context, part, after string, limit int) (tenants []*tenant.Tenant, next string, err error) {
	var found []string
	for more := true; more && len(found) <= limit; {
		ids, behind, err := s.page(ctx, s.indexKey(), after, searchStep)
		if err != nil {
			return nil, "", err
		}
		for _, id := range ids {
			if strings.Contains(id, part) {
				found = append(found, id)
			}
		}
		after, more = behind, behind != ""
	}
	if len(found) > limit {
		found = found[:limit]
		next = found[limit-1]
	}
	tenants, err = s.named(ctx, found)
	return tenants, next, err
}

// CountTenants returns how many tenants there are.
func (s *Store) CountTenants(ctx context.Context) (int, error) {
	n, err := s.client.ZCard(ctx, s.indexKey()).Result()
	if err != nil {
		return 0, fmt.Errorf("count tenants: %w", err)
	}
	return int(n), nil
}

// LoadAll returns what is kept under each of the keys, as Load does, in one round
// trip, or two if Redis does not know the script yet; in a cluster, to each node.
func (s *Store) LoadAll(ctx context.Context, keys []token.Key) ([]token.Kept, error) {
	asked := time.Now()
	replies, err := s.overviews(ctx, keys, overviewScript.EvalSha)
	if redis.HasErrorPrefix(err, "NOSCRIPT") {
		asked = time.Now()
		replies, err = s.overviews(ctx, keys, overviewScript.Eval)
	}
	if err != nil {
		return nil, fmt.Errorf("load tokens: %w", err)
	}
	all := make([]token.Kept, len(keys))
	for i, reply := range replies {
		kept, err := reply.Slice()
		if err != nil || len(kept) != 6 {
			return nil, fmt.Errorf("load tokens: %w", err)
		}
		all[i].Token, all[i].Failure = s.openKept(ctx, keys[i], kept, asked)
		all[i].History = history(kept[5])
	}
	return all, nil
}

// overviews has overview.lua run for each key.
func (s *Store) overviews(ctx context.Context, keys []token.Key, run func(context.Context, redis.Scripter, []string, ...any) *redis.Cmd) ([]*redis.Cmd, error) {
	if len(keys) == 0 {
		return nil, nil
	}
	pipe := s.client.Pipeline()
	replies := make([]*redis.Cmd, len(keys))
	for i, k := range keys {
		replies[i] = run(ctx, pipe, []string{s.tokenKey(k), s.failureKey(k), s.exchangesKey(k)}, token.HistoryHours)
	}
	_, err := pipe.Exec(ctx)
	return replies, err
}

// history reads what overview.lua returns of the hours. What is no count, or one that
// nobody can have come to, is left out.
func history(counts any) (h token.History) {
	const most = 1_000_000
	values, _ := counts.([]any)
	if len(values) != 2*len(h) {
		return h
	}
	count := func(value any) int {
		text, _ := value.(string)
		n, err := strconv.Atoi(text)
		if err != nil || n < 0 || n > most {
			return 0
		}
		return n
	}
	for i := range h {
		h[i] = token.Exchanges{OK: count(values[2*i]), Failed: count(values[2*i+1])}
	}
	return h
}

package redisstore

import (
	"context"
	"errors"
	"fmt"
	"regexp"
	"slices"
	"strings"
	"sync"

	"github.com/redis/go-redis/v9"
)

// sealedTenants are the records of the registry.
type sealedTenants struct{ *Store }

func (t sealedTenants) title(id string) string { return "tenants/" + id }

func (t sealedTenants) read(ctx context.Context, ids []string) (map[string]string, error) {
	found, err := t.client.HMGet(ctx, t.recordsKey(), ids...).Result()
	if err != nil {
		return nil, err
	}
	records := map[string]string{}
	for i, id := range ids {
		if record, ok := found[i].(string); ok {
			records[id] = record
		}
	}
	return records, nil
}

func (t sealedTenants) open(id, record string) (unsealed, error) {
	plain, _, err := t.unseal(t.prefix, id, record)
	etag, sealed := splitEtag(record)
	return unsealed{t.tenantName(id), etag + ".", sealed, plain}, err
}

func (t sealedTenants) replace(ctx context.Context, all []resealing) ([]bool, error) {
	return t.run(ctx, t.client, all)
}

func (t sealedTenants) run(ctx context.Context, conn redis.Scripter, all []resealing) ([]bool, error) {
	var args []any
	for _, r := range all {
		args = append(args, r.name, r.was, r.anew)
	}
	done, err := resealTenantsScript.Run(ctx, conn, []string{t.recordsKey(), t.registryKey()}, args...).BoolSlice()
	if err == nil && len(done) != len(all) {
		err = fmt.Errorf("%d answers for %d tenants", len(done), len(all))
	}
	return done, reduce(err)
}

// sealedTokens are tokens and failures. Each is on a server of its own, in a
// cluster.
type sealedTokens struct{ *Store }

func (t sealedTokens) title(key string) string { return key }

func (t sealedTokens) read(ctx context.Context, keys []string) (map[string]string, error) {
	pipe := t.client.Pipeline()
	var found []*redis.StringCmd
	for _, key := range keys {
		found = append(found, pipe.Get(ctx, key))
	}
	if _, err := pipe.Exec(ctx); err != nil && !errors.Is(err, redis.Nil) {
		return nil, err
	}
	records := map[string]string{}
	for i, key := range keys {
		switch record, err := found[i].Result(); {
		case err == nil:
			records[key] = record
		case !errors.Is(err, redis.Nil):
			return nil, err
		}
	}
	return records, nil
}

func (t sealedTokens) open(key, record string) (unsealed, error) {
	if strings.HasPrefix(key, t.prefix+"fail:") {
		f, plain, err := t.unsealFailure(key, record)
		if err == nil && t.failureKey(f.Key) != key {
			err = errMismatch
		}
		return unsealed{key, "", record, plain}, err
	}
	header, sealed, _ := cutTwo(record)
	r, plain, err := t.unsealToken(key, record)
	if err == nil && t.tokenKey(r.Key) != key {
		err = errMismatch
	}
	return unsealed{key, header + ".", sealed, plain}, err
}

func (t sealedTokens) replace(ctx context.Context, all []resealing) ([]bool, error) {
	pipe := t.client.Pipeline()
	var answers []*redis.Cmd
	for _, r := range all {
		answers = append(answers, resealScript.Eval(ctx, pipe, []string{r.name}, r.was, r.anew))
	}
	if _, err := pipe.Exec(ctx); err != nil {
		return nil, err
	}
	var done []bool
	for _, answer := range answers {
		ok, err := answer.Bool()
		if err != nil {
			return nil, err
		}
		done = append(done, ok)
	}
	return done, nil
}

// expiringKey is the form of the keys of tokens and failures behind the prefix.
var expiringKey = regexp.MustCompile(`^(token|fail):\{[0-9a-f]{64}\}$`)

// expiringKeys returns the keys of all tokens and failures, in order. A scan can
// return a key more than once, and returns all that are there from its begin to
// its end.
func (s *Store) expiringKeys(ctx context.Context) ([]string, error) {
	var mu sync.Mutex
	var keys []string
	scan := func(ctx context.Context, server redis.Cmdable) error {
		for cursor := uint64(0); ; {
			page, next, err := server.ScanType(ctx, cursor, escapeGlob(s.prefix)+"*", scanPage, "string").Result()
			if err != nil {
				return reduce(err)
			}
			mu.Lock()
			for _, key := range page {
				if name, ok := strings.CutPrefix(key, s.prefix); ok && expiringKey.MatchString(name) {
					keys = append(keys, key)
				}
			}
			mu.Unlock()
			if cursor = next; cursor == 0 {
				return nil
			}
		}
	}
	var err error
	if nodes, ok := s.client.(*redis.ClusterClient); ok {
		err = nodes.ForEachMaster(ctx, func(ctx context.Context, node *redis.Client) error { return scan(ctx, node) })
	} else {
		err = scan(ctx, s.client)
	}
	slices.Sort(keys)
	return slices.Compact(keys), err
}

// How many keys Redis looks at with one command, and answers others in between.
const scanPage = 1000

// escapeGlob returns a pattern that means a text and nothing else.
func escapeGlob(text string) string { return globSigns.ReplaceAllString(text, `\$0`) }

var globSigns = regexp.MustCompile(`[*?\[\]\\]`)

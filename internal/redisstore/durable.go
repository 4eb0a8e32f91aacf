package redisstore

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/redis/go-redis/v9"
)

const (
	// How long a change may take to be on disk. With appendfsync everysec it is a
	// second; a disk that takes longer than this is one to look at.
	diskTimeout = 3 * time.Second
	// How many changes of a replica wait for the disk at a time. Each holds a
	// connection, and those who need tokens must find one.
	maxSwaps = 8
	// How often a change is tried. The second time has a new connection, and in a
	// cluster knows the primary anew.
	swapTries = 2
)

// errNotOnDisk says that a change was made, and is seen by everyone, but may be
// gone after a crash of Redis.
var errNotOnDisk = errors.New("the change was made, but is not known to be on disk")

// runSwap runs the swap script and returns the version that is stored then. If
// that is etag, the change is on the disk of the server that made it, where the
// server can say so: with an AOF, and WAITAOF (Redis 7.2, Valkey). Others have
// made it and promise nothing, see docs/redis.md.
func (s *Store) runSwap(ctx context.Context, etag string, args ...any) (stored string, err error) {
	select {
	case s.swaps <- struct{}{}:
		defer func() { <-s.swaps }()
	case <-ctx.Done():
		return "", ctx.Err()
	}
	var made error // What is to be said if a try has made the change, and another fails.
	for try := 1; ; try++ {
		stored, again, err := s.swapOnce(ctx, etag, args)
		if err == nil && (stored == etag || made == nil) {
			return stored, nil
		}
		if err == nil {
			return "", made // Somebody else has changed it since.
		}
		if made == nil && errors.Is(err, errNotOnDisk) {
			made = err
		}
		if !again || try == swapTries || ctx.Err() != nil {
			if made != nil {
				err = made
			}
			return "", err
		}
		if nodes, ok := s.client.(*redis.ClusterClient); ok {
			// For its side effect: this has the nodes asked now who is who.
			_ = nodes.ForEachMaster(ctx, func(context.Context, *redis.Client) error { return nil })
		}
	}
}

// swapOnce runs the script once. A command that is repeated, since its answer was
// lost, writes again what is there already, and so has something to wait for.
func (s *Store) swapOnce(ctx context.Context, etag string, args []any) (stored string, again bool, err error) {
	again, err = s.onPrimary(ctx, func(conn *redis.Conn) (wrote bool, err error) {
		stored, err = swapScript.Run(ctx, conn, s.registryKeys(), args...).Text()
		return stored == etag, err
	})
	return stored, again, err
}

// onPrimary has something written to the server that has the registry, and waits
// for its disk on the same connection: what a connection waits for is what it has
// written itself. again says whether an error is one that another try may not meet.
func (s *Store) onPrimary(ctx context.Context, write func(*redis.Conn) (wrote bool, err error)) (again bool, err error) {
	primary, err := s.registryPrimary(ctx)
	if err != nil {
		return true, reduce(err)
	}
	conn := primary.Conn()
	defer func() { _ = conn.Close() }()
	wrote, err := write(conn)
	switch {
	case err != nil:
		return true, reduce(err)
	case wrote:
		return awaitDisk(ctx, conn)
	default:
		return false, nil
	}
}

// durably has something written to the server that has the registry, and waits
// for its disk. It writes again if an answer was lost.
func (s *Store) durably(ctx context.Context, write func(*redis.Conn) error) error {
	for try := 1; ; try++ {
		again, err := s.onPrimary(ctx, func(conn *redis.Conn) (bool, error) { return true, write(conn) })
		if err == nil || !again || try == swapTries || ctx.Err() != nil {
			return err
		}
	}
}

// awaitDisk waits until what conn has written is on the disk of its server, where
// the server can say so. lost says that an error is not what the server says.
func awaitDisk(ctx context.Context, conn *redis.Conn) (lost bool, err error) {
	// The client's own timeout for this is ten seconds longer.
	limited, cancel := context.WithTimeout(ctx, diskTimeout+commandTimeout)
	defer cancel()
	synced, err := conn.WaitAOF(limited, 1, 0, diskTimeout).Result()
	switch err = reduce(err); {
	case err == nil && len(synced) > 0 && synced[0] > 0, refused(err):
		return false, nil
	case err == nil:
		return false, fmt.Errorf("%w within %v", errNotOnDisk, diskTimeout)
	default:
		return true, fmt.Errorf("%w: %w", errNotOnDisk, err)
	}
}

// registryPrimary returns a client for the server that has the registry. Its
// errors are not reduced.
func (s *Store) registryPrimary(ctx context.Context) (*redis.Client, error) {
	switch client := s.client.(type) {
	case *redis.Client:
		return client, nil
	case *redis.ClusterClient:
		return client.MasterForKey(ctx, s.recordsKey())
	default:
		return nil, fmt.Errorf("no primary of a %T", client)
	}
}

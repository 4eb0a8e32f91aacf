package redisstore_test

import (
	"context"
	"sync"
	"testing"

	"smokeball.internal/tokenbroker/internal/broker/brokertest"
)

func TestTheStoreInRedisIsOneToRelyOn(t *testing.T) {
	brokertest.TestStore(t, func(t *testing.T, test func(*testing.T, brokertest.Shared)) {
		onBoth(t, func(t *testing.T, f *fixture) {
			test(t, brokertest.Shared{One: f.Store, Two: f.open(t, f.keyset), Listen: func(l brokertest.Listener) {
				ctx, cancel := context.WithCancel(context.Background())
				var following sync.WaitGroup
				following.Go(func() { f.Follow(ctx, l) })
				t.Cleanup(func() { cancel(); following.Wait() })
			}})
		})
	})
}

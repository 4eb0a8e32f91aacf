package redisstore

import (
	"context"
	"time"

	"github.com/alicebob/miniredis/v2"
)

// RunEmbedded serves a Redis-compatible store from this process's memory, on a
// loopback port, until ctx ends; then it calls done. It is for development:
// what it holds is gone with the process.
func RunEmbedded(ctx context.Context, done func()) (url string, err error) {
	m := miniredis.NewMiniRedis()
	if err := m.Start(); err != nil {
		return "", err
	}
	go func() {
		defer done()
		defer m.Close()
		// miniredis does not let time pass by itself.
		const step = 50 * time.Millisecond
		ticker := time.NewTicker(step)
		defer ticker.Stop()
		for last := time.Now(); ; {
			select {
			case now := <-ticker.C:
				m.FastForward(now.Sub(last))
				last = now
			case <-ctx.Done():
				return
			}
		}
	}()
	return "redis://" + m.Addr(), nil
}

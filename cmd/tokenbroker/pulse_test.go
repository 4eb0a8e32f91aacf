package main_test

import (
	"context"
	"slices"
	"sync"
	"time"

	"google.golang.org/grpc"
	healthpb "google.golang.org/grpc/health/grpc_health_v1"
)

const (
	// How often a pulse is felt.
	pulsePause = 20 * time.Millisecond
	// A replica that says nothing for so long is not being run.
	silence = 100 * time.Millisecond
)

// pulse is the signs of life of a replica, which it gives whatever it waits for:
// when there are none, the machine has something else to do. A call that takes
// long while there are some is waiting for something.
type pulse struct {
	mu       sync.Mutex
	last     time.Time // the last sign
	silences []span
}

type span struct{ from, to time.Time }

// beat asks for signs of life until ctx ends.
func (p *pulse) beat(ctx context.Context, conn *grpc.ClientConn) {
	for ctx.Err() == nil {
		// An error is a sign too: a replica that is gone keeps nobody waiting.
		_, _ = healthpb.NewHealthClient(conn).Check(ctx, &healthpb.HealthCheckRequest{})
		p.sign(time.Now())
		select {
		case <-time.After(pulsePause):
		case <-ctx.Done():
		}
	}
}

func (p *pulse) sign(now time.Time) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if now.Sub(p.last) > silence {
		p.silences = append(p.silences, span{p.last, now})
	}
	p.last = now
}

// silentDuring returns for how much of a time there was no sign of life.
func (p *pulse) silentDuring(from, to time.Time) time.Duration {
	p.mu.Lock()
	defer p.mu.Unlock()
	silent := time.Duration(0)
	silences := p.silences
	if now := time.Now(); now.Sub(p.last) > silence {
		silences = slices.Concat(silences, []span{{p.last, now}}) // And still is.
	}
	for _, s := range silences {
		begin, end := s.from, s.to
		if begin.Before(from) {
			begin = from
		}
		if end.After(to) {
			end = to
		}
		silent += max(0, end.Sub(begin))
	}
	return silent
}

// longest returns the longest time without a sign of life.
func (p *pulse) longest() time.Duration {
	p.mu.Lock()
	defer p.mu.Unlock()
	longest := time.Duration(0)
	for _, s := range p.silences {
		longest = max(longest, s.to.Sub(s.from))
	}
	return longest
}

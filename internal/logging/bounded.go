package logging

import (
	"context"
	"log/slog"
	"sync"
	"sync/atomic"

	"golang.org/x/time/rate"
)

const (
	// Of each kind of record, as many as this are written at once, and then so many a
	// second. The longest are some 500 bytes, which makes 25 kB a second.
	burst     = 500
	perSecond = 50
	// Messages are constant and there are some hundred of them (sloglint sees to it).
	// What libraries say is not, and shares a bucket if there are more.
	maxKinds = 1000
)

// kind is what records have in common that may be left out for one another.
type kind struct {
	level   slog.Level
	message string
}

// bucket is how many records of a kind may be written, and were not.
type bucket struct {
	some    *rate.Limiter
	leftOut atomic.Int64
}

type buckets struct {
	mu sync.Mutex
	of map[kind]*bucket
}

func (all *buckets) get(k kind) *bucket {
	all.mu.Lock()
	defer all.mu.Unlock()
	b, ok := all.of[k]
	if !ok && len(all.of) >= maxKinds {
		k = kind{level: k.level}
		b, ok = all.of[k]
	}
	if !ok {
		b = &bucket{some: rate.NewLimiter(perSecond, burst)}
		all.of[k] = b
	}
	return b
}

// bounded leaves out records where there are too many of a kind.
type bounded struct {
	slog.Handler
	buckets *buckets
}

// Handle implements slog.Handler.
func (h bounded) Handle(ctx context.Context, r slog.Record) error {
	b := h.buckets.get(kind{r.Level, r.Message})
	if !b.some.Allow() {
		b.leftOut.Add(1)
		return nil
	}
	if n := b.leftOut.Swap(0); n > 0 {
		r = r.Clone()
		r.AddAttrs(slog.Int64("left_out", n))
	}
	return h.Handler.Handle(ctx, r)
}

// WithAttrs implements slog.Handler.
func (h bounded) WithAttrs(attrs []slog.Attr) slog.Handler {
	return bounded{h.Handler.WithAttrs(attrs), h.buckets}
}

// WithGroup implements slog.Handler.
func (h bounded) WithGroup(name string) slog.Handler {
	return bounded{h.Handler.WithGroup(name), h.buckets}
}

package ops

import (
	"context"
	"log/slog"
	"maps"
	"slices"
	"sync/atomic"
	"time"

	"github.com/prometheus/client_golang/prometheus"
)

const (
	// How often Redis is looked at: its settings change when somebody changes them.
	lookEvery = time.Minute
	// How long a look may take.
	lookTimeout = 5 * time.Second
)

var warningsDesc = prometheus.NewDesc("tokenbroker_redis_warnings",
	"Whether Redis is set so, or in such a state, that what is stored may be lost: 1 for what /status and the log say in words.", []string{"kind"}, nil)

// Look returns what is wrong with Redis: sentences by their kinds. An error means
// that it is not known.
type Look func(context.Context) (map[string]string, error)

// RedisWarnings is what was wrong with Redis when it was last looked at; nothing,
// before it was. It is safe for concurrent use.
type RedisWarnings struct {
	kinds []string
	look  Look
	log   *slog.Logger
	texts atomic.Pointer[map[string]string]
}

// NewRedisWarnings returns warnings of the kinds that there are.
func NewRedisWarnings(kinds []string, look Look, log *slog.Logger) *RedisWarnings {
	w := &RedisWarnings{kinds: kinds, look: look, log: log}
	w.texts.Store(&map[string]string{})
	return w
}

// Watch looks at Redis now and every minute, until ctx ends. A warning is logged
// when it appears and when it is gone. While Redis does not answer, what was seen
// last stays.
func (w *RedisWarnings) Watch(ctx context.Context) {
	ticker := time.NewTicker(lookEvery)
	defer ticker.Stop()
	for {
		w.lookOnce(ctx)
		select {
		case <-ticker.C:
		case <-ctx.Done():
			return
		}
	}
}

func (w *RedisWarnings) lookOnce(ctx context.Context) {
	ctx, cancel := context.WithTimeout(ctx, lookTimeout)
	defer cancel()
	now, err := w.look(ctx)
	if err != nil {
		w.log.DebugContext(ctx, "redis was not looked at", "error", err)
		return
	}
	before := *w.texts.Swap(&now)
	for _, kind := range w.kinds {
		text, is := now[kind]
		_, was := before[kind]
		switch {
		case is && !was:
			w.log.WarnContext(ctx, "redis may lose what is stored", "kind", kind, "warning", text)
		case was && !is:
			w.log.InfoContext(ctx, "redis is not seen to lose what is stored any more", "kind", kind)
		}
	}
}

// Sentences returns the warnings in the order of their kinds.
func (w *RedisWarnings) Sentences() []string {
	texts := *w.texts.Load()
	var sentences []string
	for _, kind := range slices.Sorted(maps.Keys(texts)) {
		sentences = append(sentences, texts[kind])
	}
	return sentences
}

// Describe sends the description of the metric.
func (w *RedisWarnings) Describe(ch chan<- *prometheus.Desc) { ch <- warningsDesc }

// Collect sends the metric, of every kind there is.
func (w *RedisWarnings) Collect(ch chan<- prometheus.Metric) {
	texts := *w.texts.Load()
	for _, kind := range w.kinds {
		_, is := texts[kind]
		ch <- prometheus.MustNewConstMetric(warningsDesc, prometheus.GaugeValue, truth(is), kind)
	}
}

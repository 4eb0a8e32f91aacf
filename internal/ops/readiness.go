package ops

import (
	"context"
	"log/slog"
	"slices"
	"strings"
	"time"
)

const (
	// How often conditions are looked at.
	judgeEvery = time.Second
	// How long one look at one condition may take.
	judgeTimeout = time.Second
	// How long a condition of Always has to fail before it counts: a queue that is
	// full for a moment is not worth a replica's callers.
	judgePatience = 5 * time.Second
)

// Condition says why calls cannot be answered, as far as it is concerned: a sentence
// for everybody to read, and what is behind it, for the log. An empty sentence: they
// can.
type Condition func(context.Context) (why string, behind error)

// Readiness finds out whether calls can be answered.
//
// What befalls all replicas at once, and leaves them with tokens to hand out, is no
// condition of Always: a balancer would take all of them away from their callers.
type Readiness struct {
	// Once are conditions of starting. Each is looked at until it has held once.
	Once []Condition
	// Always are conditions that have to hold from then on, but for moments.
	Always []Condition
	// Change is told at first, and when it has changed, why calls cannot be answered;
	// empty: they can.
	Change func(why string)
	// Logger gets a record of each change.
	Logger *slog.Logger
}

// Watch looks at the conditions, now and every second, until ctx ends.
func (r Readiness) Watch(ctx context.Context) {
	ticker := time.NewTicker(judgeEvery)
	defer ticker.Stop()
	once, since := r.Once, make([]time.Time, len(r.Always)) // when a condition began to fail; zero: it holds
	for before, first := "", true; ; first = false {
		var reasons []string
		var behind error
		note := func(why string, err error) {
			if !slices.Contains(reasons, why) { // What has to hold always may be a condition of starting, too.
				reasons = append(reasons, why)
			}
			if behind == nil {
				behind = err
			}
		}
		for len(once) > 0 {
			why, err := look(ctx, once[0])
			if why != "" {
				note(why, err)
				break // The next may be for want of this.
			}
			once = once[1:]
		}
		for i, condition := range r.Always {
			why, err := look(ctx, condition)
			switch {
			case why == "":
				since[i] = time.Time{}
				continue
			case since[i].IsZero():
				since[i] = time.Now()
			}
			if len(once) > 0 || first || time.Since(since[i]) >= judgePatience {
				note(why, err)
			}
		}
		if ctx.Err() != nil {
			return
		}
		why := strings.Join(reasons, "; ")
		if first || why != before {
			r.Change(why)
			switch {
			case why == "":
				r.Logger.InfoContext(ctx, "ready")
			case behind == nil:
				r.Logger.WarnContext(ctx, "not ready", "because", why)
			default:
				r.Logger.WarnContext(ctx, "not ready", "because", why, "error", behind)
			}
		}
		before = why
		select {
		case <-ticker.C:
		case <-ctx.Done():
			return
		}
	}
}

func look(ctx context.Context, condition Condition) (why string, behind error) {
	ctx, cancel := context.WithTimeout(ctx, judgeTimeout)
	defer cancel()
	return condition(ctx)
}

package ops_test

import (
	"bytes"
	"context"
	"errors"
	"log/slog"
	"slices"
	"strings"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"smokeball.internal/tokenbroker/internal/ops"
)

func TestReadinessIsOfTheConditionsAndNotOfMoments(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var redis, keyset, heard atomic.Value // :: string, why they do not hold
		condition := func(why *atomic.Value) ops.Condition {
			return func(ctx context.Context) (string, error) {
				if _, bounded := ctx.Deadline(); !bounded {
					t.Error("a look may take as long as it likes")
				}
				said := why.Load().(string)
				return said, errors.New("behind " + said)
			}
		}
		var said []string
		var log bytes.Buffer
		r := ops.Readiness{
			Once: []ops.Condition{condition(&redis), condition(&keyset)}, Always: []ops.Condition{condition(&heard)},
			Change: func(why string) { said = append(said, why) }, Logger: slog.New(slog.NewTextHandler(&log, nil)),
		}
		set := func(a, b, c string) { redis.Store(a); keyset.Store(b); heard.Store(c) }
		set("away", "another", "")
		ctx, cancel := context.WithCancel(t.Context())
		ended := make(chan struct{})
		go func() { defer close(ended); r.Watch(ctx) }()
		for _, step := range []struct {
			name                 string
			redis, keyset, heard string
			after                time.Duration
			want                 []string
		}{
			{"at first the first is what matters", "away", "another", "", 0, []string{"away"}},
			{"the same is not said again", "away", "another", "", 10 * time.Second, nil},
			{"then the second", "", "another", "", 2 * time.Second, []string{"another"}},
			{"while starting there is no patience", "", "another", "deaf", 2 * time.Second, []string{"another; deaf"}},
			{"what is said twice is one reason", "", "deaf", "deaf", 2 * time.Second, []string{"deaf"}},
			{"and all must hold", "", "", "", 2 * time.Second, []string{""}},
			{"what held once is not looked at again", "away", "another", "", time.Minute, nil},
			{"a moment is nothing", "", "", "deaf", 4 * time.Second, nil},
			{"and another", "", "", "", 2 * time.Second, nil},
			{"nor do moments add up", "", "", "deaf", 4 * time.Second, nil},
			{"longer is", "", "", "deaf", 3 * time.Second, []string{"deaf"}},
			{"and it is over at once", "", "", "", time.Second, []string{""}},
		} {
			set(step.redis, step.keyset, step.heard)
			time.Sleep(step.after)
			synctest.Wait()
			if !slices.Equal(said, step.want) {
				t.Errorf("%s: said %q, want %q", step.name, said, step.want)
			}
			said = nil
		}
		cancel()
		<-ended
		if len(said) > 0 {
			t.Errorf("at the end: %q", said)
		}
		for _, line := range []string{`level=WARN msg="not ready" because=away error="behind away"`, `level=INFO msg=ready`, `because=deaf error="behind deaf"`} {
			if !strings.Contains(log.String(), line) {
				t.Errorf("not in the log: %s\n%s", line, log.String())
			}
		}
	})
}

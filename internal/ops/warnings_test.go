package ops_test

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"log/slog"
	"slices"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"smokeball.internal/tokenbroker/internal/ops"
)

const evicts, unsaved = "Redis evicts.", "Redis saves nothing."

func TestWarningsAreLoggedWhenTheyComeAndWhenTheyGo(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		type answer struct {
			wrong map[string]string
			err   error
		}
		answers := make(chan answer)
		var log bytes.Buffer
		w := ops.NewRedisWarnings([]string{"evicts", "unsaved"}, func(ctx context.Context) (map[string]string, error) {
			if _, bounded := ctx.Deadline(); !bounded {
				t.Error("Redis may take as long as it likes")
			}
			a := <-answers
			return a.wrong, a.err
		}, slog.New(slog.NewTextHandler(&log, nil)))
		ctx, cancel := context.WithCancel(t.Context())
		ended := make(chan struct{})
		go func() { defer close(ended); w.Watch(ctx) }()
		const (
			warn = `level=WARN msg="redis may lose what is stored" kind=`
			gone = `level=INFO msg="redis is not seen to lose what is stored any more" kind=`
		)
		for n, step := range []struct {
			name   string
			answer answer
			want   []string
		}{
			{"at the start", answer{map[string]string{"unsaved": unsaved}, nil}, []string{warn + `unsaved warning="Redis saves nothing."`}},
			{"the same", answer{map[string]string{"unsaved": unsaved}, nil}, nil},
			{"another", answer{map[string]string{"unsaved": unsaved, "evicts": evicts}, nil}, []string{warn + `evicts warning="Redis evicts."`}},
			{"away", answer{nil, errors.New("away")}, nil},
			{"there again", answer{map[string]string{"unsaved": unsaved, "evicts": evicts}, nil}, nil},
			{"one is gone", answer{map[string]string{"evicts": evicts}, nil}, []string{gone + "unsaved"}},
			{"it is back", answer{map[string]string{"unsaved": unsaved}, nil}, []string{gone + "evicts", warn + `unsaved warning="Redis saves nothing."`}},
		} {
			begin := time.Now()
			answers <- step.answer
			if waited := time.Since(begin); n > 0 && waited != time.Minute {
				t.Errorf("%s: looked at after %v", step.name, waited)
			}
			synctest.Wait()
			var got []string
			for line := range strings.Lines(log.String()) {
				_, line, _ = strings.Cut(strings.TrimSpace(line), " ") // Behind the time.
				got = append(got, line)
			}
			if !slices.Equal(got, step.want) {
				t.Errorf("%s: logged %q, want %q", step.name, got, step.want)
			}
			log.Reset()
		}
		cancel()
		<-ended
	})
}

func TestWarningsAreInMetricsAndStatus(t *testing.T) {
	o := newOffice(t)
	status := func() []string {
		t.Helper()
		_, body, _ := o.ask(t, "GET", "/status")
		var s struct {
			Warnings []string `json:"redis_warnings"`
		}
		if err := json.Unmarshal([]byte(body), &s); err != nil {
			t.Fatal(err)
		}
		return s.Warnings
	}
	metrics := func(evicts, unsaved string) {
		t.Helper()
		_, body, _ := o.ask(t, "GET", "/metrics")
		wantLines(t, body, `tokenbroker_redis_warnings{kind="evicts"} `+evicts, `tokenbroker_redis_warnings{kind="unsaved"} `+unsaved)
	}
	metrics("0", "0")
	if got := status(); len(got) != 0 {
		t.Errorf("before a look: %q", got)
	}
	o.look(t, map[string]string{"unsaved": unsaved, "evicts": evicts})
	metrics("1", "1")
	if got := status(); !slices.Equal(got, []string{evicts, unsaved}) {
		t.Errorf("two: %q", got)
	}
	o.look(t, map[string]string{"unsaved": unsaved})
	metrics("0", "1")
	o.look(t, nil)
	metrics("0", "0")
	if got := status(); len(got) != 0 {
		t.Errorf("none: %q", got)
	}
}

// look has the office look at a Redis of which this is to be said.
func (o *office) look(t *testing.T, now map[string]string) {
	t.Helper()
	o.wrong.Store(&now)
	ctx, cancel := context.WithCancel(t.Context())
	cancel() // So that it looks once.
	o.warnings.Watch(ctx)
}

package logging_test

import (
	"bytes"
	"encoding/json"
	"fmt"
	"log/slog"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"go.opentelemetry.io/otel/trace"

	"smokeball.internal/tokenbroker/internal/logging"
)

// records returns what was written.
func records(t *testing.T, out *bytes.Buffer) []map[string]any {
	t.Helper()
	var all []map[string]any
	for line := range strings.Lines(out.String()) {
		var r map[string]any
		if err := json.Unmarshal([]byte(line), &r); err != nil {
			t.Fatalf("%v in %q", err, line)
		}
		all = append(all, r)
	}
	return all
}

func TestLevelChanges(t *testing.T) {
	var out bytes.Buffer
	level := new(slog.LevelVar)
	log := logging.New(&out, logging.JSON, level).With("of", "before")
	log.Debug("unseen")
	level.Set(slog.LevelDebug)
	log.Debug("seen")
	level.Set(slog.LevelError)
	log.Warn("unseen")
	if got := records(t, &out); len(got) != 1 || got[0]["msg"] != "seen" || got[0]["of"] != "before" {
		t.Errorf("the records are %v", got)
	}
}

func TestText(t *testing.T) {
	var out bytes.Buffer
	logging.New(&out, logging.Text, slog.LevelInfo).Info("said", "by", "me")
	if !strings.Contains(out.String(), "level=INFO msg=said by=me") {
		t.Errorf("got %q", out.String())
	}
}

// Whatever callers do, what is written has a bound, and says how much was not.
// What is rare is not lost in what is not.
func TestFloodIsBounded(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var out bytes.Buffer
		log := logging.New(&out, logging.JSON, slog.LevelInfo)
		others := log.With("room", "another") // It shares the bounds.
		for n := range 10_000 {
			log.Warn("no token bought", "n", n)
			others.Warn("no token bought", "n", n)
			log.Debug("unseen")
		}
		log.Error("no token bought")
		log.Warn("something else")
		got := records(t, &out)
		if len(got) != 502 || got[500]["level"] != "ERROR" || got[501]["msg"] != "something else" {
			t.Fatalf("%d records, the last %v", len(got), got[len(got)-1])
		}
		out.Reset()
		time.Sleep(10 * time.Second)
		for range 10_000 {
			log.Warn("no token bought")
		}
		got = records(t, &out)
		if len(got) != 500 {
			t.Fatalf("%d records after ten seconds, want 500", len(got))
		}
		if got[0]["left_out"] != float64(19_500) {
			t.Errorf("the next record says that %v were left out, want 19500", got[0]["left_out"])
		}
		if _, again := got[1]["left_out"]; again {
			t.Errorf("the one after it says it, too: %v", got[1])
		}
	})
}

// Messages are constant, but what a library says need not be.
func TestManyMessages(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var out bytes.Buffer
		log := logging.New(&out, logging.JSON, slog.LevelInfo)
		for n := range 10_000 {
			log.Warn(fmt.Sprintf("message %d", n)) //nolint:sloglint // As a library may.
		}
		if got := len(records(t, &out)); got > 1500 {
			t.Errorf("of 10000 different messages, %d are written", got)
		}
	})
}

// A record of a call that is traced has its trace; of one whose trace is not
// exported it has none.
func TestTraceIDs(t *testing.T) {
	var out bytes.Buffer
	log := logging.New(&out, logging.JSON, slog.LevelInfo).With("room", "one")
	for _, sampled := range []bool{true, false} {
		log.InfoContext(trace.ContextWithSpanContext(t.Context(), trace.NewSpanContext(trace.SpanContextConfig{
			TraceID: trace.TraceID{0xab, 15: 1}, SpanID: trace.SpanID{0xcd, 7: 2}, TraceFlags: trace.TraceFlags(0).WithSampled(sampled),
		})), "called")
	}
	log.Info("not called")
	got := records(t, &out)
	if got[0]["trace_id"] != "ab000000000000000000000000000001" || got[0]["span_id"] != "cd00000000000002" {
		t.Errorf("the record is %v", got[0])
	}
	for _, r := range got[1:] {
		if r["trace_id"] != nil || r["span_id"] != nil {
			t.Errorf("the record is %v", r)
		}
	}
}

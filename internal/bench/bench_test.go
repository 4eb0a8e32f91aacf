package bench_test

import (
	"flag"
	"fmt"
	"os"
	"testing"
	"time"
)

var (
	measure = flag.Bool("measure", false, "measure, in place of a trial that it works")
	rounds  = flag.Int("rounds", 9, "with -measure: how often each is measured")
	period  = flag.Duration("period", 3*time.Second, "with -measure: for how long each time")
	reports = flag.String("reports", "", "with -measure: directory for the table and the plot; empty: the table is printed only")
)

// role is what this process is when the benchmark has started it: the binary is its
// own servers and callers.
const role = "TOKENBROKER_BENCH_ROLE"

func TestMain(m *testing.M) {
	flag.Parse()
	roles := map[string]func() error{"bare": serveBare, "naive": serveNaive, "load": runLoad}
	if run, ok := roles[os.Getenv(role)]; ok {
		if err := run(); err != nil {
			fmt.Fprintln(os.Stderr, err)
			os.Exit(1)
		}
		os.Exit(0)
	}
	os.Exit(m.Run())
}

// TestHotCall measures GetToken answered from memory, with all that production has
// on, beside the others.
func TestHotCall(t *testing.T) {
	s := newScene(t)
	plan := plan{rounds: *rounds, period: *period, connections: 8, callers: 64}
	if !*measure {
		plan.rounds, plan.period = 1, 200*time.Millisecond
	}
	results := plan.run(t, s, s.contenders(t))
	table := results.table()
	t.Logf("\n%s", table)
	// It hears of changes twice a second, and looks whether Redis is there: that is all.
	if redis, _, most := results[0].median(redisOf); most > .05 {
		t.Errorf("%v commands of Redis per call (median %v)", most, redis)
	}
	if *measure && *reports != "" {
		results.write(t, *reports, table)
	}
}

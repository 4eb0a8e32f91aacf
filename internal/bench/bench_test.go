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
	reports = flag.String("reports", "", "with -measure: directory for the tables, the samples and the plot; empty: the tables are printed only")
	readme  = flag.String("readme", "", "with -reports: file that shows the results in short")
)

// role is what this process is when the benchmark has started it: the binary is its
// own servers and callers.
const role = "TOKENBROKER_BENCH_ROLE"

// noGrace is for the environment of such processes: with the race detector, each would
// else sleep for a second at its end.
const noGrace = "GORACE=atexit_sleep_ms=0"

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
	code := m.Run()
	if built != "" {
		_ = os.RemoveAll(built)
	}
	os.Exit(code)
}

// TestHotCall measures GetToken answered from memory, with all that production has
// on, beside the others: as many calls as there are answers, and then all of them at a
// rate that the machine has room for.
func TestHotCall(t *testing.T) {
	s := newScene(t)
	r := report{machine: thisMachine(t), plan: plan{rounds: *rounds, period: *period, connections: 8, callers: 64}}
	if !*measure {
		r.rounds, r.period, r.connections, r.callers = 1, 100*time.Millisecond, 2, 8
	}
	servers := s.contenders(t)
	inProcess := s.inProcess(servers[0])
	all := r.run(t, s, append(servers, inProcess...))
	r.closed, r.inProcess = all[:len(servers)], all[len(servers):]
	r.rate, _, _ = all[bareMTLS].median(rateOf)
	r.rate = max(1, r.rate/2)
	r.fixed = r.run(t, s, servers)
	t.Logf("\n%s", r.markdown())
	// It hears of changes, and looks whether Redis is there, a few times a second: that is
	// all. In a trial there are few calls beside that.
	bound := .05
	if !*measure {
		bound = .5
	}
	if redis, _, most := r.closed[0].median(redisOf); most > bound {
		t.Errorf("%v commands of Redis per call (median %v)", most, redis)
	}
	if _, least, _ := r.closed[getPerCall].median(redisOf); least < .9 { // Calls under way at the end are not counted, but their reads may be.
		t.Errorf("of the server that reads Redis for each call, %v reads per call are counted", least)
	}
	switch {
	case !*measure:
		page := s.write(t, "README.md", []byte("before\n"+resultsBegin+"old\n"+resultsEnd+"after\n"))
		r.write(t, s.dir, page)
		r.checkWritten(t, s.dir, page)
	case *reports != "":
		r.write(t, *reports, *readme)
	}
}

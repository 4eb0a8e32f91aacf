package audit_test

import (
	"context"
	"errors"
	"os"
	"strings"
	"syscall"
	"testing"
	"testing/synctest"
	"time"

	"smokeball.internal/tokenbroker/internal/audit"
)

func TestAChangeIsWrittenWhenItReturns(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var out output
		l := run(t, audit.Config{Sink: "stdout", Stdout: &out})
		begin := time.Now()
		_ = l.Decision(decision())
		synctest.Wait() // It waits for more decisions, but not for longer than a change.
		l.change(t, "tenants/acme")
		if !strings.Contains(out.String(), "tenants/acme") || time.Since(begin) > 0 {
			t.Errorf("after %v: %s", time.Since(begin), out.String())
		}
		l.stop()
	})
}

func TestADecisionIsWrittenSoonAndWithOthers(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var out output
		l := run(t, audit.Config{Sink: "stdout", Stdout: &out})
		synctest.Wait()
		before := out.tries
		for range 100 {
			_ = l.Decision(decision())
			synctest.Wait()
		}
		if strings.Contains(out.String(), "tenants/acme") {
			t.Error("each is written by itself")
		}
		time.Sleep(10 * time.Millisecond)
		synctest.Wait()
		if n := strings.Count(out.String(), "tenants/acme"); n != 100 || out.tries != before+1 {
			t.Errorf("%d are written, with %d writes", n, out.tries-before)
		}
		if stats := l.Stats(); stats != (audit.Stats{Written: 100}) {
			t.Errorf("%+v", stats)
		}
		l.stop()
	})
}

func TestABlockedSinkRefusesChangesInTimeAndIsGotOver(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var out output
		var log journal
		l := run(t, audit.Config{Sink: "stdout", Stdout: &out, Logger: log.logger()})
		l.change(t, "tenants/first")
		out.block()
		begin := time.Now()
		if err := l.Change(t.Context(), audit.Record{Tenant: "tenants/second"}); !errors.Is(err, audit.ErrUnavailable) || time.Since(begin) != 2*time.Second {
			t.Errorf("after %v: %v", time.Since(begin), err)
		}
		ctx, cancel := context.WithTimeout(t.Context(), time.Second)
		defer cancel()
		if err := l.Change(ctx, audit.Record{}); !errors.Is(err, audit.ErrUnavailable) || !errors.Is(err, context.DeadlineExceeded) || time.Since(begin) != 3*time.Second {
			t.Errorf("after %v: %v", time.Since(begin), err)
		}
		begin = time.Now()
		if err := l.Decision(decision()); err != nil || time.Since(begin) > 0 {
			t.Errorf("a decision after %v: %v", time.Since(begin), err)
		}
		if stats := l.Stats(); !stats.Stuck || stats.Full {
			t.Errorf("while it blocks: %+v", stats)
		}
		time.Sleep(31 * time.Second)
		if n := len(log.said("audit records cannot be written: the sink blocks")); n < 3 || n > 4 {
			t.Errorf("said %d times in 34 s that it blocks", n)
		}
		out.unblock()
		l.change(t, "tenants/third")
		if n := len(log.said("audit records are written again")); n != 1 {
			t.Errorf("said %d times that it does not block", n)
		}
		if l.Stats().Stuck {
			t.Error("it is stuck for ever")
		}
		l.stop()
		if report := wantSound(t, out.String()); report.Records != 7 || !report.Writers[0].Stopped {
			t.Errorf("%+v", report)
		}
	})
}

func TestWhatIsDroppedIsTold(t *testing.T) {
	for _, strict := range []bool{false, true} {
		synctest.Test(t, func(t *testing.T) {
			var out output
			var log journal
			l := run(t, audit.Config{Sink: "stdout", Stdout: &out, Logger: log.logger(), QueueLength: 4, Strict: strict})
			synctest.Wait()
			out.block()
			for n := range 7 {
				if n == 2 {
					time.Sleep(time.Second / 2) // Some are taken to be written already.
				}
				err := l.Decision(audit.Record{TokenID: "taken"})
				if refused := errors.Is(err, audit.ErrUnavailable); refused != (strict && n >= 4) {
					t.Errorf("strict %t: decision %d: %v", strict, n, err)
				}
			}
			if stats := l.Stats(); stats != (audit.Stats{Dropped: 3, Queued: 4, Full: true}) {
				t.Errorf("%+v", stats)
			}
			since := time.Now()
			time.Sleep(time.Second / 2)
			out.unblock()
			time.Sleep(20 * time.Millisecond)
			l.change(t, "tenants/acme")
			l.stop()
			all := records(t, out.String())
			told := all[5]
			if len(all) != 8 || told["event"] != "dropped" || told["dropped"] != 3.0 || told["since"] != since.UTC().Format("2006-01-02T15:04:05.000000Z") {
				t.Errorf("records: %v", all)
			}
			if report := wantSound(t, out.String()); report.Writers[0].Dropped != 3 || strings.Count(out.String(), "taken") != 4 {
				t.Errorf("%+v", report.Writers[0])
			}
			if n := len(log.said("audit records were dropped")); n != 1 {
				t.Errorf("said %d times that some were dropped", n)
			}
		})
	}
}

func TestWhatIsDroppedIsToldThoughNothingFollows(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var out output
		l := run(t, audit.Config{Sink: "stdout", Stdout: &out, QueueLength: 1})
		synctest.Wait()
		out.block()
		for range 2 {
			_ = l.Decision(decision())
			time.Sleep(time.Second)
		}
		out.unblock()
		time.Sleep(time.Second)
		if !strings.Contains(out.String(), `"dropped":1`) {
			t.Errorf("records: %s", out.String())
		}
		l.stop()
	})
}

func TestChangesFindRoomBehindDecisionsButNotForEver(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var out output
		l := run(t, audit.Config{Sink: "stdout", Stdout: &out, QueueLength: 1})
		synctest.Wait()
		out.block()
		for range 3 {
			_ = l.Decision(decision())
		}
		ended := make(chan time.Duration, 2000)
		begin := time.Now()
		for range 1100 {
			go func() {
				if err := l.Change(context.Background(), audit.Record{}); !errors.Is(err, audit.ErrUnavailable) {
					t.Error(err)
				}
				ended <- time.Since(begin)
			}()
		}
		at := map[time.Duration]int{}
		for range 1100 {
			at[<-ended]++
		}
		if at[0] != 1100-1024 || at[2*time.Second] != 1024 {
			t.Errorf("ended after %v", at)
		}
		out.unblock()
		l.stop()
		wantSound(t, out.String())
	})
}

func TestRunEndsThoughTheSinkBlocks(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var out output
		var log journal
		l := run(t, audit.Config{Sink: "stdout", Stdout: &out, Logger: log.logger()})
		synctest.Wait()
		out.block()
		_ = l.Decision(decision())
		time.Sleep(time.Second)
		begin := time.Now()
		l.stop()
		if took := time.Since(begin); took != 5*time.Second {
			t.Errorf("ended after %v", took)
		}
		if said := log.said("the audit log ends before its time: it could not be written"); len(said) != 1 || said[0]["unwritten"] != 1.0 || l.Stats().Dropped != 1 {
			t.Errorf("%v, %+v", said, l.Stats())
		}
		out.unblock()
		synctest.Wait()
		if report := wantSound(t, out.String()); report.Writers[0].Stopped {
			t.Error("it says that it has ended cleanly")
		}
	})
}

func TestWhatIsTakenIsWrittenBeforeRunEnds(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var out output
		l := run(t, audit.Config{Sink: "stdout", Stdout: &out, Strict: true})
		synctest.Wait()
		out.fail(syscall.ENOSPC, 0)
		for range 1000 {
			_ = l.Decision(decision())
		}
		time.AfterFunc(4*time.Second, func() { out.fail(nil, 0) })
		l.stop()
		if n := strings.Count(out.String(), "tenants/acme"); n != 1000 || !wantSound(t, out.String()).Writers[0].Stopped {
			t.Errorf("%d are written", n)
		}
		if err := l.Decision(decision()); !errors.Is(err, audit.ErrUnavailable) {
			t.Errorf("a decision after the end: %v", err)
		}
		begin := time.Now()
		if err := l.Change(t.Context(), decision()); !errors.Is(err, audit.ErrUnavailable) || time.Since(begin) > 0 {
			t.Errorf("a change after the end: %v", err)
		}
	})
}

func TestAFullDiskIsComplainedOfSeldomAndGotOver(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var out output
		var log journal
		l := run(t, audit.Config{Sink: "stdout", Stdout: &out, Logger: log.logger()})
		synctest.Wait()
		for room := range 120 { // Lines break at any place. Once a second it is full for a while.
			out.fail(syscall.ENOSPC, 7*room)
			_ = l.Decision(decision())
			time.Sleep(700 * time.Millisecond)
			out.fail(nil, 0)
			time.Sleep(700 * time.Millisecond)
		}
		if n := len(log.said("audit records cannot be written")); n < 10 || n > 17 {
			t.Errorf("complained %d times in 168 s", n)
		}
		if n, again := len(log.said("audit records cannot be written")), len(log.said("audit records are written again")); again != n {
			t.Errorf("complained %d times, and %d times not any more", n, again)
		}
		if l.Stats().Failed < 50 || l.Stats().Stuck || l.Stats().Written != 120 {
			t.Errorf("%+v", l.Stats())
		}
		l.stop()
		wantSound(t, out.String())
	})
}

func TestTheHeadIsToldElsewhere(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var out output
		var log journal
		l := run(t, audit.Config{Sink: "stdout", Stdout: &out, Logger: log.logger()})
		heads := func() int { synctest.Wait(); return len(log.said("audit chain")) }
		if n := heads(); n != 1 {
			t.Errorf("told %d times at the start", n)
		}
		time.Sleep(10 * time.Minute)
		if n := heads(); n != 1 {
			t.Errorf("told %d times though it has not moved", n)
		}
		_ = l.Decision(decision())
		time.Sleep(10 * time.Minute)
		if n := heads(); n != 2 {
			t.Errorf("told %d times after it has moved", n)
		}
		l.stop()
		told := log.said("audit chain")
		all := records(t, out.String())
		if len(told) != 3 || len(all) != 3 {
			t.Fatalf("told %v of %v", told, all)
		}
		var hashes []string
		for i, head := range told {
			if head["seq"] != all[i]["seq"] || head["hash"] != all[i]["hash"] || head["chain"] != all[i]["chain"] {
				t.Errorf("told %v of %v", head, all[i])
			}
			hashes = append(hashes, head["hash"].(string))
		}
		if report := verify(t, audit.VerifyOptions{Heads: hashes}, out.String()); len(report.Findings) > 0 {
			t.Errorf("%q", report.Findings)
		}
	})
}

func TestAPipeThatNobodyReadsDoesNotStopTheProcess(t *testing.T) {
	t.Parallel()
	r, w, err := os.Pipe()
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = errors.Join(r.Close(), w.Close()) }()
	l := run(t, audit.Config{Sink: "stdout", Stdout: w})
	for range 1000 { // Ten times what a pipe holds.
		_ = l.Decision(decision())
	}
	if err := l.Change(t.Context(), decision()); !errors.Is(err, audit.ErrUnavailable) {
		t.Errorf("a change: %v", err)
	}
	text := make(chan string)
	go func() {
		var all output
		_, _ = r.WriteTo(&all)
		text <- all.String()
	}()
	l.change(t, "tenants/acme")
	l.stop()
	_ = w.Close()
	if report := wantSound(t, <-text); report.Records != 1004 {
		t.Errorf("%d records", report.Records)
	}
}

func TestADeviceWithoutSpaceRefusesChanges(t *testing.T) {
	t.Parallel()
	full, err := os.OpenFile("/dev/full", os.O_WRONLY, 0)
	if err != nil {
		t.Skip(err)
	}
	defer func() { _ = full.Close() }()
	var log journal
	l := run(t, audit.Config{Sink: "stdout", Stdout: full, Logger: log.logger()})
	begin := time.Now()
	if err := l.Change(t.Context(), decision()); !errors.Is(err, audit.ErrUnavailable) || time.Since(begin) > 3*time.Second {
		t.Errorf("after %v: %v", time.Since(begin), err)
	}
	if said := log.said("audit records cannot be written"); len(said) != 1 || !strings.Contains(said[0]["error"].(string), "no space") {
		t.Errorf("%v", said)
	}
}

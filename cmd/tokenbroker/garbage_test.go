package main_test

import (
	"strconv"
	"strings"
	"testing"

	"smokeball.internal/tokenbroker/internal/redisstore/redistest"
)

// A replica with little in memory lets more garbage lie than Go would, unless it is told how much.
func TestASmallReplicaSeldomCollects(t *testing.T) {
	t.Parallel()
	issuer := startIssuer(t)
	redis, keyset := redistest.Start(t).URL(), keysetFile(t)
	for set, right := range map[string]func(percent float64) bool{
		"GOGC=":    func(percent float64) bool { return percent >= 200 },
		"GOGC=130": func(percent float64) bool { return percent == 130 },
	} {
		p := startProgram(t, binary, []string{set}, serveArgs(redis, keyset, issuer)...).ready()
		// The first collection is the one of 4 MiB, which starting takes. Asking for
		// metrics makes the garbage for another, should it be late.
		until(t, "collects seldom with "+set, func() bool {
			for line := range strings.Lines(p.get("/metrics")) {
				if value, ok := strings.CutPrefix(line, "go_gc_gogc_percent "); ok {
					percent, err := strconv.ParseFloat(strings.TrimSpace(value), 64)
					return err == nil && right(percent)
				}
			}
			return false
		})
	}
}

package main_test

import (
	"fmt"
	"os"
	"regexp"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"google.golang.org/grpc"

	"smokeball.internal/tokenbroker/internal/redisstore/redistest"
	"smokeball.internal/tokenbroker/internal/simulator"
)

// TestWhatATenantAndACallTake measures what docs/operations.md plans with: what tenants
// in use take of the memory of a replica and of Redis, how many commands a token that is
// bought sends to Redis, and how long a processor is busy with a call.
func TestWhatATenantAndACallTake(t *testing.T) {
	const count, calls = 5000, 20_000
	g := startGuarded(t, "limits: [{principals: [\""+everything+"\"], calls_per_second: 100000}]\n", "--log-level=info", "--exchange-rate=1000")
	service := g.as(everything)
	register(t, service, g.issuer, "acme", time.Hour)
	if _, err := get(t.Context(), service, "acme"); err != nil {
		t.Fatal(err)
	}
	quiet, empty := g.process.memory(), redisMemory(t, g.redis)
	fill(t, g.redis.URL(), g.keyset, count)
	registered := redisMemory(t, g.redis)
	for n := range count {
		g.issuer.SetClient(simulator.Client{Endpoint: "us/production", ID: fmt.Sprintf("client-firm-%d", n), Secrets: []string{fmt.Sprintf("secret-of-firm-%d", n)}})
	}
	before := g.redis.Client().Info(t.Context(), "commandstats").Val()
	for range 2 { // Bought, and then used.
		eachAtOnce(t, service, count, func(n int) string { return fmt.Sprintf("firm-%d", n) })
	}
	sent := evaluated(g.redis.Client().Info(t.Context(), "commandstats").Val()) - evaluated(before)
	busy, bought := g.process.memory(), redisMemory(t, g.redis)

	began := g.process.processorTime()
	eachAtOnce(t, service, calls, func(int) string { return "acme" })
	call := (g.process.processorTime() - began) / calls

	replica := (busy - quiet) * 1024 / count
	record, token := float64(registered-empty)/count/1024, float64(bought-registered)/count/1024
	t.Logf("%d tenants in use: a replica grows from %.1f to %.1f MiB, %.1f KiB for each", count, quiet, busy, replica)
	t.Logf("Redis: %.2f KiB for a registered tenant, %.2f KiB for its token", record, token)
	t.Logf("%.1f scripts and reads are sent to Redis for a token that is bought", float64(sent)/count)
	t.Logf("a call that is answered from memory, over mTLS and with an audit record: %v of a processor, %d a second", call, time.Second/call)
	if replica > 32 || record > 2 || token > 4 {
		t.Error("that is more than was planned with")
	}
}

// eachAtOnce has sixteen callers ask for tokens.
func eachAtOnce(t *testing.T, conn *grpc.ClientConn, count int, tenant func(n int) string) {
	t.Helper()
	const callers = 16
	var asking sync.WaitGroup
	for c := range callers {
		asking.Go(func() {
			for n := c; n < count; n += callers {
				if _, err := get(t.Context(), conn, tenant(n)); err != nil {
					t.Errorf("%s: %v", tenant(n), err)
					return
				}
			}
		})
	}
	asking.Wait()
	if t.Failed() {
		t.FailNow()
	}
}

// redisMemory returns how many bytes a Redis has taken.
func redisMemory(t *testing.T, redis *redistest.Server) int {
	t.Helper()
	match := regexp.MustCompile(`\nused_memory:(\d+)`).FindStringSubmatch(redis.Client().Info(t.Context(), "memory").Val())
	if match == nil {
		t.Fatal("Redis does not say how much memory it has")
	}
	n, _ := strconv.Atoi(match[1])
	return n
}

// evaluated returns how many scripts and reads of tenants there were.
func evaluated(stats string) int {
	sum := 0
	for _, match := range commandStat.FindAllStringSubmatch(stats, -1) {
		if match[1] == "evalsha" || match[1] == "hget" {
			n, _ := strconv.Atoi(match[2])
			sum += n
		}
	}
	return sum
}

// processorTime returns how long the process has kept processors busy.
func (p *process) processorTime() time.Duration {
	p.t.Helper()
	stat, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", p.cmd.Process.Pid))
	if err != nil {
		p.t.Fatal(err)
	}
	_, rest, _ := strings.Cut(string(stat), ") ") // Behind the name, which may be anything.
	fields := strings.Fields(rest)
	user, _ := strconv.Atoi(fields[11])
	system, _ := strconv.Atoi(fields[12])
	return time.Duration(user+system) * 10 * time.Millisecond // Linux counts hundredths.
}

package main_test

import (
	"context"
	"fmt"
	"log/slog"
	"math/rand/v2"
	"os"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	pb "smokeball.internal/tokenbroker/gen/tokenbroker/v1"
	"smokeball.internal/tokenbroker/internal/redisstore"
	"smokeball.internal/tokenbroker/internal/redisstore/redistest"
	"smokeball.internal/tokenbroker/internal/seal"
	"smokeball.internal/tokenbroker/internal/secret"
	"smokeball.internal/tokenbroker/internal/simulator"
	"smokeball.internal/tokenbroker/internal/tenant"
)

// TestAHundredThousandTenantsCostNothingUntilTheyAreAskedFor starts a replica on
// a large registry and shows from Redis's own counts that neither its start nor
// any call walks it.
func TestAHundredThousandTenantsCostNothingUntilTheyAreAskedFor(t *testing.T) {
	const registered, asked, page = 100_000, 100, 50
	store, issuer, keyset := redistest.Start(t), startIssuer(t), keysetFile(t)
	begun := time.Now()
	fill(t, store.URL(), keyset, registered)
	t.Logf("%d tenants registered in %v", registered, time.Since(begun).Round(time.Millisecond))

	// What a replica without tenants takes, for comparison.
	small := start(t, serveArgs(redistest.Start(t).URL(), keyset, issuer, "--log-level=info")...).ready()
	redis := store.Client()
	reset := func() {
		if err := redis.ConfigResetStat(t.Context()).Err(); err != nil {
			t.Fatal(err)
		}
	}
	reset()
	begun = time.Now()
	p := start(t, serveArgs(store.URL(), keyset, issuer, "--log-level=info")...).ready()
	ready := time.Since(begun)
	conn := p.connect()
	starting := commands(t, store)
	empty, before := small.memory(), p.memory()
	walksNothing(t, "the start", starting)
	if read := starting["hget"]; read > 0 {
		t.Errorf("the start reads %d records", read)
	}

	reset()
	for _, n := range rand.Perm(registered)[:asked] {
		id := fmt.Sprintf("firm-%d", n)
		issuer.SetClient(simulator.Client{Endpoint: "us/production", ID: "client-" + id, Secrets: []string{"secret-of-" + id}})
		for range 3 {
			if tok, err := get(t.Context(), conn, id); err != nil || tok.GetApiKey() != "api-key-of-"+id {
				t.Fatalf("%s: api key %q, %v", id, tok.GetApiKey(), err)
			}
		}
	}
	calling := commands(t, store)
	after := p.memory()
	walksNothing(t, "a call", calling)
	if read := calling["hget"]; read < asked || read > 2*asked {
		t.Errorf("%d records read for %d tenants", read, asked)
	}

	reset()
	if err := redis.ConfigSet(t.Context(), "slowlog-log-slower-than", "0").Err(); err != nil { // Everything is slow now, and so logged.
		t.Fatal(err)
	}
	begun = time.Now()
	list, err := pb.NewTenantServiceClient(conn).ListTenants(t.Context(), &pb.ListTenantsRequest{PageSize: page})
	if err != nil || len(list.GetTenants()) != page || list.GetNextPageToken() == "" {
		t.Fatalf("ListTenants: %d tenants, %v", len(list.GetTenants()), err)
	}
	listed := time.Since(begun)
	listing := commands(t, store)
	walksNothing(t, "ListTenants", listing)
	if listing["zrangebylex"] != 1 || listing["hmget"] != 1 {
		t.Errorf("a page is read with %v", listing)
	}
	logged := 0
	for _, entry := range redis.SlowLogGet(t.Context(), -1).Val() {
		switch strings.ToLower(entry.Args[0]) {
		case "zrangebylex":
			logged++
			limit, _ := strconv.Atoi(entry.Args[len(entry.Args)-1])
			if !slices.Contains(entry.Args, "limit") && !slices.Contains(entry.Args, "LIMIT") || limit < 1 || limit > page+1 {
				t.Errorf("a page is read with %q", entry.Args)
			}
		case "hmget": // A long command is cut short in the log: "... (n more arguments)".
			logged++
		}
	}
	if logged != 2 {
		t.Errorf("Redis has logged %d of the two commands of a page", logged)
	}
	t.Logf("ready after %v; commands of the start %v", ready.Round(time.Millisecond), starting)
	t.Logf("%d calls for %d tenants: %v", 3*asked, asked, calling)
	t.Logf("a page of %d: %v, %v", page, listed.Round(time.Millisecond), listing)
	t.Logf("memory: %.1f MiB with no tenants, %.1f MiB with %d, %.1f MiB after %d calls", empty, before, registered, after, 3*asked)
	// A record is some 500 bytes: all of them would be 50 MiB and more.
	if after > empty+25 {
		t.Errorf("a replica takes %.1f MiB with %d tenants and %.1f MiB with none", after, registered, empty)
	}
}

// fill registers tenants.
func fill(t *testing.T, redisURL, keysetFile string, count int) {
	t.Helper()
	keyset, err := seal.Load(keysetFile)
	if err != nil {
		t.Fatal(err)
	}
	var writing sync.WaitGroup
	const writers = 16
	store, err := redisstore.Open(redisstore.Config{URL: redisURL, Prefix: "tokenbroker:", Keyset: keyset, Logger: slog.New(slog.DiscardHandler)})
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = store.Close() }()
	for w := range writers {
		writing.Go(func() {
			for n := w; n < count; n += writers {
				id := fmt.Sprintf("firm-%d", n)
				_, err := store.CreateTenant(context.Background(), tenant.Tenant{
					ID: id, DisplayName: "The firm " + id, Region: tenant.US, Environment: tenant.Production, ClientID: "client-" + id,
					Secret: tenant.Secret{Value: secret.New("secret-of-" + id)}, APIKey: secret.New("api-key-of-" + id),
				})
				if err != nil {
					t.Errorf("%s: %v", id, err)
					return
				}
			}
		})
	}
	writing.Wait()
	if t.Failed() {
		t.FailNow()
	}
}

var commandStat = regexp.MustCompile(`(?m)^cmdstat_(\S+):calls=(\d+)`)

// commands returns how often Redis was given each command since the reset, those
// of its scripts included.
func commands(t *testing.T, store *redistest.Server) map[string]int {
	t.Helper()
	info, err := store.Client().Info(t.Context(), "commandstats").Result()
	if err != nil {
		t.Fatal(err)
	}
	counts := map[string]int{}
	for _, match := range commandStat.FindAllStringSubmatch(info, -1) {
		counts[match[1]], _ = strconv.Atoi(match[2])
	}
	if len(counts) == 0 {
		t.Fatal("Redis has no counts")
	}
	return counts
}

// walkers are commands that go through all of something, or may.
var walkers = []string{
	"hgetall", "hkeys", "hvals", "hscan", "hrandfield", "scan", "keys", "randomkey", "dump", "sort", "sort_ro", "smembers", "sscan",
	"zscan", "zrange", "zrangebyscore", "zrevrange", "zrevrangebylex", "zrevrangebyscore", "zlexcount", "zcount", "zrandmember", "zrangestore",
}

// walksNothing says whether Redis was given a command that goes through all of
// the registry. Pages of the index are for lists only.
func walksNothing(t *testing.T, what string, counts map[string]int) {
	t.Helper()
	for _, name := range walkers {
		if counts[name] > 0 {
			t.Errorf("%s walks: %s, %d times", what, name, counts[name])
		}
	}
	if what != "ListTenants" && counts["zrangebylex"]+counts["hmget"] > 0 {
		t.Errorf("%s reads pages of the registry: %v", what, counts)
	}
}

// memory returns how much of a process is in memory, in MiB.
func (p *process) memory() float64 {
	p.t.Helper()
	text, err := os.ReadFile(fmt.Sprintf("/proc/%d/status", p.cmd.Process.Pid))
	if err != nil {
		p.t.Fatal(err)
	}
	match := regexp.MustCompile(`VmRSS:\s+(\d+) kB`).FindSubmatch(text)
	if match == nil {
		p.t.Fatalf("no VmRSS in %s", text)
	}
	kib, _ := strconv.ParseFloat(string(match[1]), 64)
	return kib / 1024
}

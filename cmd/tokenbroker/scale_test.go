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
	watch(t, store)
	begun = time.Now()
	p := start(t, serveArgs(store.URL(), keyset, issuer, "--log-level=info", "--exchange-rate=1000")...).ready()
	ready := time.Since(begun)
	conn := p.connect()
	empty, before := small.memory(), p.memory()
	starting := watched(t, store)
	// A few records are tried, to know whether the keyset is the fleet's.
	sample := []string{"zrangebylex", "tokenbroker:{tenants}:index", "-", "+", "limit", "0", "11"}
	if slices.ContainsFunc(starting.pages, func(p []string) bool { return !slices.Equal(p, sample) }) || len(starting.pages) > 2 || starting.counts["hget"] > 0 {
		t.Errorf("the start reads tenants: %v, %v", starting.pages, starting.counts)
	}

	watch(t, store)
	for _, n := range rand.Perm(registered)[:asked] {
		id := fmt.Sprintf("firm-%d", n)
		issuer.SetClient(simulator.Client{Endpoint: "us/production", ID: "client-" + id, Secrets: []string{"secret-of-" + id}})
		for range 3 {
			if tok, err := get(t.Context(), conn, id); err != nil || tok.GetApiKey() != "api-key-of-"+id {
				t.Fatalf("%s: api key %q, %v", id, tok.GetApiKey(), err)
			}
		}
	}
	after := p.memory()
	calling := watched(t, store)
	if read := calling.counts["hget"]; len(calling.pages) > 0 || read < asked || read > 2*asked {
		t.Errorf("%d records and the pages %v are read for %d tenants", read, calling.pages, asked)
	}

	watch(t, store)
	begun = time.Now()
	list, err := pb.NewTenantServiceClient(conn).ListTenants(t.Context(), &pb.ListTenantsRequest{PageSize: page})
	if err != nil || len(list.GetTenants()) != page || list.GetNextPageToken() == "" {
		t.Fatalf("ListTenants: %d tenants, %v", len(list.GetTenants()), err)
	}
	took := time.Since(begun)
	listing := watched(t, store)
	// One range of ids with a limit, and the records of those.
	if len(listing.pages) != 1 || listing.counts["hmget"] != 1 || listing.counts["hget"] > 0 {
		t.Errorf("a page is read with %v, %v", listing.pages, listing.counts)
	}
	for _, args := range listing.pages {
		limit, _ := strconv.Atoi(args[len(args)-1])
		if !strings.EqualFold(args[0], "zrangebylex") || !strings.EqualFold(args[len(args)-3], "limit") || limit < 1 || limit > page+2 { // Whether there is another that the caller may see, and another page.
			t.Errorf("a page is read with %q", args)
		}
	}
	t.Logf("ready after %v; commands of the start %v", ready.Round(time.Millisecond), starting.counts)
	t.Logf("%d calls for %d tenants: %v", 3*asked, asked, calling.counts)
	t.Logf("a page of %d in %v: %q, %v", page, took.Round(time.Millisecond), listing.pages, listing.counts)
	t.Logf("memory: %.1f MiB with no tenants, %.1f MiB with %d, %.1f MiB after %d calls", empty, before, registered, after, 3*asked)
	// A record is some 500 bytes: all of them would be 50 MiB and more.
	if after > empty+25 {
		t.Errorf("a replica takes %.1f MiB with %d tenants and %.1f MiB with none", after, registered, empty)
	}
}

// fill registers tenants.
func fill(t *testing.T, redisURL, keysetFile string, count int) {
	t.Helper()
	keyset, err := seal.Load(t.Context(), keysetFile)
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

// use is what Redis was given to do.
type use struct {
	counts map[string]int // by command, those of scripts included
	pages  [][]string     // commands on the index of all tenants
}

// watch has Redis note all it is given from now on.
func watch(t *testing.T, store *redistest.Server) {
	t.Helper()
	redis := store.Client()
	for _, err := range []error{
		redis.ConfigSet(t.Context(), "slowlog-max-len", "100000").Err(),
		redis.ConfigSet(t.Context(), "slowlog-log-slower-than", "0").Err(), // Everything is slow, and so logged.
		redis.Do(t.Context(), "slowlog", "reset").Err(),
		redis.ConfigResetStat(t.Context()).Err(),
	} {
		if err != nil {
			t.Fatal(err)
		}
	}
}

var commandStat = regexp.MustCompile(`(?m)^cmdstat_(\S+):calls=(\d+)`)

// walkers are commands that go through all of something, or may.
var walkers = []string{
	"hgetall", "hkeys", "hvals", "hscan", "hrandfield", "scan", "keys", "randomkey", "dump", "sort", "sort_ro", "smembers", "sscan",
	"zscan", "zrangebyscore", "zrevrange", "zrevrangebylex", "zrevrangebyscore", "zlexcount", "zrandmember", "zrangestore",
}

// watched returns what Redis was given since watch. It is an error if that was
// something that walks the registry.
func watched(t *testing.T, store *redistest.Server) use {
	t.Helper()
	u := use{counts: map[string]int{}}
	info, err := store.Client().Info(t.Context(), "commandstats").Result()
	if err != nil {
		t.Fatal(err)
	}
	for _, match := range commandStat.FindAllStringSubmatch(info, -1) {
		u.counts[match[1]], _ = strconv.Atoi(match[2])
	}
	for _, name := range walkers {
		if u.counts[name] > 0 {
			t.Errorf("%s is used, %d times", name, u.counts[name])
		}
	}
	log, err := store.Client().SlowLogGet(t.Context(), -1).Result()
	if err != nil || len(log) == 0 {
		t.Fatalf("Redis has logged %d commands: %v", len(log), err)
	}
	ranges := 0
	for _, entry := range log {
		name := strings.ToLower(entry.Args[0])
		if name == "zrange" || name == "zrangebylex" {
			ranges++
		}
		if name == "zrange" && !slices.Equal(entry.Args[1:], []string{"tokenbroker:{tenants}:secrets", "0", "9", "withscores"}) {
			t.Errorf("read: %q", entry.Args)
		}
		if slices.Contains(entry.Args, "tokenbroker:{tenants}:index") && !strings.HasPrefix(name, "eval") && name != "zcard" {
			u.pages = append(u.pages, entry.Args)
		}
	}
	// What scripts do is counted, and not in the log.
	if counted := u.counts["zrange"] + u.counts["zrangebylex"]; counted != ranges {
		t.Errorf("%d ranges are read, %d of them by scripts", counted, counted-ranges)
	}
	return u
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

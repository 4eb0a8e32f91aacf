package redisstore_test

import (
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"smokeball.internal/tokenbroker/internal/redisstore/redistest"
)

// shape is a way for servers to belong together.
type shape struct {
	name  string
	start func(*testing.T) string // returns the URL
}

func shapes() []shape {
	return []shape{
		{"standalone", func(t *testing.T) string { return redistest.Start(t).URL() }},
		{"standalone with TLS", func(t *testing.T) string { return redistest.StartTLS(t).URL() }},
		{"sentinel", func(t *testing.T) string { return redistest.StartSentinel(t).URL() }},
		{"sentinel with TLS", func(t *testing.T) string { return redistest.StartSentinelTLS(t).URL() }},
		{"cluster", func(t *testing.T) string { return redistest.StartCluster(t).URL() }},
		{"cluster with TLS", func(t *testing.T) string { return redistest.StartClusterTLS(t).URL() }},
	}
}

// newFixtureAt is newFixture for what a single client cannot look into.
func newFixtureAt(t *testing.T, url string) *fixture {
	t.Helper()
	f := &fixture{url: url, keyset: newKeyset(t), log: &logBuffer{}}
	f.Store = f.open(t, f.keyset)
	return f
}

func TestEveryShapeDoesEverything(t *testing.T) {
	t.Parallel()
	for _, shape := range shapes() {
		t.Run(shape.name, func(t *testing.T) {
			t.Parallel()
			f := newFixtureAt(t, shape.start(t))
			for name, call := range calls(f) {
				if err := call(t.Context()); isOutage(err) {
					t.Errorf("%s: %v", name, err)
				}
			}
			doEverything(t, newFixtureAt(t, f.url))
		})
	}
}

// doEverything has a store keep, find and tell of one of each.
func doEverything(t *testing.T, f *fixture) {
	t.Helper()
	ctx, k := t.Context(), keyOf("initech")
	heard := follow(t, f.open(t, f.keyset))

	created := f.create(t, newTenant("initech"))
	updated, err := f.UpdateTenant(ctx, *created)
	if err != nil {
		t.Fatal(err)
	}
	if got, err := f.Tenant(ctx, "initech"); err != nil || got.Etag != updated.Etag || got.Secret.Value.Reveal() != "secret-of-initech" {
		t.Errorf("tenant %+v, error %v", got, err)
	}
	if page, _, err := f.ListTenants(ctx, "", 10); err != nil || !slices.Contains(ids(page), "initech") {
		t.Errorf("listed %v, error %v", ids(page), err)
	}
	if err := f.SaveFailure(ctx, k, newFailure("throttled", time.Hour)); err != nil {
		t.Fatal(err)
	}
	if _, failure := f.load(t, k); failure == nil {
		t.Error("the failure is not kept")
	}
	if acquired, err := f.Lease(ctx, k, "a", time.Minute); err != nil || !acquired {
		t.Fatalf("lease: %v, %v", acquired, err)
	}
	if acquired, err := f.Lease(ctx, k, "b", time.Minute); err != nil || acquired {
		t.Errorf("lease of another: %v, %v", acquired, err)
	}
	bought := f.save(t, k, newToken("bought", 0, time.Hour))
	if err := f.Release(ctx, k, "a"); err != nil {
		t.Error(err)
	}
	if held, _ := f.load(t, k); text(held) != "bought" {
		t.Errorf("loaded %s", text(held))
	}
	if err := f.DeleteTenant(ctx, "initech", updated.Etag); err != nil {
		t.Fatal(err)
	}
	heard.await(t, "everything", "tenant initech", "tenant initech",
		"token "+k.Digest()+" ", "token "+k.Digest()+" "+bought.ID, "tenant initech")
}

// deployment is several servers, one of which takes over from another.
type deployment interface {
	URL() string
	Primary(key string) *redistest.Server
}

// A failover takes what the servers need to agree on it. Meanwhile nothing waits
// for long, and afterwards all works as before.
func TestStoreComesThroughAFailover(t *testing.T) {
	t.Parallel()
	for _, test := range []struct {
		name  string
		start func(*testing.T) deployment
	}{
		{"sentinel", func(t *testing.T) deployment { return redistest.StartSentinel(t) }},
		{"cluster", func(t *testing.T) deployment { return redistest.StartCluster(t) }},
	} {
		for _, away := range []struct {
			name       string
			goes, back func(*redistest.Server)
		}{
			{"killed", (*redistest.Server).Kill, (*redistest.Server).Restart},
			{"frozen", (*redistest.Server).Pause, (*redistest.Server).Resume},
		} {
			t.Run(test.name+" "+away.name, func(t *testing.T) {
				t.Parallel()
				d := test.start(t)
				f := newFixtureAt(t, d.URL())
				f.create(t, newTenant("before"))
				heard := follow(t, f.open(t, f.keyset))
				manyConnections(t, f)

				old := d.Primary(recordsKey)
				away.goes(old)
				went := time.Now()
				inTime(t, f, 50*time.Millisecond, 950*time.Millisecond)
				inTime(t, f, time.Hour, 8*time.Second)
				for name, call := range calls(f) {
					eventually(t, name+" works again", func() bool { return !isOutage(call(t.Context())) })
				}
				t.Logf("all works again after %v", time.Since(went).Round(time.Millisecond))
				heard.awaitOneOf(t, "after the failover", func() string {
					created, err := f.CreateTenant(t.Context(), newTenant("after-"+time.Now().Format("150405.000")))
					if err != nil {
						return "nothing, since " + err.Error()
					}
					return "tenant " + created.ID
				})
				t.Logf("changes are heard again after %v", time.Since(went).Round(time.Millisecond))

				// The old primary is back, and is a replica now or will be.
				away.back(old)
				eventually(t, "the old primary is no primary", func() bool { return d.Primary(recordsKey) != old })
				eventually(t, "every call works", func() bool {
					for _, call := range calls(f) {
						if isOutage(call(t.Context())) {
							return false
						}
					}
					return true
				})
				if _, err := f.Tenant(t.Context(), "before"); err != nil {
					t.Errorf("what was there before: %v", err)
				}
			})
		}
	}
}

// A primary that was only frozen comes back as a replica, and the connections to
// it are still there: they must not lead to it any more.
func TestTheFirstCallAfterAFailoverFindsTheNewPrimary(t *testing.T) {
	t.Parallel()
	for name, start := range map[string]func(*testing.T) deployment{
		"sentinel": func(t *testing.T) deployment { return redistest.StartSentinel(t, "--appendonly", "yes") },
		"cluster":  func(t *testing.T) deployment { return redistest.StartCluster(t, "--appendonly", "yes") },
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			d := start(t)
			f := newFixtureAt(t, d.URL())
			created := f.create(t, newTenant("before"))
			manyConnections(t, f)
			old := d.Primary(recordsKey)
			old.Pause()
			eventually(t, "another is the primary", func() bool { return d.Primary(recordsKey) != old })
			old.Resume()
			eventually(t, "the old one knows it", func() bool {
				return strings.Contains(old.Client().Info(t.Context(), "replication").Val(), "role:slave")
			})
			if c, ok := d.(*redistest.Cluster); ok {
				// A node that has slept for so long takes the others for dead at first.
				eventually(t, "every node finds that the cluster serves", c.Serves)
			}
			updated, err := f.UpdateTenant(t.Context(), *created)
			if err != nil {
				t.Fatal(err)
			}
			f.save(t, keyOf("acme"), newToken("after", 0, time.Hour))
			if got, err := f.Tenant(t.Context(), "before"); err != nil || got.Etag != updated.Etag {
				t.Errorf("then there is %+v, %v", got, err)
			}
		})
	}
}

// manyConnections has a store open several connections at once, so that there
// are idle ones later.
func manyConnections(t *testing.T, f *fixture) {
	t.Helper()
	var callers sync.WaitGroup
	for range 8 {
		callers.Go(func() {
			if _, err := f.Tenant(t.Context(), "before"); err != nil {
				t.Error(err)
			}
		})
	}
	callers.Wait()
}

// inTime calls everything at once and wants each to end within the bound,
// however.
func inTime(t *testing.T, f *fixture, deadline, bound time.Duration) {
	t.Helper()
	callAll(t, f, deadline, bound, func(string, error) {})
}

// A sentinel whose machine is gone does not answer, and does not refuse either.
func TestASentinelThatIsGoneHoldsUpNoCallForLong(t *testing.T) {
	t.Parallel()
	d := redistest.StartSentinel(t)
	f := newFixtureAt(t, d.URL())
	f.create(t, newTenant("before"))
	for n, sentinel := range d.Sentinels() {
		sentinel.Pause()
		for try := range 2 {
			// As a new replica, or one whose connections have ended.
			if err := d.Primary("").Client().Do(t.Context(), "CLIENT", "KILL", "TYPE", "normal", "SKIPME", "yes").Err(); err != nil {
				t.Fatal(err)
			}
			begin := time.Now()
			if _, err := f.Tenant(t.Context(), "before"); err != nil {
				t.Errorf("without sentinel %d: %v", n, err)
			}
			if took := time.Since(begin); try > 0 && took > 400*time.Millisecond {
				t.Errorf("without sentinel %d: took %v, though it was known to be gone", n, took)
			}
		}
		sentinel.Resume()
	}
}

// What the sentinels do not know must not look like what Redis does not have.
func TestSentinelsThatDoNotKnowTheNameAreAnOutage(t *testing.T) {
	t.Parallel()
	d := redistest.StartSentinel(t)
	f := newFixtureAt(t, d.URL()+"-of-another")
	for name, call := range calls(f) {
		if err := call(t.Context()); !isOutage(err) {
			t.Errorf("%s: %v", name, err)
		}
	}
}

// In a cluster most nodes can say that they are there, and not that there are
// tenants.
func TestPingAsksTheNodeThatHasTheRegistry(t *testing.T) {
	t.Parallel()
	c := redistest.StartCluster(t, "--cluster-replica-no-failover", "yes", "--cluster-require-full-coverage", "no")
	f := newFixtureAt(t, c.URL())
	if err := f.Ping(t.Context()); err != nil {
		t.Fatal(err)
	}
	c.Primary(recordsKey).Kill()
	for range 10 {
		if err := f.Ping(t.Context()); err == nil {
			t.Fatal("answered by a node without tenants")
		}
	}
}

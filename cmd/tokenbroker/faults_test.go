package main_test

import (
	"testing"
	"time"

	"smokeball.internal/tokenbroker/internal/redisstore/redistest"
	"smokeball.internal/tokenbroker/internal/simulator"
)

// fault is something that breaks under load.
type fault struct {
	name string
	// redis starts what the fleet stands on.
	redis func(s *scene)
	// The lives of the tokens are spread between these. Those of the shortest
	// refresh while the fault lasts, and end in it.
	shortest, longest time.Duration
	// after is how long the tokens age before it breaks.
	after time.Duration
	// breaks breaks it, and returns what mends it.
	breaks func(s *scene) (mend func())
	// lasts is how long it is broken.
	lasts time.Duration
	// atIssuer says that it is the issuer that breaks, so that tokens may end
	// without another.
	atIssuer bool
	// patience is the longest that a call for a tenant that has a valid token may
	// take: less than any timeout that it must not have waited for.
	patience time.Duration
	// recovers is within what time all is well again.
	recovers time.Duration
}

func plainRedis(args ...string) func(s *scene) {
	return func(s *scene) {
		s.redis = redistest.Start(s.t, args...)
		s.redisURL = s.redis.URL()
	}
}

// answers has the issuer answer everyone with a fault.
func answers(f simulator.Fault) func(s *scene) func() {
	return func(s *scene) func() {
		if err := s.issuer.SetFault(simulator.AllClients, f); err != nil {
			s.t.Fatal(err)
		}
		return s.issuer.ClearFaults
	}
}

// issuerFault is one of the issuer's, for half a minute. Tokens of 20 seconds
// are due after 16 at the latest, those of 40 after 32, and end after 36. The
// longest pause after failures is 30 seconds; an exchange that hangs takes ten;
// and an issuer that was given a rest may be tried some seconds later.
func issuerFault(name string, breaks func(s *scene) func()) fault {
	return fault{
		name: name, redis: plainRedis(), shortest: 20 * time.Second, longest: 77 * time.Second, breaks: breaks,
		lasts: 30 * time.Second, atIssuer: true, patience: 2 * time.Second, recovers: 50 * time.Second,
	}
}

// redisFault is one of a Redis that answers, or refuses at once. No call waits
// for a command's timeout, which is a second.
func redisFault(name string, redis func(*scene), lasts time.Duration, breaks func(s *scene) func()) fault {
	return fault{
		name: name, redis: redis, shortest: 15 * time.Second, longest: 45 * time.Second, breaks: breaks,
		lasts: lasts, patience: 750 * time.Millisecond, recovers: 20 * time.Second,
	}
}

// silentFault is one of a Redis that does not answer. A purchase takes four
// seconds then, two to look and two to save, behind the callers' backs: the
// tokens are such as live that long behind their refresh point, and due when it
// breaks.
func silentFault(name string, redis func(*scene), lasts time.Duration, breaks func(s *scene) func()) fault {
	f := redisFault(name, redis, lasts, breaks)
	f.shortest, f.longest, f.after = 45*time.Second, 64*time.Second, 33*time.Second
	return f
}

// registryKey is where the registry is in a Redis of several servers.
const registryKey = "tokenbroker:{tenants}:records"

// deployment is several servers that act as one.
type deployment interface {
	URL() string
	Primary(key string) *redistest.Server
}

// failover kills the primary that has the registry. Another takes over; the dead
// one comes back as its replica.
func failover(start func(t testing.TB, args ...string) deployment) (func(s *scene), func(s *scene) func()) {
	return func(s *scene) {
			s.several = start(s.t, "--appendonly", "yes")
			s.redisURL = s.several.URL()
		}, func(s *scene) func() {
			primary := s.several.Primary(registryKey)
			primary.Kill()
			return func() {
				if s.several.Primary(registryKey) == primary {
					s.t.Error("nobody has taken over")
				}
				primary.Restart()
			}
		}
}

// TestNoCallFailsForATenantThatHasAValidToken breaks one thing after the other
// under load.
func TestNoCallFailsForATenantThatHasAValidToken(t *testing.T) {
	t.Parallel()
	sentinel, sentinelFails := failover(func(t testing.TB, args ...string) deployment { return redistest.StartSentinel(t, args...) })
	cluster, clusterFails := failover(func(t testing.TB, args ...string) deployment { return redistest.StartCluster(t, args...) })
	for _, f := range []fault{
		issuerFault("the issuer refuses connections", func(s *scene) func() {
			s.issuer.shut()
			return s.issuer.open
		}),
		issuerFault("the issuer hangs", answers(simulator.Fault{Kind: simulator.KindHang})),
		issuerFault("the issuer answers 500", answers(simulator.Fault{Kind: simulator.KindStatus, Status: 500})),
		issuerFault("the issuer throttles", answers(simulator.Fault{Kind: simulator.KindStatus, Status: 429})),
		issuerFault("a firewall answers for the issuer", answers(simulator.Fault{Kind: simulator.KindWAF})),
		redisFault("redis is killed and restarted", plainRedis("--appendonly", "yes"), 20*time.Second, func(s *scene) func() {
			s.redis.Kill()
			return s.redis.Restart
		}),
		silentFault("redis is frozen", plainRedis(), 10*time.Second, func(s *scene) func() {
			s.redis.Pause()
			return s.redis.Resume
		}),
		silentFault("the sentinels' primary is killed", sentinel, 10*time.Second, sentinelFails),
		silentFault("the cluster loses the registry's primary", cluster, 10*time.Second, clusterFails),
		redisFault("redis loses everything", plainRedis(), 30*time.Second, func(s *scene) func() {
			if err := s.redis.Client().FlushAll(s.t.Context()).Err(); err != nil {
				s.t.Fatal(err)
			}
			return func() {} // Nobody brings it back.
		}),
	} {
		t.Run(f.name, func(t *testing.T) {
			t.Parallel()
			f.play(t)
		})
	}
}

// play builds a fleet, breaks it under load, mends it, and reports.
func (f *fault) play(t *testing.T) {
	s := &scene{t: t}
	f.redis(s)
	s.build(f.shortest, f.longest)
	l := startLoad(t, s.lives, s.conns...)
	lasts(t, f.after)

	before := l.take()
	tried, asked, bought := s.tried(), s.issuer.Requests(simulator.AllClients), s.issuer.Bought(simulator.AllClients)
	mend := f.breaks(s)
	lasts(t, f.lasts)
	during := l.take()
	tried = s.tried() - tried
	t.Logf("before:  %v", before)
	t.Logf("broken for %v: %v", f.lasts, during)
	t.Logf("%d exchanges tried, of which the issuer saw %d and sold %d",
		tried, s.issuer.Requests(simulator.AllClients)-asked, s.issuer.Bought(simulator.AllClients)-bought)
	mend()
	took := s.servedEverywhere(f.recovers)
	lasts(t, 5*time.Second) // What comes late, such as changes that were not heard, shows under load.
	l.stop()
	s.noPanic()
	after := l.take()
	t.Logf("mended:  %v", after)
	t.Logf("all %d tenants served on all %d replicas %v after it was mended", len(s.lives), len(s.replicas), took.Round(time.Millisecond))

	if during.callsWith < 1000 {
		t.Errorf("%d calls for tenants with a valid token are no load", during.callsWith)
	}
	if tried == 0 {
		t.Error("no refresh was tried while it was broken: nothing was shown")
	}
	for _, n := range []tally{before, during, after} {
		if !f.atIssuer && n.failedWithout > 0 {
			t.Errorf("the issuer sells, and %d calls fail", n.failedWithout)
		}
		if n.slowestWith > f.patience {
			t.Errorf("a call for a tenant that had a valid token took %v", n.slowestWith)
		}
	}
}

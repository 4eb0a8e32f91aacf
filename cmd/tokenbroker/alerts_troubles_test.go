package main_test

import (
	"net"
	"time"

	pb "smokeball.internal/tokenbroker/gen/tokenbroker/v1"
	"smokeball.internal/tokenbroker/internal/redisstore/redistest"
	"smokeball.internal/tokenbroker/internal/simulator"
)

// playIssuer has tokens of 24 seconds, replaced after 17 to 19: a 150th of an hour.
func playIssuer(s *stage) {
	const lifetime = 24 * time.Second
	c := s.enlist(redistest.Start(s.t, "--appendonly", "yes"), 1)
	ids := firms(12) // Enough for the issuer to be given a rest.
	c.registered(lifetime, ids...)
	s.warmed(c.conns[0], ids...)
	s.asked(c.conns[0], ids...)
	s.set("TENANT", ids[0])

	s.meet(trouble{
		fires: []string{"TokenBrokerRefreshesAheadFailing", "TokenBrokerIssuerRests", "TokenBrokerTokenEnding", "TokenBrokerErrorsFast", "TokenBrokerErrorsSlow"},
		provoke: func() {
			if err := c.issuer.SetFault(simulator.AllClients, simulator.Fault{Kind: simulator.KindStatus, Status: 500}); err != nil {
				s.t.Fatal(err)
			}
		},
		others: c.issuer.ClearFaults, // Smokeball mends it.
	})
}

// playTenant has somebody rotate a secret at Smokeball, and not here.
func playTenant(s *stage) {
	const lifetime = 24 * time.Second
	c := s.enlist(redistest.Start(s.t, "--appendonly", "yes"), 1)
	c.registered(lifetime, "acme")
	s.warmed(c.conns[0], "acme")
	s.asked(c.conns[0], "acme")
	s.set("TENANT", "acme")
	s.file("SECRET_FILE", "secret", "the-new-one\n")
	s.meet(trouble{
		fires: []string{"TokenBrokerTokenEnding", "TokenBrokerCredentialsRejected"},
		provoke: func() {
			c.issuer.SetClient(simulator.Client{Endpoint: "us/production", ID: "client-acme", Secrets: []string{"the-new-one"},
				Scopes: []string{"matters/read", "matters/write"}, ExpiresIn: lifetime})
			// A refusal holds for ten minutes. Other scopes are refused by themselves.
			for _, scopes := range [][]string{{"matters/read"}, {"matters/write"}} {
				_, _ = pb.NewTokenServiceClient(c.conns[0]).GetToken(s.t.Context(), &pb.GetTokenRequest{Tenant: "tenants/acme", Scopes: scopes})
				lasts(s.t, 2*prometheusStep) // It counts what grows from one look to the next.
			}
		},
	})
}

// playRedis breaks Redis, and what is in it.
func playRedis(s *stage) {
	c := s.enlist(redistest.Start(s.t, "--appendonly", "yes", "--appendfsync", "always"), 1)
	busy, cold := firms(3), "cold"
	c.registered(5*time.Second, busy...)
	c.registered(time.Hour, cold)
	s.asked(c.conns[0], busy...)
	c.backup()
	s.set("TENANT", cold)

	s.meet(trouble{fires: []string{"TokenBrokerRedisSlow"}, provoke: func() { s.slowDown(c.redis) }})
	s.meet(trouble{
		fires:   []string{"TokenBrokerRedisAway", "TokenBrokerChangesNotHeard"},
		provoke: c.redis.Kill,
	})
	s.meet(trouble{fires: []string{"TokenBrokerRedisErrors"}, provoke: func() {
		if err := c.redis.Client().ConfigSet(s.t.Context(), "maxmemory", "1").Err(); err != nil {
			s.t.Fatal(err)
		}
	}})
	// A record is put in the place of another's, of a tenant that nobody has asked for yet.
	s.meet(trouble{
		fires: []string{"TokenBrokerSealedRecordsRefused"},
		provoke: func() {
			other := c.redis.Client().HGet(s.t.Context(), registryKey, busy[0]).Val()
			if err := c.redis.Client().HSet(s.t.Context(), registryKey, cold, other).Err(); err != nil {
				s.t.Fatal(err)
			}
			for range 3 {
				_, _ = get(s.t.Context(), c.conns[0], cold)
				lasts(s.t, 2*prometheusStep)
			}
		},
	})
	s.meet(trouble{
		fires: []string{"TokenBrokerRegistryLost"},
		provoke: func() {
			if err := c.redis.Client().FlushAll(s.t.Context()).Err(); err != nil {
				s.t.Fatal(err)
			}
		},
	})
}

// slowDown has a client of Redis keep it busy for a quarter of a second at a time, until
// its connection is closed.
func (s *stage) slowDown(redis *redistest.Server) {
	s.t.Helper()
	conn, err := net.Dial("tcp", redis.Client().Options().Addr)
	if err != nil {
		s.t.Fatal(err)
	}
	s.set("CLIENT", conn.LocalAddr().String())
	s.again(time.Millisecond, func() {
		_, _ = conn.Write([]byte(`EVAL "local n = 0 for i = 1, 2e7 do n = n + i end return n" 0` + "\r\n"))
		_, _ = conn.Read(make([]byte, 100))
	})
	s.t.Cleanup(func() { _ = conn.Close() })
}

// playMinutes has what replicas look at every minute only: how Redis is set, here to write
// nothing to disk, and how old client secrets are.
func playMinutes(s *stage) {
	c := s.enlist(redistest.Start(s.t), 1)
	c.registered(time.Hour, "acme")
	c.issuer.SetClient(simulator.Client{Endpoint: "us/production", ID: "client-acme", Secrets: []string{"secret-of-acme", "the-new-one"}})
	s.set("TENANT", "acme")
	s.file("SECRET_FILE", "secret", "the-new-one\n")
	s.meet(trouble{fires: []string{"TokenBrokerRedisMayLose"}, provoke: func() {}})
	s.meet(trouble{fires: []string{"TokenBrokerClientSecretOld"}, provoke: func() {}})
}

// playFleet breaks replicas, and has them buy more than they should.
func playFleet(s *stage) {
	c := s.enlist(redistest.Start(s.t, "--appendonly", "yes"), 2, "exchange-rate: 1")

	// Of tokens that live for two seconds, twelve a second are wanted, and one may be bought.
	ids := firms(24)
	c.registered(2*time.Second, ids...)
	s.set("TENANT", ids[0])
	s.set("EXCHANGE_RATE", "25")
	var stop func()
	s.meet(trouble{fires: []string{"TokenBrokerBudgetClose"}, provoke: func() { stop = s.asked(c.conns[0], ids...) }})
	stop()

	// A caller has tokens replaced as often as it can.
	c.registered(2*time.Second, "loop")
	s.set("TENANT", "loop")
	s.meet(trouble{fires: []string{"TokenBrokerBoughtTooOften"}, provoke: func() {
		stop = s.again(100*time.Millisecond, func() {
			_, _ = pb.NewTokenServiceClient(c.conns[0]).RefreshToken(s.t.Context(), &pb.RefreshTokenRequest{Tenant: "tenants/loop"})
		})
	}})
	stop()

	s.meet(trouble{fires: []string{"TokenBrokerReplicaDown"}, provoke: func() { c.replica(0).kill() }})
	s.meet(trouble{fires: []string{"TokenBrokerNoReplicaReady"}, provoke: func() {
		c.redis.Kill()
		c.restart(func(*process) bool { return true })
	}})
}

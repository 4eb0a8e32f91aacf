package redisstore_test

import (
	"errors"
	"net"
	"net/url"
	"os"
	"regexp"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	"smokeball.internal/tokenbroker/internal/redisstore"
	"smokeball.internal/tokenbroker/internal/redisstore/redistest"
	"smokeball.internal/tokenbroker/internal/token"
)

// The commands of the reference configuration are those that the broker sends.
// Whoever lacks one of them is told which.
func TestRightsAreThoseOfTheReferenceConfiguration(t *testing.T) {
	t.Parallel()
	file, err := os.ReadFile(reference)
	if err != nil {
		t.Fatal(err)
	}
	var needed []string
	for _, word := range strings.Fields(string(regexp.MustCompile(`(?m)^user tokenbroker .*$`).Find(file))) {
		if command, ok := strings.CutPrefix(word, "+"); ok && command[0] != '@' && command != "cluster|slots" {
			needed = append(needed, command)
		}
	}
	server := redistest.Start(t)
	set := func(more ...any) {
		t.Helper()
		args := append([]any{"ACL", "SETUSER", "broker", "reset", "on", ">word", "~" + prefix + "*", "+@connection"}, more...)
		if err := server.Client().Do(t.Context(), args...).Err(); err != nil {
			t.Fatal(err)
		}
	}
	var all []any
	for _, command := range needed {
		all = append(all, "+"+command)
	}
	f := newFixture(t, server.URL())
	as := f.openAt(t, strings.Replace(server.URL(), "redis://", "redis://broker:word@", 1), f.keyset)
	before := server.Client().DBSize(t.Context()).Val()
	for _, lacks := range append(needed, "") {
		set(all...)
		if lacks != "" {
			set(append(slices.Clone(all), "-"+lacks)...)
		}
		rights, err := as.Rights(t.Context())
		if err != nil || len(rights.Refused) > 0 || strings.Join(rights.Missing, " ") != lacks {
			t.Errorf("without %q: %+v, %v", lacks, rights, err)
		}
	}
	set(append(slices.Clone(all), "resetkeys", "~other:*")...)
	rights, err := as.Rights(t.Context())
	for _, command := range needed {
		// What has no key is for everybody's.
		if keyless := command == "time" || command == "info" || command == "scan"; err != nil || slices.Contains(rights.Missing, command) == keyless {
			t.Errorf("with other keys, %s: %+v, %v", command, rights, err)
		}
	}
	if now := server.Client().DBSize(t.Context()).Val(); now != before {
		t.Errorf("there were %d keys and are %d", before, now)
	}
}

func TestRightsSayWhyChangesAreRefused(t *testing.T) {
	t.Parallel()
	server := redistest.Start(t)
	s := newFixture(t, server.URL())
	if err := server.Client().Do(t.Context(), "CONFIG", "SET", "min-replicas-to-write", "1").Err(); err != nil {
		t.Fatal(err)
	}
	if rights, err := s.Rights(t.Context()); err != nil || rights.Missing != nil || strings.Join(rights.Refused, " ") != "NOREPLICAS" {
		t.Errorf("without replicas: %+v, %v", rights, err)
	}
	if err := server.Client().Do(t.Context(), "REPLICAOF", "127.0.0.1", "1").Err(); err != nil {
		t.Fatal(err)
	}
	servers, err := s.Servers(t.Context())
	if err != nil || len(servers) != 1 || !servers[0].Replica {
		t.Errorf("a replica: %+v, %v", servers, err)
	}
	rights, err := newFixture(t, server.URL()).Rights(t.Context())
	if err != nil || !slices.Contains(rights.Refused, "READONLY") {
		t.Errorf("a replica: %+v, %v", rights, err)
	}
}

func TestServersSayWhoTheyAre(t *testing.T) {
	t.Parallel()
	for name, test := range map[string]struct {
		url   string
		count int
		addr  bool
	}{
		"one":       {redistest.Start(t).URL(), 1, true},
		"TLS":       {redistest.StartTLS(t).URL(), 1, true},
		"sentinels": {redistest.StartSentinel(t).URL(), 1, false},
		"cluster":   {redistest.StartCluster(t).URL(), 3, true},
	} {
		t.Run(name, func(t *testing.T) {
			f := newFixture(t, redistest.Start(t).URL())
			f.Store = f.openUnder(t, test.url, prefix, f.keyset)
			servers, err := f.Servers(t.Context())
			if err != nil || len(servers) != test.count {
				t.Fatalf("%+v, %v", servers, err)
			}
			for _, s := range servers {
				_, _, bad := net.SplitHostPort(s.Addr)
				if (bad == nil) != test.addr || !regexp.MustCompile(`^\d+\.\d+\.\d+$`).MatchString(s.Version) || s.Replica ||
					s.Latency <= 0 || s.Latency > time.Second || s.Ahead.Abs() > 2*time.Second {
					t.Errorf("%+v", s)
				}
			}
			if rights, err := f.Rights(t.Context()); err != nil || len(rights.Missing)+len(rights.Refused) > 0 {
				t.Errorf("rights: %+v, %v", rights, err)
			}
			reached, err := redisstore.Reach(t.Context(), redisstore.Config{URL: test.url})
			if err != nil || len(reached) == 0 {
				t.Fatalf("%v, %v", reached, err)
			}
			for _, r := range reached {
				if r.Step != "" || r.Err != nil {
					t.Errorf("%+v", r)
				}
			}
		})
	}
}

func TestReachSaysHowFarItIs(t *testing.T) {
	t.Parallel()
	plain, encrypted := redistest.Start(t), redistest.StartTLS(t)
	u, err := url.Parse(encrypted.URL())
	if err != nil {
		t.Fatal(err)
	}
	for name, test := range map[string]struct {
		url, step string
		as        error
	}{
		"no such name":      {"redis://no-such-host.invalid:6379", redisstore.StepResolve, nil},
		"nobody there":      {"redis://127.0.0.1:1", redisstore.StepConnect, syscall.ECONNREFUSED},
		"no TLS there":      {strings.Replace(plain.URL(), "redis", "rediss", 1), redisstore.StepTLS, nil},
		"another authority": {"rediss://" + u.Host, redisstore.StepTLS, nil},
	} {
		reached, err := redisstore.Reach(t.Context(), redisstore.Config{URL: test.url})
		if err != nil || len(reached) != 1 || reached[0].Step != test.step || reached[0].Err == nil || test.as != nil && !errors.Is(reached[0].Err, test.as) {
			t.Errorf("%s: %+v, %v", name, reached, err)
		}
	}
	if _, err := redisstore.Reach(t.Context(), redisstore.Config{URL: "redis://:planted@host:x"}); err == nil || strings.Contains(err.Error(), "planted") {
		t.Errorf("no URL: %v", err)
	}
}

func TestRegistryTellsALostOneFromNone(t *testing.T) {
	t.Parallel()
	server := redistest.Start(t)
	f := newFixture(t, server.URL())
	want := func(what string, want redisstore.RegistryState) {
		t.Helper()
		if got, err := f.Registry(t.Context()); err != nil || got != want {
			t.Errorf("%s: %+v, %v, want %+v", what, got, err, want)
		}
	}
	want("new", redisstore.RegistryState{})
	created, err := f.CreateTenant(t.Context(), newTenant("acme"))
	if err != nil {
		t.Fatal(err)
	}
	want("one registered", redisstore.RegistryState{Tenants: 1, There: true, Heard: true})
	if err := f.DeleteTenant(t.Context(), "acme", created.Etag); err != nil {
		t.Fatal(err)
	}
	want("the last one deleted", redisstore.RegistryState{There: true, Heard: true})
	server.Client().FlushAll(t.Context())
	want("emptied", redisstore.RegistryState{})
	if err := f.SaveFailure(t.Context(), keyOf("acme"), newFailure(token.Unavailable, time.Minute)); err != nil {
		t.Fatal(err)
	}
	want("emptied, and brokers work on", redisstore.RegistryState{Heard: true})
}

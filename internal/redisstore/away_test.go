package redisstore_test

import (
	"bytes"
	"context"
	"errors"
	"net"
	"strings"
	"sync"
	"testing"
	"time"

	"smokeball.internal/tokenbroker/internal/redisstore"
	"smokeball.internal/tokenbroker/internal/redisstore/redistest"
	"smokeball.internal/tokenbroker/internal/tenant"
	"smokeball.internal/tokenbroker/internal/token"
)

// calls is every method that asks Redis.
func calls(f *fixture) map[string]func(context.Context) error {
	k := keyOf("acme")
	return map[string]func(context.Context) error{
		"Ping":        f.Ping,
		"Load":        func(ctx context.Context) error { _, _, err := f.Load(ctx, k); return err },
		"Save":        func(ctx context.Context) error { _, err := f.Save(ctx, k, newToken("a", 0, time.Hour)); return err },
		"SaveFailure": func(ctx context.Context) error { return f.SaveFailure(ctx, k, newFailure("throttled", time.Hour)) },
		"Lease": func(ctx context.Context) error {
			_, err := f.Lease(ctx, k, "a", time.Minute)
			return err
		},
		"Release":      func(ctx context.Context) error { return f.Release(ctx, k, "a") },
		"Admit":        func(ctx context.Context) error { _, err := f.Admit(ctx, k.Endpoint, turnRequest); return err },
		"WarmTenants":  func(ctx context.Context) error { _, _, err := f.WarmTenants(ctx, "", 10); return err },
		"Tenant":       func(ctx context.Context) error { _, err := f.Tenant(ctx, "acme"); return err },
		"ListTenants":  func(ctx context.Context) error { _, _, err := f.ListTenants(ctx, "", 10); return err },
		"FindTenants":  func(ctx context.Context) error { _, _, err := f.FindTenants(ctx, "c", "", 10); return err },
		"CountTenants": func(ctx context.Context) error { _, err := f.CountTenants(ctx); return err },
		"Replicas":     func(ctx context.Context) error { _, _, err := f.Replicas(ctx); return err },
		"LoadAll": func(ctx context.Context) error {
			_, err := f.LoadAll(ctx, []token.Key{k, keyOf("globex"), keyOf("initech")})
			return err
		},
		"CreateTenant": func(ctx context.Context) error { _, err := f.CreateTenant(ctx, newTenant("acme")); return err },
		"UpdateTenant": func(ctx context.Context) error { _, err := f.UpdateTenant(ctx, newTenant("acme")); return err },
		"DeleteTenant": func(ctx context.Context) error { return f.DeleteTenant(ctx, "acme", "00") },
		"SecretAges":   func(ctx context.Context) error { _, err := f.SecretAges(ctx, nil, 10); return err },
		"Reseal":       func(ctx context.Context) error { _, err := f.Reseal(ctx, redisstore.ResealOptions{}); return err },
		"Export and Import": func(ctx context.Context) error {
			var file bytes.Buffer
			if _, err := f.Export(ctx, &file); err != nil {
				return err
			}
			backup, err := redisstore.ReadBackup(&file)
			if err == nil {
				_, err = f.Import(ctx, backup, redisstore.ImportOptions{})
			}
			return err
		},
	}
}

// isOutage says whether an error means that Redis could not be asked.
func isOutage(err error) bool {
	for _, answer := range []error{nil, tenant.ErrNotFound, tenant.ErrExists, tenant.ErrConflict, tenant.ErrUnreadable, redisstore.ErrNoRegistry} {
		if errors.Is(err, answer) {
			return false
		}
	}
	return true
}

func TestAwayRedisIsAnErrorInTime(t *testing.T) {
	t.Parallel()
	for _, test := range []struct {
		name       string
		away, back func(*redistest.Server)
	}{
		{"killed", (*redistest.Server).Kill, (*redistest.Server).Restart},
		{"paused", (*redistest.Server).Pause, (*redistest.Server).Resume},
	} {
		t.Run(test.name, func(t *testing.T) {
			t.Parallel()
			server := redistest.Start(t)
			f := newFixture(t, server.URL())
			f.save(t, keyOf("acme"), newToken("before", time.Minute, time.Hour)) // So that there are connections.
			test.away(server)
			// A caller in more of a hurry than the store, which waits for a second.
			wantErrors(t, f, 50*time.Millisecond, 950*time.Millisecond)
			wantErrors(t, f, time.Hour, 8*time.Second)
			test.back(server)
			for name, call := range calls(f) {
				eventually(t, name+" works again", func() bool { return !isOutage(call(t.Context())) })
			}
		})
	}
}

// wantErrors calls everything at once and wants each to return an error within
// the bound.
func wantErrors(t *testing.T, f *fixture, deadline, bound time.Duration) {
	t.Helper()
	callAll(t, f, deadline, bound, func(name string, err error) {
		if !isOutage(err) {
			t.Errorf("%s: error %v", name, err)
		}
	})
}

// callAll calls everything at once, wants each to end within the bound, and has
// its error checked.
func callAll(t *testing.T, f *fixture, deadline, bound time.Duration, check func(name string, err error)) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), deadline)
	defer cancel()
	var running sync.WaitGroup
	for name, call := range calls(f) {
		running.Go(func() {
			begin := time.Now()
			err := call(ctx)
			if took := time.Since(begin); took > bound {
				t.Errorf("%s took %v with a deadline in %v: %v", name, took, deadline, err)
			}
			check(name, err)
		})
	}
	running.Wait()
}

// After a failover connections may still lead to the old primary, a replica now.
func TestStoreWorksAgainAfterItsRedisWasAReplica(t *testing.T) {
	t.Parallel()
	server := redistest.Start(t)
	f := newFixture(t, server.URL())
	k := keyOf("acme")
	f.save(t, k, newToken("before", time.Minute, time.Hour))
	host, port, _ := net.SplitHostPort(strings.TrimPrefix(redistest.Start(t).URL(), "redis://"))
	// It never gets the data of this one, and so keeps its own.
	if err := f.raw.ConfigSet(t.Context(), "masterauth", "refused").Err(); err != nil {
		t.Fatal(err)
	}
	if err := f.raw.Do(t.Context(), "REPLICAOF", host, port).Err(); err != nil {
		t.Fatal(err)
	}
	younger := newToken("after", 0, time.Hour)
	if _, err := f.Save(t.Context(), k, younger); err == nil {
		t.Error("saved on a replica")
	}
	if err := f.raw.Do(t.Context(), "REPLICAOF", "NO", "ONE").Err(); err != nil {
		t.Fatal(err)
	}
	if kept := f.save(t, k, younger); kept != younger {
		t.Errorf("kept %s", text(kept))
	}
}

// Scripts may use keys of one slot only, which a server in cluster mode checks.
func TestScriptsKeepToOneSlot(t *testing.T) {
	t.Parallel()
	f := newFixture(t, redistest.Start(t, "--cluster-enabled", "yes").URL())
	if err := f.raw.Do(t.Context(), "CLUSTER", "ADDSLOTSRANGE", 0, 16383).Err(); err != nil {
		t.Fatal(err)
	}
	eventually(t, "the cluster is up", func() bool {
		return strings.Contains(f.raw.ClusterInfo(t.Context()).Val(), "cluster_state:ok")
	})
	for name, call := range calls(f) {
		if err := call(t.Context()); isOutage(err) {
			t.Errorf("%s: %v", name, err)
		}
	}
}

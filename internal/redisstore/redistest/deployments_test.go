package redistest_test

import (
	"context"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/redis/go-redis/v9"

	"smokeball.internal/tokenbroker/internal/redisstore/redistest"
)

// deployment is what Sentinel and Cluster have in common.
type deployment interface {
	URL() string
	Primary(key string) *redistest.Server
	Replica(key string) *redistest.Server
}

func TestReplicaTakesOverFromADeadPrimary(t *testing.T) {
	t.Parallel()
	for name, test := range map[string]struct {
		start  func() deployment
		scheme string
	}{
		"sentinel": {func() deployment { return redistest.StartSentinel(t) }, "redis+sentinel://127.0.0.1:"},
		"cluster":  {func() deployment { return redistest.StartCluster(t) }, "redis+cluster://127.0.0.1:"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			d := test.start()
			if !strings.HasPrefix(d.URL(), test.scheme) {
				t.Errorf("URL = %s", d.URL())
			}
			const key = "{tenants}:x"
			before, after := d.Primary(key), d.Replica(key)
			if err := before.Client().Set(t.Context(), key, "1", 0).Err(); err != nil {
				t.Fatal(err)
			}
			await(t, "the replica has it", func() bool { return after.Client().DBSize(t.Context()).Val() == 1 })
			before.Kill()
			died := time.Now()
			await(t, "the replica is the primary", func() bool { return d.Primary(key) == after })
			t.Logf("after %v", time.Since(died).Round(time.Millisecond))
			await(t, "it has the key and takes writes", func() bool {
				return after.Client().Get(t.Context(), key).Val() == "1" && after.Client().Set(t.Context(), key, "2", 0).Err() == nil
			})
			before.Restart()
			await(t, "the old primary follows the new one", func() bool {
				return strings.Contains(before.Client().Info(t.Context(), "replication").Val(), "master_link_status:up")
			})
			await(t, "they have changed places", func() bool { return d.Primary(key) == after && d.Replica(key) == before })
		})
	}
}

func TestServerWithTLSWantsACertificate(t *testing.T) {
	t.Parallel()
	s := redistest.StartTLS(t)
	if !strings.HasPrefix(s.URL(), "rediss://127.0.0.1:") || !strings.Contains(s.URL(), "?ca_file=") {
		t.Errorf("URL = %s", s.URL())
	}
	if err := s.Client().Ping(t.Context()).Err(); err != nil {
		t.Error(err)
	}
	plain := redis.NewClient(&redis.Options{Addr: s.Client().Options().Addr, MaxRetries: -1})
	defer func() { _ = plain.Close() }()
	if err := plain.Ping(t.Context()).Err(); err == nil {
		t.Error("it answers without TLS")
	}
}

func TestServerHasTheUsersAndTheFileThatItIsGiven(t *testing.T) {
	t.Parallel()
	file := filepath.Join(t.TempDir(), "redis.conf")
	if err := os.WriteFile(file, []byte("maxmemory 12345678\nuser default off\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	s := redistest.Start(t, file, "--user", "reader", "on", ">open", "~*", "+config|get")
	as := redis.NewClient(&redis.Options{Addr: s.Client().Options().Addr, Username: "reader", Password: "open", DisableIdentity: true})
	defer func() { _ = as.Close() }()
	if got := as.ConfigGet(t.Context(), "maxmemory").Val()["maxmemory"]; got != "12345678" {
		t.Errorf("maxmemory = %q", got)
	}
	if err := as.Get(t.Context(), "a").Err(); !redis.IsPermissionError(err) {
		t.Errorf("GET: %v", err)
	}
}

func TestWaitingServerHasWAITAOF(t *testing.T) {
	t.Parallel()
	s := redistest.StartWaiting(t, "--appendonly", "yes")
	c := s.Client().Conn()
	defer func() { _ = c.Close() }()
	if err := c.Set(t.Context(), "a", "1", 0).Err(); err != nil {
		t.Fatal(err)
	}
	if got, err := c.WaitAOF(t.Context(), 1, 0, 10*time.Second).Result(); err != nil || got[0] != 1 {
		t.Errorf("WAITAOF: %v, %v", got, err)
	}
}

// await waits until what is described is so.
func await(t *testing.T, what string, so func() bool) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	for !so() {
		select {
		case <-ctx.Done():
			t.Fatalf("not within a minute: %s", what)
		case <-time.After(20 * time.Millisecond):
		}
	}
}

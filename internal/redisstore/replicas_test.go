package redisstore_test

import (
	"context"
	"fmt"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/redis/go-redis/v9"

	"smokeball.internal/tokenbroker/internal/redisstore"
	"smokeball.internal/tokenbroker/internal/redisstore/redistest"
)

const replicasKey = prefix + "{tenants}:replicas"

func (f *fixture) replicas(t *testing.T) ([]redisstore.Replica, int) {
	t.Helper()
	all, n, err := f.Replicas(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	return all, n
}

// attend has a store say that it is there, until the function returned is called.
func attend(t *testing.T, s *redisstore.Store, r redisstore.Replica) (leave func()) {
	t.Helper()
	ctx, cancel := context.WithCancel(context.Background())
	var attending sync.WaitGroup
	attending.Go(func() { s.Attend(ctx, r) })
	t.Cleanup(func() { cancel(); attending.Wait() })
	return func() { cancel(); attending.Wait() }
}

func TestReplicasKnowOfEachOther(t *testing.T) {
	onBoth(t, func(t *testing.T, f *fixture) {
		if all, n := f.replicas(t); len(all) != 0 || n != 0 {
			t.Errorf("before anyone came: %+v", all)
		}
		since := time.Now().Add(-time.Hour).Round(time.Second)
		attend(t, f.Store, redisstore.Replica{Name: "one", Addr: "127.0.0.1:9090", Version: "v1", Since: since})
		leave := attend(t, f.open(t, f.keyset), redisstore.Replica{Name: "two", Version: "v2", Since: since})
		eventually(t, "both are there", func() bool { _, n := f.replicas(t); return n == 2 })
		all, _ := f.replicas(t)
		for _, r := range all {
			if r.Self != (r.Name == "one") || !r.Since.Equal(since) || r.Seen > patience || r.Self && (r.Version != "v1" || r.Addr != "127.0.0.1:9090") {
				t.Errorf("%+v", r)
			}
		}
		leave()
		if all, n := f.replicas(t); n != 1 || all[0].Name != "one" {
			t.Errorf("after one has left: %+v", all)
		}
		if left := f.pttl(t, replicasKey); left <= 0 || left > time.Hour {
			t.Errorf("it ends in %v", left)
		}
	})
}

// One that has ended without a word is remembered for an hour. What others write
// there is not believed to be anything.
func TestReplicasThatAreGoneAndWhatIsNone(t *testing.T) {
	t.Parallel()
	f := newFixture(t, redistest.Start(t).URL())
	now, err := f.raw.Time(t.Context()).Result()
	if err != nil {
		t.Fatal(err)
	}
	ago := func(d time.Duration) float64 { return float64(now.Add(-d).UnixMilli()) }
	odd := []redis.Z{
		{Score: ago(59 * time.Minute), Member: `{"id": "a", "name": "silent"}`},
		{Score: ago(61 * time.Minute), Member: `{"id": "b", "name": "forgotten"}`},
		{Score: ago(time.Minute), Member: "not json"},
		{Score: ago(time.Minute), Member: `{"id": "c", "name": "` + strings.Repeat("long", 300) + `"}`},
	}
	for n := range 300 {
		odd = append(odd, redis.Z{Score: ago(30 * time.Minute), Member: fmt.Sprintf(`{"name": "flood-%d"}`, n)})
	}
	if err := f.raw.ZAdd(t.Context(), replicasKey, odd[:4]...).Err(); err != nil {
		t.Fatal(err)
	}
	attend(t, f.Store, redisstore.Replica{Name: "here"})
	eventually(t, "it is there", func() bool { all, _ := f.replicas(t); return len(all) > 0 && all[0].Self })
	all, n := f.replicas(t)
	if len(all) != 2 || all[0].Name != "here" || all[1].Name != "silent" || (all[1].Seen-59*time.Minute).Abs() > patience {
		t.Errorf("of %d: %+v", n, all)
	}
	if err := f.raw.ZAdd(t.Context(), replicasKey, odd...).Err(); err != nil {
		t.Fatal(err)
	}
	if all, n := f.replicas(t); len(all) != 198 || n != 305 || all[0].Name != "here" {
		t.Errorf("%d of %d are listed", len(all), n)
	}
}

// comeAndGo has the replica say that it is there, and that it is gone.
func comeAndGo(t *testing.T, f *fixture) {
	t.Helper()
	there := func() bool { all, _ := f.replicas(t); return len(all) > 0 && all[0].Self }
	leave := attend(t, f.Store, redisstore.Replica{Name: "here"})
	eventually(t, "it is there", there)
	if leave(); there() {
		t.Error("it is still there")
	}
}

package redisstore

import (
	"context"
	"encoding/json"
	"fmt"
	"time"
)

const (
	// How often a replica says that it is there.
	attendEvery = 10 * time.Second
	// How long one is remembered that has ended without a word.
	attendMemory = time.Hour
	// How many replicas are looked at, and how much of what each says. Who can write
	// to Redis can add others.
	maxReplicas    = 200
	maxReplicaSize = 1 << 10
)

// Replica is one broker of the fleet, as it says of itself.
type Replica struct {
	// ID is the store's; Attend sets it.
	ID string `json:"id"`
	// Name is the host's, and Addr where its API is.
	Name string `json:"name"`
	Addr string `json:"addr,omitempty"`
	// Version is the program's.
	Version string `json:"version"`
	// Since is when it started, by its own clock.
	Since time.Time `json:"since"`
	// Seen is how long ago it was heard, by Redis's clock.
	Seen time.Duration `json:"-"`
	// Self: it is the one that this store is of.
	Self bool `json:"-"`
}

// Attend says that this replica is there, now and every ten seconds, until ctx
// ends; then, that it is gone. Nothing depends on it but what people see.
func (s *Store) Attend(ctx context.Context, r Replica) {
	r.ID = s.replica
	said, err := json.Marshal(r)
	if err != nil {
		s.log.WarnContext(ctx, "the other replicas do not hear of this one", "error", err)
		return
	}
	ticker := time.NewTicker(attendEvery)
	defer ticker.Stop()
	there := false
	for {
		err := attendScript.Run(ctx, s.client, []string{s.replicasKey()}, said, attendMemory.Milliseconds()).Err()
		if ctx.Err() == nil {
			there = err == nil
			if err != nil {
				s.log.DebugContext(ctx, "the other replicas do not hear of this one", "error", err)
			}
		}
		select {
		case <-ticker.C:
			continue
		case <-ctx.Done():
		}
		if there { // Else it would only take time.
			bye, cancel := context.WithTimeout(context.WithoutCancel(ctx), commandTimeout)
			defer cancel()
			_ = s.client.ZRem(bye, s.replicasKey(), said).Err()
		}
		return
	}
}

// Replicas returns those of the fleet that were heard of within an hour, the last
// heard first, up to 200, and how many there are.
func (s *Store) Replicas(ctx context.Context) (replicas []Replica, count int, err error) {
	reply, err := replicasScript.Run(ctx, s.client, []string{s.replicasKey()}, maxReplicas).Slice()
	if err != nil || len(reply) != 3 {
		return nil, 0, fmt.Errorf("list replicas: %w", err)
	}
	now, _ := reply[0].(int64)
	n, _ := reply[1].(int64)
	said, _ := reply[2].([]any)
	for i := 0; i+1 < len(said); i += 2 {
		var r Replica
		var at float64
		text, _ := said[i].(string)
		score, _ := said[i+1].(string)
		if len(text) > maxReplicaSize || json.Unmarshal([]byte(text), &r) != nil || json.Unmarshal([]byte(score), &at) != nil {
			continue
		}
		r.Seen = max(0, time.Duration(float64(now)-at)*time.Millisecond)
		r.Self = r.ID == s.replica
		replicas = append(replicas, r)
	}
	return replicas, int(n), nil
}

package redisstore

import (
	"context"
	"fmt"
	"slices"
	"strings"
	"sync"

	"github.com/redis/go-redis/v9"
)

// Warning is something about the Redis that may lose what is stored in it.
type Warning struct {
	// Kind is stable, one of WarningKinds.
	Kind string
	// Text says what may be lost and what to set, for people.
	Text string
}

// The kinds of warnings.
const (
	evictsRegistrations = "evicts_registrations"
	evictsTokens        = "evicts_tokens"
	noPersistence       = "no_persistence"
	snapshotsOnly       = "snapshots_only"
	aofNeverSynced      = "aof_never_synced"
	aofWriteFailed      = "aof_write_failed"
	snapshotFailed      = "snapshot_failed"
	settingsNotSeen     = "settings_not_seen"
)

// warningTexts says what each kind means.
func warningTexts() map[string]string {
	return map[string]string{
		evictsRegistrations: "Redis evicts any key when its memory is full: registrations may be lost. Set maxmemory-policy noeviction.",
		evictsTokens: "Redis evicts keys that expire when its memory is full: tokens may be bought again, and by several replicas at once. " +
			"Set maxmemory-policy noeviction.",
		noPersistence:  "Redis writes nothing to disk: a restart loses every registration. Set appendonly yes.",
		snapshotsOnly:  "Redis writes snapshots only: a crash loses every registration since the last one, acknowledged or not. Set appendonly yes.",
		aofNeverSynced: "Redis never has its log synced to disk: registrations are made, but not acknowledged. Set appendfsync everysec, or always.",
		aofWriteFailed: "Redis cannot write its log: it takes no registrations, or loses them with the next restart. Look at its disk and its log.",
		snapshotFailed: "The last snapshot of Redis failed: it may take no registrations, and without appendonly yes a restart loses those since the snapshot before. " +
			"Look at its disk and its log.",
		settingsNotSeen: "Redis does not say how it keeps data (it is managed by somebody, or its user may not ask): whether registrations may be lost " +
			"cannot be seen from here. Check that it persists and does not evict.",
	}
}

// WarningKinds returns every kind there is, in the order of the alphabet.
func WarningKinds() []string {
	var kinds []string
	for kind := range warningTexts() {
		kinds = append(kinds, kind)
	}
	slices.Sort(kinds)
	return kinds
}

// Warnings looks at the server, or each primary of a cluster, and returns what
// may lose what is stored in it, in the order of the kinds; none if all is well.
// An error means that Redis could not be asked.
func (s *Store) Warnings(ctx context.Context) ([]Warning, error) {
	var mu sync.Mutex
	found := map[string]bool{}
	look := func(ctx context.Context, server *redis.Client) error {
		kinds, err := warningsOf(ctx, server)
		mu.Lock()
		defer mu.Unlock()
		for _, kind := range kinds {
			found[kind] = true
		}
		return err
	}
	var err error
	switch client := s.client.(type) {
	case *redis.ClusterClient:
		err = client.ForEachMaster(ctx, look)
	case *redis.Client:
		err = look(ctx, client)
	}
	if err != nil {
		return nil, fmt.Errorf("look at redis: %w", reduce(err))
	}
	var warnings []Warning
	for _, kind := range WarningKinds() {
		if found[kind] {
			warnings = append(warnings, Warning{kind, warningTexts()[kind]})
		}
	}
	return warnings, nil
}

// warningsOf returns the kinds of what is wrong with one server. What INFO says
// is asked of everyone; CONFIG is not, since whoever may read it may read the
// passwords in it, and it adds what matters without a log only.
func warningsOf(ctx context.Context, server *redis.Client) ([]string, error) {
	said, err := server.Info(ctx).Result()
	if refused(err) {
		return []string{settingsNotSeen}, nil
	}
	if err != nil {
		return nil, err
	}
	info := fields(said)
	var kinds []string
	policy, aof := info["maxmemory_policy"], info["aof_enabled"]
	switch {
	case info["maxmemory"] == "0":
	case strings.HasPrefix(policy, "allkeys-"):
		kinds = append(kinds, evictsRegistrations)
	case strings.HasPrefix(policy, "volatile-"):
		kinds = append(kinds, evictsTokens)
	}
	if info["aof_last_write_status"] == "err" {
		kinds = append(kinds, aofWriteFailed)
	}
	if info["rdb_last_bgsave_status"] == "err" {
		kinds = append(kinds, snapshotFailed)
	}
	setting := "appendfsync"
	if aof != "1" {
		setting = "save"
	}
	config, err := server.ConfigGet(ctx, setting).Result()
	if err != nil && !refused(err) {
		return nil, err
	}
	value, seen := config[setting]
	switch {
	case policy == "" || aof == "" || aof != "1" && !seen:
		kinds = append(kinds, settingsNotSeen)
	case aof == "1" && value == "no":
		kinds = append(kinds, aofNeverSynced)
	case aof != "1" && value == "":
		kinds = append(kinds, noPersistence)
	case aof != "1":
		kinds = append(kinds, snapshotsOnly)
	}
	return kinds, nil
}

// fields reads the answer to INFO.
func fields(info string) map[string]string {
	values := map[string]string{}
	for line := range strings.SplitSeq(info, "\r\n") {
		if name, value, ok := strings.Cut(line, ":"); ok {
			values[name] = value
		}
	}
	return values
}

package redisstore_test

import (
	"context"
	"os"
	"slices"
	"strings"
	"testing"
	"time"

	"smokeball.internal/tokenbroker/internal/redisstore"
	"smokeball.internal/tokenbroker/internal/redisstore/redistest"
)

// warnings returns the kinds that a store warns of.
func warnings(t *testing.T, s *redisstore.Store) []string {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), 10*time.Second)
	defer cancel()
	found, err := s.Warnings(ctx)
	if err != nil {
		t.Fatal(err)
	}
	var kinds []string
	for _, w := range found {
		kinds = append(kinds, w.Kind)
		if !slices.Contains(redisstore.WarningKinds(), w.Kind) {
			t.Errorf("%s is no kind", w.Kind)
		}
		if !strings.HasSuffix(w.Text, ".") || len(w.Text) < 60 {
			t.Errorf("%s: %q is no sentence", w.Kind, w.Text)
		}
	}
	return kinds
}

func TestSettingsThatLoseWhatIsStoredAreWarnedOf(t *testing.T) {
	t.Parallel()
	user := func(rules ...string) []string {
		return append([]string{"--user", "someone", "on", ">word", "~*", "+@all"}, rules...)
	}
	for name, test := range map[string]struct {
		args  []string
		as    string
		kinds []string
	}{
		"a log":                            {[]string{"--appendonly", "yes"}, "", nil},
		"snapshots":                        {[]string{"--save", "3600", "1"}, "", []string{"snapshots_only"}},
		"nothing on disk":                  {nil, "", []string{"no_persistence"}},
		"any key is evicted":               {[]string{"--appendonly", "yes", "--maxmemory", "100mb", "--maxmemory-policy", "allkeys-lru"}, "", []string{"evicts_registrations"}},
		"keys that expire are evicted":     {[]string{"--appendonly", "yes", "--maxmemory", "100mb", "--maxmemory-policy", "volatile-ttl"}, "", []string{"evicts_tokens"}},
		"memory is not limited":            {[]string{"--appendonly", "yes", "--maxmemory-policy", "allkeys-lru"}, "", nil},
		"memory is, and nothing evicted":   {[]string{"--appendonly", "yes", "--maxmemory", "100mb"}, "", nil},
		"a log that is never synced":       {[]string{"--appendonly", "yes", "--appendfsync", "no"}, "", []string{"aof_never_synced"}},
		"two at once":                      {[]string{"--maxmemory", "100mb", "--maxmemory-policy", "allkeys-random"}, "", []string{"evicts_registrations", "no_persistence"}},
		"may not read CONFIG, with a log":  {append(user("-config"), "--appendonly", "yes"), "someone:word", nil},
		"may not read CONFIG, without one": {user("-config"), "someone:word", []string{"settings_not_seen"}},
		"may not read INFO":                {append(user("-info"), "--appendonly", "yes"), "someone:word", []string{"settings_not_seen"}},
		"there is no CONFIG":               {[]string{"--rename-command", "CONFIG", ""}, "", []string{"settings_not_seen"}},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			url := redistest.Start(t, test.args...).URL()
			if test.as != "" {
				url = withUser(url, test.as)
			}
			if got := warnings(t, newFixtureAt(t, url).Store); !slices.Equal(got, test.kinds) {
				t.Errorf("warned of %q, want %q", got, test.kinds)
			}
		})
	}
}

func TestAFailedSnapshotIsWarnedOf(t *testing.T) {
	t.Parallel()
	server := redistest.Start(t, "--save", "3600", "1")
	f := newFixture(t, server.URL())
	if err := os.RemoveAll(server.Dir()); err != nil {
		t.Fatal(err)
	}
	if err := f.raw.BgSave(t.Context()).Err(); err != nil {
		t.Fatal(err)
	}
	eventually(t, "the snapshot has failed", func() bool { return slices.Contains(warnings(t, f.Store), "snapshot_failed") })
}

func TestALogThatCannotBeWrittenIsWarnedOf(t *testing.T) {
	t.Parallel()
	line := newLine(t, redistest.Start(t, "--appendonly", "yes").URL())
	s := newFixtureAt(t, line.url()).Store
	// Disks do not fail on demand; this is what a server says then.
	line.twistAnswers("aof_last_write_status:ok\r\naof_last_cow_size:0", "aof_last_write_status:err\r\naof_last_cow_siz:0")
	if got := warnings(t, s); !slices.Equal(got, []string{"aof_write_failed"}) {
		t.Errorf("warned of %q", got)
	}
}

func TestEveryPrimaryOfAClusterIsLookedAt(t *testing.T) {
	t.Parallel()
	c := redistest.StartCluster(t, "--appendonly", "yes")
	s := newFixtureAt(t, c.URL()).Store
	if got := warnings(t, s); got != nil {
		t.Errorf("warned of %q", got)
	}
	for setting, value := range map[string]string{"maxmemory": "100mb", "maxmemory-policy": "allkeys-lru"} {
		if err := c.Primary("any").Client().ConfigSet(t.Context(), setting, value).Err(); err != nil {
			t.Fatal(err)
		}
	}
	if got := warnings(t, s); !slices.Equal(got, []string{"evicts_registrations"}) {
		t.Errorf("warned of %q", got)
	}
}

func TestARedisThatIsAwayIsNoWarning(t *testing.T) {
	t.Parallel()
	server := redistest.Start(t)
	f := newFixture(t, server.URL())
	server.Kill()
	if got, err := f.Warnings(t.Context()); err == nil || got != nil {
		t.Errorf("warned of %v, error %v", got, err)
	}
}

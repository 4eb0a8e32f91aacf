package redistest_test

import (
	"context"
	"strings"
	"testing"
	"time"

	"smokeball.internal/tokenbroker/internal/redisstore/redistest"
)

func TestServerKeepsWhatIsOnDiskOverAKill(t *testing.T) {
	t.Parallel()
	s := redistest.Start(t, "--appendonly", "yes", "--appendfsync", "always")
	ctx := context.Background()
	if err := s.Client().Set(ctx, "a", "1", 0).Err(); err != nil {
		t.Fatal(err)
	}
	url := s.URL()
	s.Kill()
	if err := s.Client().Ping(ctx).Err(); err == nil {
		t.Error("a killed server answers")
	}
	s.Restart()
	if got := s.Client().Get(ctx, "a").Val(); got != "1" {
		t.Errorf("a = %q after the restart, want 1", got)
	}
	if s.URL() != url {
		t.Errorf("URL = %s, was %s", s.URL(), url)
	}
}

func TestServerAnswersNothingWhilePaused(t *testing.T) {
	t.Parallel()
	s := redistest.Start(t)
	ctx := context.Background()
	if err := s.Client().Ping(ctx).Err(); err != nil {
		t.Fatal(err)
	}
	s.Pause()
	short, cancel := context.WithTimeout(ctx, 50*time.Millisecond)
	defer cancel()
	if err := s.Client().Ping(short).Err(); err == nil {
		t.Error("a paused server answers")
	}
	s.Resume()
	if err := s.Client().Ping(ctx).Err(); err != nil {
		t.Errorf("after Resume: %v", err)
	}
}

func TestServerIsOnLoopbackAndSavesNothingUnasked(t *testing.T) {
	t.Parallel()
	s := redistest.Start(t)
	if !strings.HasPrefix(s.URL(), "redis://127.0.0.1:") {
		t.Errorf("URL = %s", s.URL())
	}
	for name, want := range map[string]string{"bind": "127.0.0.1", "save": "", "dir": s.Dir()} {
		if got := s.Client().ConfigGet(context.Background(), name).Val()[name]; got != want {
			t.Errorf("%s = %q, want %q", name, got, want)
		}
	}
}

package redisstore_test

import (
	"context"
	"testing"
	"time"

	"smokeball.internal/tokenbroker/internal/redisstore/redistest"
)

// A Redis that is stopped goes on, when it may, with what had been sent to it
// before: also with a token that has grown old on the way.
func TestATokenThatIsSavedLateDoesNotLiveLonger(t *testing.T) {
	t.Parallel()
	server := redistest.Start(t)
	f := newFixture(t, server.URL())
	k := keyOf("late")
	if _, _, err := f.Load(t.Context(), k); err != nil { // As every flight does.
		t.Fatal(err)
	}
	f.save(t, keyOf("before"), newToken("before", 0, time.Hour)) // So that Redis knows the script.
	tok := newToken("late", 0, 30*time.Second)
	server.Pause()
	ctx, cancel := context.WithTimeout(t.Context(), 500*time.Millisecond)
	defer cancel()
	if _, err := f.Save(ctx, k, tok); err == nil {
		t.Fatal("a stopped Redis has answered")
	}
	eventually(t, "three seconds have passed", func() bool { return time.Until(tok.Expires) < 27*time.Second })
	server.Resume()
	eventually(t, "the token is saved", func() bool { return f.pttl(t, tokenKey(k)) > 0 })
	if ends := time.Now().Add(f.pttl(t, tokenKey(k))); ends.After(tok.Expires.Add(time.Second)) {
		t.Errorf("stored for %v beyond its end", ends.Sub(tok.Expires))
	}
}

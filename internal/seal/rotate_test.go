package seal_test

import (
	"bytes"
	"encoding/json"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"smokeball.internal/tokenbroker/internal/seal"
)

// rotateIn adds a key that seals once a while has passed.
func rotateIn(t *testing.T, path string, while time.Duration) {
	t.Helper()
	effective, err := seal.Rotate(t.Context(), path, while)
	if err != nil {
		t.Fatal(err)
	}
	if want := time.Now().Add(while); effective.After(want) || effective.Before(want.Add(-time.Second)) {
		t.Errorf("effective at %v, want %v", effective, want)
	}
}

// copyOf returns a file with the same content.
func copyOf(t *testing.T, path string) string {
	t.Helper()
	other := filepath.Join(t.TempDir(), "copy.json")
	write(t, other, contentOf(t, path))
	return other
}

// atClock returns the keyset of a file as one has it whose clock is wrong by this.
func atClock(t *testing.T, path string, wrong time.Duration) *seal.Keyset {
	t.Helper()
	var f map[string]any
	if err := json.Unmarshal(contentOf(t, path), &f); err != nil {
		t.Fatal(err)
	}
	rotation := f["rotation"].(map[string]any)
	at, err := time.Parse(time.RFC3339, rotation["effective_time"].(string))
	if err != nil {
		t.Fatal(err)
	}
	rotation["effective_time"] = at.Add(-wrong).Format(time.RFC3339)
	b, err := json.Marshal(f)
	if err != nil {
		t.Fatal(err)
	}
	k, err := seal.Parse(t.Context(), path, b)
	if err != nil {
		t.Fatal(err)
	}
	return k
}

func TestANewKeySealsOnceItsTimeHasCome(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		path := create(t)
		old := load(t, path)
		rotateIn(t, path, time.Hour)
		k := load(t, path)
		before := k.Status()
		if before.Seals != old.Status().Seals || before.Next == 0 || !slices.Equal(before.Keys, []uint32{before.Seals, before.Next}) {
			t.Errorf("before its time: %+v", before)
		}
		early := sealed(t, k, "early", "name")
		wantOpen(t, old, early, "name", "early")
		if !k.Current(early) || !old.Current(early) {
			t.Error("what the key of now sealed is not current")
		}
		time.Sleep(time.Until(before.Since))
		if after := k.Status(); after.Seals != before.Next || after.Next != 0 || !after.Since.Equal(before.Since) {
			t.Errorf("at its time: %+v, was %+v", after, before)
		}
		late := sealed(t, k, "late", "name")
		wantUnreadable(t, old, late, "name")
		wantOpen(t, k, early, "name", "early")
		wantOpen(t, k, late, "name", "late")
		if k.Current(early) || !k.Current(late) {
			t.Error("it is current what the key before sealed, or not what the new one did")
		}
	})
}

// The file is given to one replica after the other, and its time comes for one after the other too.
func TestReplicasOpenEachOthersRecordsThroughoutARotation(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		path := create(t)
		without := load(t, path)
		rotateIn(t, path, time.Hour)
		exact, behind, ahead := load(t, path), atClock(t, path, -5*time.Minute), atClock(t, path, 5*time.Minute)
		openEachOthers := func(when string, all ...*seal.Keyset) {
			t.Helper()
			for i, from := range all {
				b := sealed(t, from, when, "name")
				for j, to := range all {
					if got, err := to.Open(b, "name"); err != nil || string(got) != when {
						t.Errorf("%s: replica %d cannot open what %d sealed: %v", when, j, i, err)
					}
				}
			}
		}
		openEachOthers("while the file is handed out", without, exact, behind, ahead)
		time.Sleep(57 * time.Minute)
		openEachOthers("when one clock says that it is time", exact, behind, ahead)
		wantUnreadable(t, without, sealed(t, ahead, "plaintext", "name"), "name") // So the clocks do differ.
		time.Sleep(5 * time.Minute)
		openEachOthers("when two do", exact, behind, ahead)
		if exact.Status().Seals == behind.Status().Seals {
			t.Error("a clock that is behind makes no difference")
		}
		time.Sleep(5 * time.Minute)
		openEachOthers("when all do", exact, behind, ahead)
		if exact.Status().Seals != behind.Status().Seals {
			t.Error("they seal with different keys for good")
		}
	})
}

func TestARotationWaitsForTheOneBefore(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		path := create(t)
		rotateIn(t, path, time.Hour)
		before := contentOf(t, path)
		time.Sleep(59 * time.Minute)
		if _, err := seal.Rotate(t.Context(), path, 0); err == nil || !strings.Contains(err.Error(), "its key seals from 2000-01-01T01:00:00Z on") {
			t.Errorf("Rotate = %v", err)
		}
		if !bytes.Equal(contentOf(t, path), before) {
			t.Error("the file was changed")
		}
		time.Sleep(time.Minute)
		rotateIn(t, path, 0)
		if s := load(t, path).Status(); len(s.Keys) != 3 || s.Next != 0 {
			t.Errorf("then it is %+v", s)
		}
		if _, err := seal.Rotate(t.Context(), path, -time.Second); err == nil {
			t.Error("a key seals from before it was made")
		}
	})
}

// Each that succeeds has its key in the file in the end.
func TestRotationsAtTheSameTimeLoseNoKey(t *testing.T) {
	path := create(t)
	var mu sync.Mutex
	rotated, refused := 0, 0
	var all sync.WaitGroup
	for range 8 {
		all.Go(func() {
			for range 20 {
				_, err := seal.Rotate(t.Context(), path, 0)
				mu.Lock()
				switch {
				case err == nil:
					rotated++
				case strings.Contains(err.Error(), "another command is changing it"):
					refused++
				default:
					t.Error(err)
				}
				mu.Unlock()
			}
		})
	}
	all.Wait()
	if keys := len(load(t, path).Status().Keys); keys != rotated+1 {
		t.Errorf("%d rotations succeeded, and there are %d keys", rotated, keys)
	}
	if rotated == 0 || refused == 0 {
		t.Errorf("%d rotated, %d refused: they were not at the same time", rotated, refused)
	}
	wantOnly(t, path)
	wantPrivate(t, path)
}

// What this program does not know yet may stand in a file, and a file from before there were rotations with a time has none.
func TestFilesOfOtherVersionsLoad(t *testing.T) {
	path := create(t)
	rotate(t, path)
	b := sealed(t, load(t, path), "plaintext", "name")
	var f map[string]any
	if err := json.Unmarshal(contentOf(t, path), &f); err != nil {
		t.Fatal(err)
	}
	delete(f, "rotation")
	f["later"] = "planted"
	changed, err := json.Marshal(f)
	if err != nil {
		t.Fatal(err)
	}
	write(t, path, changed)
	k := load(t, path)
	wantOpen(t, k, b, "name", "plaintext")
	if s := k.Status(); !k.Current(b) || len(s.Keys) != 2 || s.Next != 0 || !s.Since.IsZero() {
		t.Errorf("the newest key does not seal: %+v", s)
	}
}

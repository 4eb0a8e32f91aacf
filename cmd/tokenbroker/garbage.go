package main

import (
	"math"
	"os"
	"runtime"
	"runtime/debug"
	"runtime/metrics"
)

// garbageFloor is how many bytes of garbage may lie around however little is in use. A
// small replica under load makes them in a third of a second.
const garbageFloor = 64 << 20

// inUseLeast is what at least is taken to be in use: GOGC also multiplies the 4 MiB that Go
// lets lie at least.
const inUseLeast = 8 << 20

// letGarbageLie has garbage collected when there is as much of it as there is in use, as Go
// does it, and 64 MiB, or half of GOMEMLIMIT, more. A small replica has some 10 MiB in
// use, and would spend a seventh of its processor time on collecting twenty times a
// second; one with a hundred thousand tenants looks at a million pieces of memory each
// time. While it collects, calls take several times as long: their p99 follows how often
// that is. GOMEMLIMIT bounds all of it. With GOGC set nothing is done.
func letGarbageLie() {
	if os.Getenv("GOGC") != "" {
		return
	}
	room := uint64(garbageFloor)
	if limit := debug.SetMemoryLimit(-1); limit < math.MaxInt64 {
		room = max(room, uint64(limit)/2)
	}
	eachCollection(adjustCollections(room))
}

// eachCollection has f called after each collection from now on.
func eachCollection(f func()) {
	runtime.AddCleanup(new([32]byte), func(struct{}) { // It lives until the next collection only.
		f()
		eachCollection(f)
	}, struct{}{})
}

// adjustCollections returns what sets GOGC, by what the last collection has left, so that
// so many bytes more than Go's own rule allows are garbage at the next.
func adjustCollections(room uint64) func() {
	live, percent := []metrics.Sample{{Name: "/gc/heap/live:bytes"}}, 100
	return func() {
		metrics.Read(live)
		next := 100 + int(100*room/max(live[0].Value.Uint64(), inUseLeast))
		// To set it stops the world for a moment.
		if 10*max(percent-next, next-percent) > percent {
			percent = next
			debug.SetGCPercent(percent)
		}
	}
}

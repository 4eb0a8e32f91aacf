package main

import (
	"os"
	"runtime"
	"runtime/debug"
	"runtime/metrics"
)

// garbageFloor is how many bytes of garbage may lie around though less than that is in
// use. A small replica under load makes them in a third of a second.
const garbageFloor = 64 << 20

// letGarbageLie has garbage collected when there is as much of it as there is in use, as Go
// does it, but not before there are 64 MiB: a replica has some 10 MiB in use, and
// would spend a seventh of its processor time on collecting twenty times a second.
// GOMEMLIMIT still bounds memory, and with GOGC set nothing is done.
func letGarbageLie() {
	if os.Getenv("GOGC") == "" {
		eachCollection(adjustCollections(100))
	}
}

// eachCollection has f called after each collection from now on.
func eachCollection(f func()) {
	runtime.AddCleanup(new([32]byte), func(struct{}) { // It lives until the next collection only.
		f()
		eachCollection(f)
	}, struct{}{})
}

// inUseLeast is what at least is taken to be in use: GOGC also multiplies the 4 MiB that Go
// lets lie at least.
const inUseLeast = 8 << 20

// adjustCollections returns what sets GOGC, which is percent at first, by what the
// last collection has left.
func adjustCollections(percent int) func() {
	live := []metrics.Sample{{Name: "/gc/heap/live:bytes"}}
	return func() {
		metrics.Read(live)
		next := int(max(100, 100*garbageFloor/max(live[0].Value.Uint64(), inUseLeast)))
		// To set it stops the world for a moment.
		if 10*max(percent-next, next-percent) > percent {
			percent = next
			debug.SetGCPercent(percent)
		}
	}
}

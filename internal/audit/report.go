package audit

import (
	"fmt"
	"strings"
	"time"
)

// maxSaid bounds the findings that are told, and the notes.
const maxSaid = 20

// Report is what Verify has found. Its texts repeat nothing of what was read but
// numbers, times and hashes that have the right form.
type Report struct {
	// Findings are sentences that say what is not as it was written; the first 20.
	// None: everything is.
	Findings []string
	// MoreFindings is how many there are beside those.
	MoreFindings int
	// Notes are sentences that say what is as it may be, but is worth a look; the
	// first 20.
	Notes []string
	// MoreNotes is how many there are beside those.
	MoreNotes int

	Records  uint64 // whole and as they were written
	Prefixed uint64 // of these, with something before them on the line
	Others   uint64 // lines that are no records, with VerifyOptions.Mixed
	// Writers are the chains, in the order in which they begin.
	Writers []*Writer
}

// Writer is one chain of records.
type Writer struct {
	Chain             string // its random name
	Records           uint64
	FirstSeq, LastSeq uint64
	First, Last       time.Time // of its records
	Head              string    // the hash of its last record
	Stopped           bool      // its last record is that of a clean end
	Crashes           uint64    // processes that ended without one before another began
	Dropped           uint64    // decisions that were not recorded, as it says itself

	broken uint64 // lines since the last record that are not as they were written
	input  int    // where its last record is
}

// String says what a writer has written, in a line.
func (w *Writer) String() string {
	var s strings.Builder
	fmt.Fprintf(&s, "writer %s: seq %d to %d, %s to %s, head %s, ", w.Chain, w.FirstSeq, w.LastSeq,
		w.First.Format(timeFormat), w.Last.Format(timeFormat), w.Head)
	if w.Stopped {
		s.WriteString("ended cleanly")
	} else {
		s.WriteString("no stop record: it runs, or crashed, or its end was cut off")
	}
	if w.Crashes > 0 {
		fmt.Fprintf(&s, ", ends without a stop record before that: %d", w.Crashes)
	}
	if w.Dropped > 0 {
		fmt.Fprintf(&s, ", decisions dropped: %d", w.Dropped)
	}
	return s.String()
}

// say adds a sentence to the first ones, or counts it.
func say(list *[]string, more *int, sentence string) {
	if len(*list) < maxSaid {
		*list = append(*list, sentence)
	} else {
		*more++
	}
}

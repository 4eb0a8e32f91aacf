package audit

import (
	"bufio"
	"errors"
	"fmt"
	"io"
	"strings"
	"time"
)

const (
	// maxRead bounds the lines that are looked at, with what may be before a record.
	maxRead = 64 << 10
	// maxWriters bounds the chains that are told apart.
	maxWriters = 1 << 16
)

// Input is a file to verify.
type Input struct {
	Name   string // what findings call it
	Reader io.Reader
}

// VerifyOptions say how to verify. The zero value is for files that hold nothing but
// records.
type VerifyOptions struct {
	// Heads are hashes from elsewhere: of records that must be there.
	Heads []string
	// Mixed has lines that are no records counted, not found fault with: what several
	// programs wrote was collected.
	Mixed bool
}

// Verify reads inputs, the oldest first, and reports what is not as it was written:
// lines that were changed, are missing, were inserted or moved. Chains go on from
// one input to the next. Records of several writers may be mixed, and there may be
// something before them on a line, which nothing vouches for. It keeps a bounded
// amount in memory. An error is one of reading.
func Verify(options VerifyOptions, inputs ...Input) (*Report, error) {
	v := &verifier{report: &Report{}, mixed: options.Mixed, writers: map[string]*Writer{}, heads: map[string]bool{}}
	for _, hash := range options.Heads {
		v.heads[strings.ToLower(hash)] = false
	}
	for _, input := range inputs {
		v.input++
		v.name, v.number = input.Name, 0
		if err := v.read(input.Reader); err != nil {
			return nil, fmt.Errorf("%s: %w", input.Name, err)
		}
	}
	if v.report.Records == 0 {
		say(&v.report.Findings, &v.report.MoreFindings, "there is no record")
	}
	for _, hash := range options.Heads {
		if !v.heads[strings.ToLower(hash)] {
			say(&v.report.Findings, &v.report.MoreFindings, "no record has the hash "+quoteHash(hash)+": it was removed, or all from some record on was written anew")
		}
	}
	return v.report, nil
}

// quoteHash returns hash if it may be one.
func quoteHash(hash string) string {
	if lower := strings.ToLower(hash); len(hash) == hashSize && isHex(lower) {
		return lower
	}
	return "that was given (64 hex digits are one)"
}

type verifier struct {
	report  *Report
	mixed   bool
	writers map[string]*Writer // :: chain → its state
	heads   map[string]bool    // :: hash → was seen
	rest    rest

	input  int // the one that is read, from 1
	name   string
	number int // of the line in it, from 1
}

// read verifies the lines of one input.
func (v *verifier) read(r io.Reader) error {
	lines := bufio.NewReaderSize(r, maxRead)
	for long := false; ; {
		text, err := lines.ReadSlice('\n')
		full := errors.Is(err, bufio.ErrBufferFull)
		switch {
		case err != nil && !full && !errors.Is(err, io.EOF):
			return err
		case long: // This is more of it.
			v.rest.add(text)
		case len(text) > 0:
			v.number++
			v.line(text, full)
		}
		long = full
		if errors.Is(err, io.EOF) {
			v.refuseRest()
			return nil
		}
	}
}

// line verifies one line, of which full says that there is more.
func (v *verifier) line(text []byte, full bool) {
	raw := text
	if text[len(text)-1] == '\n' {
		text = text[:len(text)-1]
	}
	l, before, k := parse(text)
	switch {
	case k == foreign && v.mixed:
		v.report.Others++
	case full:
		v.odd(raw, "is longer than any record")
	case k == foreign:
		v.odd(raw, "is no record")
	case k == torn:
		v.odd(raw, "is not a whole record")
	case k == changed:
		v.refuseRest()
		v.broken(v.writers[l.Chain])
		seq := ""
		if l.Seq > 0 {
			seq = fmt.Sprintf(" (seq %d, as it says now)", l.Seq)
		}
		v.find(nil, v.number, "was changed after it was written"+seq)
	default:
		if before > 0 {
			v.report.Prefixed++
			if strings.Contains(string(text[:before]), lineStart) {
				v.broken(nil)
				v.find(nil, v.number, "has the beginning of another record before its own")
			}
		}
		v.announced(l)
		v.record(l)
	}
}

// record verifies a record that is sound in itself.
func (v *verifier) record(l line) {
	at, _ := time.Parse(timeFormat, l.Time) // parse has looked at it.
	if _, wanted := v.heads[l.hash]; wanted {
		v.heads[l.hash] = true
	}
	w := v.writers[l.Chain]
	if w == nil {
		if len(v.writers) == maxWriters {
			v.find(nil, v.number, fmt.Sprintf("is of another writer than the %d before, which are all that are told apart", maxWriters))
			return
		}
		w = &Writer{Chain: l.Chain, FirstSeq: l.Seq, First: at}
		v.writers[l.Chain] = w
		v.report.Writers = append(v.report.Writers, w)
		v.begins(w, l)
	} else if !v.follows(w, l) {
		return
	}
	if l.Event == eventStart && l.Seq > w.FirstSeq && !w.Stopped {
		w.Crashes++
		v.note(w, v.number, "begins a process where the one before had not said that it stops: it crashed, or could not write any more")
	}
	if l.Format > format {
		v.find(w, v.number, fmt.Sprintf("begins format %d, and this program reads %d", l.Format, format))
	}
	v.report.Records++
	w.Records++
	w.LastSeq, w.Last, w.Head, w.Stopped, w.broken, w.input = l.Seq, at, l.hash, l.Event == eventStop, 0, v.input
	w.Dropped += l.Dropped
}

// begins verifies the first record of a writer.
func (v *verifier) begins(w *Writer, l line) {
	switch {
	case l.Seq > 1:
		v.note(w, v.number, fmt.Sprintf("is the first of its writer, with seq %d: what was before is in none of these files", l.Seq))
	case l.Prev != noHash:
		v.find(w, v.number, "has seq 1 and says that there was a record before")
	}
}

// follows verifies the place of a record behind another of its writer, and returns
// false if the place is not its own.
func (v *verifier) follows(w *Writer, l line) bool {
	switch gap := l.Seq - w.LastSeq - 1; {
	case l.Seq == w.LastSeq && l.hash == w.Head:
		v.find(w, v.number, fmt.Sprintf("has seq %d once more", l.Seq))
		return false
	case l.Seq <= w.LastSeq && v.input != w.input:
		v.find(w, v.number, fmt.Sprintf("has seq %d, and the file before ends with seq %d: the oldest file comes first", l.Seq, w.LastSeq))
		return true // The rest of the file is not to be found fault with.
	case l.Seq <= w.LastSeq:
		v.find(w, v.number, fmt.Sprintf("has seq %d behind seq %d: it was moved or inserted", l.Seq, w.LastSeq))
		return false
	case gap == 1 && w.broken == 0:
		v.find(w, v.number, fmt.Sprintf("seq %d is missing (after %d comes %d)", l.Seq-1, w.LastSeq, l.Seq))
	case gap > w.broken: // The broken lines may be some of them.
		v.find(w, v.number, fmt.Sprintf("seq %d to %d are missing (after %d comes %d)", w.LastSeq+1, l.Seq-1, w.LastSeq, l.Seq))
	case gap == 0 && l.Prev != w.Head:
		v.find(w, v.number, fmt.Sprintf("seq %d was written after another seq %d than the one that is there", l.Seq, w.LastSeq))
	}
	return true
}

// broken counts a line that may be one of w's. Without w it is one of the only
// writer's, if there is only one.
func (v *verifier) broken(w *Writer) {
	if w == nil && len(v.report.Writers) == 1 {
		w = v.report.Writers[0]
	}
	if w != nil {
		w.broken++
	}
}

func (v *verifier) find(w *Writer, number int, what string) {
	say(&v.report.Findings, &v.report.MoreFindings, v.sentence(w, number, what))
}

func (v *verifier) note(w *Writer, number int, what string) {
	say(&v.report.Notes, &v.report.MoreNotes, v.sentence(w, number, what))
}

// sentence says where it is what is said. The writer is named if there are several.
func (v *verifier) sentence(w *Writer, number int, what string) string {
	s := fmt.Sprintf("%s: line %d: %s", v.name, number, what)
	if w != nil && len(v.writers) > 1 {
		s += fmt.Sprintf(" [writer %.8s]", w.Chain)
	}
	return s
}

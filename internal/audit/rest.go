package audit

import (
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"hash"
)

// rest is lines in a row that are not whole. They are as they may be if they are
// what a crash has left, and the start record right behind them says so.
type rest struct {
	first int // number of the first line
	lines []oddLine
	more  int
	sum   hash.Hash // of them with their newlines
}

type oddLine struct {
	number int
	what   string // is wrong with it
}

// add takes more of the last line, if that is in r.
func (r *rest) add(text []byte) {
	if r.sum != nil {
		_, _ = r.sum.Write(text) // Never fails, see hash.Hash.
	}
}

// odd takes a line that is not whole, with its newline.
func (v *verifier) odd(raw []byte, what string) {
	r := &v.rest
	if r.sum == nil {
		*r = rest{first: v.number, sum: sha256.New()}
	}
	if len(r.lines) < maxSaid {
		r.lines = append(r.lines, oddLine{v.number, what})
	} else {
		r.more++
	}
	r.add(raw)
}

// announced accepts what is not whole before l if l says that it is there, and finds
// fault with both otherwise.
func (v *verifier) announced(l line) {
	if l.Event == eventStart && l.TornBytes > 0 {
		r := v.rest
		switch {
		case r.sum != nil && hex.EncodeToString(r.sum.Sum(nil)) == l.TornSHA256:
			v.note(nil, r.first, fmt.Sprintf("is not a whole record, but what a crash has left: line %d says so", v.number))
			v.rest = rest{}
		case !v.mixed: // Else it may be among what others wrote.
			v.find(nil, v.number, fmt.Sprintf("says that the %d bytes before it are what a crash has left, and they are not", l.TornBytes))
		}
	}
	v.refuseRest()
}

// refuseRest finds fault with what is not whole.
func (v *verifier) refuseRest() {
	for _, odd := range v.rest.lines {
		v.broken(nil)
		v.find(nil, odd.number, odd.what)
	}
	v.report.MoreFindings += v.rest.more
	v.rest = rest{}
}

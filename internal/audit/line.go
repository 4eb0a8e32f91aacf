package audit

import (
	"bytes"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"strings"
	"time"
)

const (
	format = 1 // of what is written, as start records say

	// The log's own events.
	eventStart, eventStop, eventDropped = "start", "stop", "dropped"

	lineStart = `{"chain":"` // cannot occur within a record, where quotes are escaped
	hashStart = `,"hash":"`
	lineEnd   = `"}`
	hashSize  = 2 * sha256.Size
	tailSize  = len(hashStart) + hashSize + len(lineEnd)
	chainSize = 32

	// maxLine bounds a line with its newline. It fits into a message of syslog as most
	// receivers take them, and into one write to a pipe.
	maxLine    = 4096
	timeFormat = "2006-01-02T15:04:05.000000Z07:00"
)

// line is a record as it is written.
type line struct {
	Chain string `json:"chain"`
	Seq   uint64 `json:"seq"`
	Time  string `json:"time"`
	Record
	own
	Prev string `json:"prev"`
	hash string
}

// own is what the log's own records say beside their event.
type own struct {
	// Of start records.
	Format     int    `json:"format,omitempty"`
	Host       string `json:"host,omitempty"`
	TornBytes  int64  `json:"torn_bytes,omitempty"`
	TornSHA256 string `json:"torn_sha256,omitempty"`
	// Of dropped records.
	Dropped uint64 `json:"dropped,omitempty"`
	Since   string `json:"since,omitempty"`
}

// kind is what became of a line.
type kind int

const (
	foreign kind = iota // no record
	torn                // the beginning of one
	changed             // one that is not as it was written
	sound               // one
)

// parse reads a line without its newline. Before a record there may be something
// else, of which it returns the length. What it returns of a changed line is what
// that says now.
func parse(text []byte) (l line, before int, k kind) {
	// The last one: the beginning of another may be before it, without an end.
	before = bytes.LastIndex(text, []byte(lineStart))
	if before < 0 {
		return line{}, 0, foreign
	}
	text = text[before:]
	tail := text[max(0, len(text)-tailSize):]
	hash := bytes.TrimSuffix(bytes.TrimPrefix(tail, []byte(hashStart)), []byte(lineEnd))
	if len(tail) < tailSize || len(hash) != hashSize || !isHex(string(hash)) {
		return line{}, before, torn
	}
	body := text[:len(text)-tailSize]
	sum := sha256.Sum256(body)
	readable := json.Unmarshal(append(bytes.Clone(body), '}'), &l) == nil &&
		len(l.Chain) == chainSize && isHex(l.Chain) && l.Seq > 0 && len(l.Prev) == hashSize && isHex(l.Prev)
	if !readable {
		l = line{}
	}
	l.hash = string(hash)
	if _, err := time.Parse(timeFormat, l.Time); err != nil || !readable || hex.EncodeToString(sum[:]) != l.hash {
		return l, before, changed
	}
	return l, before, sound
}

// isHex says whether s is lower-case hex.
func isHex(s string) bool { return strings.Trim(s, "0123456789abcdef") == "" }

// tornSum returns how a start record tells of what is left of a line.
func tornSum(rest []byte) (int64, string) {
	if !bytes.HasSuffix(rest, []byte("\n")) {
		rest = append(bytes.Clone(rest), '\n')
	}
	sum := sha256.Sum256(rest)
	return int64(len(rest)), hex.EncodeToString(sum[:])
}

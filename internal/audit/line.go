package audit

import (
	"bytes"
	"crypto/rand"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"strings"
	"time"
	"unicode/utf16"
	"unicode/utf8"
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

// noHash is what the first record of a chain follows.
var noHash = strings.Repeat("0", hashSize)

// line is a record as it is written, but for its hash.
type line struct {
	Chain string `json:"chain"`
	Seq   uint64 `json:"seq"`
	Time  string `json:"time"`
	Record
	// Of start records.
	Format     int    `json:"format,omitempty"`
	Host       string `json:"host,omitempty"`
	TornBytes  int64  `json:"torn_bytes,omitempty"`
	TornSHA256 string `json:"torn_sha256,omitempty"`
	// Of dropped records.
	Dropped uint64 `json:"dropped,omitempty"`
	Since   string `json:"since,omitempty"`

	Prev string `json:"prev"`
	hash string
}

// head is the last record of a chain. In a new one, seq is 0.
type head struct {
	chain string
	seq   uint64
	hash  string
}

func newChain() head {
	id := make([]byte, chainSize/2)
	_, _ = rand.Read(id) // Never fails, see crypto/rand.
	return head{hex.EncodeToString(id), 0, noHash}
}

// append appends l to buf, as the record after h, which moves on to it.
func (h *head) append(buf []byte, l line, at time.Time) []byte {
	l.Chain, l.Seq, l.Prev = h.chain, h.seq+1, h.hash
	l.Time = at.UTC().Format(timeFormat)
	l.Host = clip(l.Host, maxText)
	begin := len(buf)
	for limit := maxText; ; limit /= 2 {
		buf = appendJSON(buf[:begin], l)
		if len(buf)-begin+tailSize < maxLine || limit == 1 {
			break
		}
		l.clip(limit / 2) // Escaped, it is several times longer.
	}
	buf = buf[:len(buf)-1] // The closing brace is behind the hash.
	sum := sha256.Sum256(buf[begin:])
	h.seq, h.hash = l.Seq, hex.EncodeToString(sum[:])
	return fmt.Appendf(buf, "%s%s%s\n", hashStart, h.hash, lineEnd)
}

// appendJSON appends l in ASCII, so that nothing that collects or shows lines makes
// anything of them.
func appendJSON(buf []byte, l line) []byte {
	var text bytes.Buffer
	encoder := json.NewEncoder(&text)
	encoder.SetEscapeHTML(false)
	_ = encoder.Encode(l) // Never fails: text and numbers.
	rest := bytes.TrimSuffix(text.Bytes(), []byte("\n"))
	for len(rest) > 0 {
		if c := rest[0]; c < 0x7f {
			buf, rest = append(buf, c), rest[1:]
			continue
		}
		r, size := utf8.DecodeRune(rest)
		rest = rest[size:]
		for _, unit := range utf16.AppendRune(nil, r) {
			buf = fmt.Appendf(buf, `\u%04x`, unit)
		}
	}
	return buf
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

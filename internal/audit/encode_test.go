package audit_test

import (
	"bytes"
	"crypto/sha256"
	"encoding/json"
	"fmt"
	"strings"
	"testing"
	"time"
	"unicode/utf16"

	"smokeball.internal/tokenbroker/internal/audit"
)

// FuzzAppend compares lines with what encoding/json makes of the same. texts are
// separated by "|": one for each text of a record, then those of its lists, of which
// the first are scopes.
func FuzzAppend(f *testing.F) {
	whole := strings.Join([]string{"event", "phase", "id", "principal", "peer", "method", "tenant", "token", "rule", "outcome", "code", "reason", "host", "sum", "since"}, "|")
	f.Add("", 0, uint64(0), int64(0))
	f.Add(whole+"|matters/read|matters/write|name", 2, uint64(18446744073709551615), int64(1795538045123456789))
	f.Add("|||"+strings.ReplaceAll(whole, "|", "||")+"||", 1, uint64(1), int64(-1))
	f.Add("\"|\\|/|<&>|'|\b\f\n\r\t\v|\x00\x01\x1f |~\x7f\u0080|ö\u07ff\u0800|\u2028\u2029|\ud7ff\ue000\ufffd\uffff|\U00010000😀\U0010ffff", 0, uint64(0), int64(999_999_999))
	f.Add("\x80|\xff\xfe|a\xc3|\xc3(|\xe2\x80|\xe2\x28\xa1|\xed\xa0\x80\xed\xbf\xbf|\xf0\x9f\x98|\xf4\x90\x80\x80|\xc0\xaf|\xff", 0, uint64(0), int64(1<<63-1))
	for c := range 256 {
		f.Add("a"+string([]byte{byte(c)}), 0, uint64(0), int64(0))
	}
	for _, size := range []int{100, 255, 256, 257, 300} { // Escaped, they become too long, for one halving or several.
		for _, c := range []string{"a", "ö", "\x01", "😀"} {
			f.Add(strings.Repeat(strings.Repeat(c, size)+"|", 30), 9, uint64(7), int64(-1<<63))
		}
	}
	for size := range 40 { // Right up to what a line may hold.
		f.Add(strings.Repeat(strings.Repeat("a", 230)+"|", 15)+strings.Repeat("s", 190+size), 1, uint64(0), int64(0))
	}
	f.Fuzz(func(t *testing.T, texts string, scopes int, number uint64, at int64) {
		rest := strings.Split(texts, "|")
		next := func() (text string) {
			if len(rest) > 0 {
				text, rest = rest[0], rest[1:]
			}
			return text
		}
		r := audit.Record{
			Event: next(), Phase: next(), RequestID: next(), Principal: next(), Peer: next(), Method: next(), Tenant: next(), TokenID: next(),
			Rule: next(), Outcome: next(), Code: next(), Reason: next(),
		}
		o := audit.Own{Host: next(), TornSHA256: next(), Since: next(), Format: int(number >> 33), TornBytes: int64(number >> 1), Dropped: number}
		scopes = max(0, min(scopes, len(rest)))
		r.Scopes, r.Fields = rest[:scopes], rest[scopes:]
		r.Clip(256) // As Decision does.
		c := audit.NewChain()
		var got, want []byte
		prev := strings.Repeat("0", 64)
		for seq := range 4 { // The last two are in another second.
			given := r
			got = c.Append(got, &given, o, at)
			body := wantBody(t, c.ID(), seq+1, at, r, o, prev)
			prev = fmt.Sprintf("%x", sha256.Sum256(body))
			want = fmt.Appendf(want, "%s,\"hash\":%q}\n", body, prev)
			at += 999_999_999 * int64(seq%2)
		}
		if !bytes.Equal(got, want) {
			t.Errorf("got\n%s\nwant\n%s", got, want)
		}
	})
}

// wantBody returns the line of a record up to its hash.
func wantBody(t *testing.T, chain string, seq int, at int64, r audit.Record, o audit.Own, prev string) []byte {
	for limit := 256; ; limit /= 2 {
		var text bytes.Buffer
		encoder := json.NewEncoder(&text)
		encoder.SetEscapeHTML(false)
		if err := encoder.Encode(struct {
			Chain string `json:"chain"`
			Seq   int    `json:"seq"`
			Time  string `json:"time"`
			audit.Record
			audit.Own
			Prev string `json:"prev"`
		}{chain, seq, time.Unix(0, at).UTC().Format("2006-01-02T15:04:05.000000Z"), r, o, prev}); err != nil {
			t.Fatal(err)
		}
		body := bytes.TrimSuffix(ascii(text.Bytes()), []byte("}\n"))
		if size := len(body) + len(`,"hash":""}`) + 64 + len("\n"); size < 4096 || limit == 1 {
			return body
		}
		r.Clip(limit / 2)
	}
}

// ascii escapes in JSON what is not ASCII.
func ascii(text []byte) (escaped []byte) {
	for _, r := range string(text) {
		if r < 0x7f {
			escaped = append(escaped, byte(r))
			continue
		}
		for _, unit := range utf16.Encode([]rune{r}) {
			escaped = fmt.Appendf(escaped, `\u%04x`, unit)
		}
	}
	return escaped
}

func TestARecordTakesNoMemoryOfItsOwn(t *testing.T) {
	c, r, at := audit.NewChain(), decision(), time.Now().UnixNano()
	r.Principal = "Zoë \u2028\"\n"
	buf := make([]byte, 0, 4096)
	if n := testing.AllocsPerRun(1000, func() {
		at += int64(time.Second / 3)
		buf = c.Append(buf[:0], &r, audit.Own{}, at)
	}); n > 0 {
		t.Errorf("%v allocations to write one", n)
	}
	l, err := audit.Open(audit.Config{Sink: "stdout"}) // Nobody runs it: all wait.
	if err != nil {
		t.Fatal(err)
	}
	// The queue grows seldom: on average, less than once.
	if n := testing.AllocsPerRun(1000, func() { _ = l.Decision(r) }); n > 0 || l.Stats().Queued != 1001 {
		t.Errorf("%v allocations to take one, of %d", n, l.Stats().Queued)
	}
}

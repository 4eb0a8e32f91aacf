package audit

import (
	"strconv"
	"time"
	"unicode/utf16"
)

const hexDigits = "0123456789abcdef"

// plain says which bytes stand for themselves.
var plain = func() (is [256]bool) {
	for c := ' '; c <= '~'; c++ {
		is[c] = c != '"' && c != '\\'
	}
	return is
}()

// appendText appends a member of an object after others, unless text is empty: open
// is all that comes before the text, as in `,"name":"`.
func appendText(buf []byte, open, text string) []byte {
	if text == "" {
		return buf
	}
	buf = append(buf, open...)
	buf = appendEscaped(buf, text)
	return append(buf, '"')
}

// appendTexts appends a member that is a list, unless it is empty: open ends with its
// bracket.
func appendTexts(buf []byte, open string, list []string) []byte {
	if len(list) == 0 {
		return buf
	}
	buf = append(buf, open...)
	for i, text := range list {
		if i > 0 {
			buf = append(buf, ',')
		}
		buf = append(buf, '"')
		buf = appendEscaped(buf, text)
		buf = append(buf, '"')
	}
	return append(buf, ']')
}

// appendNumber appends a member that is a number, unless it is 0.
func appendNumber(buf []byte, open string, n uint64) []byte {
	if n == 0 {
		return buf
	}
	return strconv.AppendUint(append(buf, open...), n, 10)
}

// appendEscaped appends text as it stands between the quotes of JSON: in ASCII, so
// that nothing that collects or shows lines makes anything of it. What is no UTF-8
// becomes U+FFFD.
func appendEscaped(buf []byte, text string) []byte {
	if isPlain(text) { // Almost all are.
		return append(buf, text...)
	}
	for _, r := range text {
		buf = appendRune(buf, r)
	}
	return buf
}

// isPlain says that text needs no escapes.
func isPlain(text string) bool {
	for i := range len(text) {
		if !plain[text[i]] {
			return false
		}
	}
	return true
}

// appendRune appends r, escaped as encoding/json does it.
func appendRune(buf []byte, r rune) []byte {
	switch r {
	case '"', '\\':
		return append(buf, '\\', byte(r))
	case '\b':
		return append(buf, `\b`...)
	case '\f':
		return append(buf, `\f`...)
	case '\n':
		return append(buf, `\n`...)
	case '\r':
		return append(buf, `\r`...)
	case '\t':
		return append(buf, `\t`...)
	}
	switch {
	case ' ' <= r && r <= '~':
		return append(buf, byte(r))
	case r <= 0xffff:
		return appendUnit(buf, r)
	}
	first, second := utf16.EncodeRune(r)
	return appendUnit(appendUnit(buf, first), second)
}

// appendUnit appends a unit of UTF-16.
func appendUnit(buf []byte, unit rune) []byte {
	return append(buf, '\\', 'u', hexDigits[unit>>12&15], hexDigits[unit>>8&15], hexDigits[unit>>4&15], hexDigits[unit&15])
}

// clock writes times. Those of one second have their beginning in common, so that it
// is made once.
type clock struct {
	second int64
	begin  []byte // of the times in it; nil: there was none yet
}

// append appends the time at, in nanoseconds since 1970, as timeFormat says.
func (c *clock) append(buf []byte, at int64) []byte {
	t := time.Unix(0, at).UTC()
	if c.begin == nil || t.Unix() != c.second {
		c.second, c.begin = t.Unix(), t.AppendFormat(c.begin[:0], "2006-01-02T15:04:05")
	}
	buf = append(buf, c.begin...)
	dot := len(buf)
	buf = strconv.AppendInt(buf, int64(1_000_000+t.Nanosecond()/1000), 10) // Six digits behind one that makes room.
	buf[dot] = '.'
	return append(buf, 'Z')
}

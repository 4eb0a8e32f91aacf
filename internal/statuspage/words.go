package statuspage

import (
	"fmt"
	"strconv"
	"strings"
	"time"
	"unicode"
	"unicode/utf8"
)

// stamp is a moment, as it is said and as it was. The zero stamp is none.
type stamp struct{ Said, Exact string }

// at returns a moment. One of a clock that is far off is said all the same.
func at(t time.Time) stamp {
	if t.IsZero() || t.Year() > 9999 {
		return stamp{}
	}
	said := "in\u00a0" + span(time.Until(t))
	if past := time.Since(t); past >= 0 {
		said = span(past) + "\u00a0ago"
	}
	return stamp{said, t.UTC().Format(time.DateTime + "Z")}
}

// or says something else of a moment that is past at now.
func (s stamp) or(now, t time.Time, past string) stamp {
	if s.Said != "" && !now.Before(t) {
		s.Said = past
	}
	return s
}

// span says how long something is, in one unit. The space does not break.
func span(d time.Duration) string {
	d = max(0, d)
	switch {
	case d < 100*time.Second:
		return fmt.Sprintf("%d\u00a0s", int(d.Round(time.Second).Seconds()))
	case d < 100*time.Minute:
		return fmt.Sprintf("%d\u00a0min", int(d.Round(time.Minute).Minutes()))
	case d < 48*time.Hour:
		return fmt.Sprintf("%d\u00a0h", int(d.Round(time.Hour).Hours()))
	default:
		return fmt.Sprintf("%d\u00a0days", int(d.Hours()/24))
	}
}

func milliseconds(d time.Duration) string {
	if d < 10*time.Millisecond {
		return fmt.Sprintf("%.1f\u00a0ms", d.Seconds()*1000)
	}
	return fmt.Sprintf("%d\u00a0ms", d.Milliseconds())
}

// count writes a number with its thousands apart.
func count(n int) string {
	s := strconv.Itoa(n)
	for i := len(s) - 3; i > 0; i -= 3 {
		s = s[:i] + "," + s[i:]
	}
	return s
}

// counted says how many there are of something.
func counted(n int, one, many string) string {
	if n == 1 {
		return "1 " + one
	}
	return count(n) + " " + many
}

// title is what the browser's tab says.
func title(troubles int) string {
	if troubles == 0 {
		return "Token broker"
	}
	return "(" + count(troubles) + ") Token broker"
}

// maxText is how much of a text is shown that somebody else has written.
const maxText = 120

// clip returns the beginning of such a text, without what would not be seen or would
// change how the rest is read.
func clip(s string) string {
	s = strings.Map(func(r rune) rune {
		if !unicode.IsPrint(r) {
			return utf8.RuneError
		}
		return r
	}, strings.ToValidUTF8(s[:min(len(s), 4*maxText)], "\ufffd"))
	if utf8.RuneCountInString(s) > maxText {
		s = string([]rune(s)[:maxText-1]) + "…"
	}
	return s
}

// sentence returns a message as one, bounded as clip does.
func sentence(message string) string {
	message = strings.TrimSuffix(clip(message), ".")
	if message == "" {
		return ""
	}
	return message + "."
}

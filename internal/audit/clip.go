package audit

import (
	"strings"
	"unicode/utf8"
)

const (
	maxText = 256 // bytes of a text
	maxList = 64  // texts of a list, with 4*maxText bytes altogether
	clipped = "…" // ends what was clipped
)

// clip bounds the texts of r to limit bytes each, and its lists to four times that
// altogether. It changes nothing that r points to.
func (r *Record) clip(limit int) {
	for _, text := range [...]*string{&r.Event, &r.Phase, &r.RequestID, &r.Principal, &r.Peer, &r.Method, &r.Tenant,
		&r.TokenID, &r.Rule, &r.Outcome, &r.Code, &r.Reason} {
		if len(*text) > limit {
			*text = clip(*text, limit)
		}
	}
	r.Scopes, r.Fields = clipList(r.Scopes, limit), clipList(r.Fields, limit)
}

// clip returns s, or a copy of its beginning, so that the rest is not kept.
func clip(s string, limit int) string {
	if len(s) <= limit {
		return s
	}
	end := max(0, limit-len(clipped))
	for end > 0 && !utf8.RuneStart(s[end]) {
		end--
	}
	return strings.Clone(s[:end]) + clipped
}

// clipList returns list, or as much of it as is allowed and a last text that says
// so.
func clipList(list []string, limit int) []string {
	room, fits := 4*limit, len(list) <= maxList
	for _, text := range list {
		room -= len(text)
		fits = fits && len(text) <= limit
	}
	if fits && room >= 0 {
		return list
	}
	var short []string
	room = 4 * limit
	for _, text := range list[:min(len(list), maxList)] {
		text = clip(text, limit)
		if room -= len(text); room < 0 {
			break
		}
		short = append(short, text)
	}
	if n := len(short); n > 0 && short[n-1] == clipped {
		return short // It was clipped before.
	}
	return append(short, clipped)
}

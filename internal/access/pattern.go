package access

import "strings"

// pattern is a text in which * stands for any characters, or none, but never for
// a separator; a * between two separators stands for one character at least. A
// text without * is compared as a whole. Matching takes time that grows with the
// name and not with a power of it, whatever the pattern is.
type pattern struct {
	// text is what the access file says, in lower case for the name of a host.
	text string
	// prefix is what is compared before segments begin.
	prefix string
	// separators are the bytes that end a segment.
	separators string
	// segments is empty if there is no * in text. If the last of them ends with a
	// separator, whatever follows may follow: the text ends with a segment **.
	segments []segment
}

// segment is the part of a pattern between two separators.
type segment struct {
	// pieces is what stands before, between and after the stars: one, if there is no
	// star.
	pieces []string
	// end is the separator that ends it; 0: the text ends here.
	end byte
}

// newPattern returns the pattern for text, which is well-formed. A segment ** can
// be the last only.
func newPattern(text, prefix, separators string) pattern {
	p := pattern{text: text, prefix: prefix, separators: separators}
	if !strings.Contains(text, "*") {
		return p
	}
	rest, end := strings.TrimPrefix(text, prefix), byte(1)
	for end != 0 {
		var part string
		part, end, rest = cut(rest, separators)
		if part == "**" {
			break
		}
		p.segments = append(p.segments, segment{strings.Split(part, "*"), end})
	}
	return p
}

// cut returns the first segment of s, the separator that ends it and what
// follows. The separator is 0 if s ends there.
func cut(s, separators string) (part string, end byte, rest string) {
	i := strings.IndexAny(s, separators)
	if i < 0 {
		return s, 0, ""
	}
	return s[:i], s[i], s[i+1:]
}

// wild says whether there is a * in the pattern.
func (p *pattern) wild() bool { return len(p.segments) > 0 }

// match says whether the pattern stands for s. Where the pattern ends with **, s
// must have no empty segments: parseName has seen to that.
func (p *pattern) match(s string) bool {
	if !p.wild() {
		return s == p.text
	}
	rest, ok := strings.CutPrefix(s, p.prefix)
	if !ok {
		return false
	}
	for i := range p.segments {
		part, end, after := cut(rest, p.separators)
		if end != p.segments[i].end || !p.segments[i].match(part) {
			return false
		}
		rest = after
	}
	return true
}

func (g *segment) match(s string) bool {
	first, last := g.pieces[0], g.pieces[len(g.pieces)-1]
	if len(g.pieces) == 1 {
		return s == first
	}
	if s == "" || len(s) < len(first)+len(last) || !strings.HasPrefix(s, first) || !strings.HasSuffix(s, last) {
		return false
	}
	s = s[len(first) : len(s)-len(last)]
	// The leftmost place of a piece leaves most to those that follow.
	for _, piece := range g.pieces[1 : len(g.pieces)-1] {
		i := strings.Index(s, piece)
		if i < 0 {
			return false
		}
		s = s[i+len(piece):]
	}
	return true
}

// matchAny says whether one of the patterns stands for s.
func matchAny(patterns []pattern, s string) bool {
	for i := range patterns {
		if patterns[i].match(s) {
			return true
		}
	}
	return false
}

package access

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"unicode"
	"unicode/utf8"

	"gopkg.in/yaml.v3"
)

// maxProblems is how many problems of a file are told.
const maxProblems = 20

// policyFile reads the YAML of an access file, and collects what is wrong with it.
// What it returns beside a problem is of no use.
type policyFile struct {
	name string
	told []error
	more int
}

// refuse adds a problem.
func (f *policyFile) refuse(line int, format string, args ...any) {
	if len(f.told) == maxProblems {
		f.more++
		return
	}
	f.told = append(f.told, fmt.Errorf("%s:%d: %s", f.name, line, fmt.Sprintf(format, args...)))
}

// problems returns what was refused.
func (f *policyFile) problems() []error {
	if f.more > 0 {
		return append(slices.Clone(f.told), fmt.Errorf("%s: %d more errors", f.name, f.more))
	}
	return f.told
}

// root returns the one document of a file; nil if there is nothing in it.
func (f *policyFile) root(content []byte) *yaml.Node {
	if len(content) > MaxPolicySize {
		f.refuse(1, "the file is larger than %d bytes", MaxPolicySize)
		return nil
	}
	if !f.legible(content) {
		return nil
	}
	decoder := yaml.NewDecoder(bytes.NewReader(content))
	var first, second yaml.Node
	switch err := decoder.Decode(&first); {
	case errors.Is(err, io.EOF):
		return nil
	case err != nil:
		f.refuseYAML(content, err)
		return nil
	}
	switch err := decoder.Decode(&second); {
	case err == nil:
		f.refuse(second.Line, "a second YAML document begins here: there can be one only")
	case !errors.Is(err, io.EOF):
		f.refuseYAML(content, err)
	}
	if n := first.Content[0]; n.Tag != "!!null" || n.Value != "" {
		return n
	}
	return nil
}

// legible refuses a file in which there is something that a reader cannot see, or
// sees elsewhere than it is, and what would make YAML count lines otherwise than
// an editor.
func (f *policyFile) legible(content []byte) bool {
	rest := bytes.TrimPrefix(content, []byte("\ufeff"))
	for line := 1; len(rest) > 0; {
		r, size := utf8.DecodeRune(rest)
		switch {
		case r == utf8.RuneError && size == 1:
			f.refuse(line, "not UTF-8")
			return false
		case r == '\n':
			line++
		case r == '\t' || r == '\r' && bytes.HasPrefix(rest, []byte("\r\n")):
		case unicode.In(r, unicode.Cc, unicode.Cf, unicode.Zl, unicode.Zp):
			f.refuse(line, "there is a character that cannot be seen, U+%04X", r)
			return false
		}
		rest = rest[size:]
	}
	return true
}

const quoteStar = "a value that begins with * must be in quotes"

var (
	yamlError = regexp.MustCompile(`^yaml: (?:line ([0-9]+): )?(.*)$`)
	yamlAlias = regexp.MustCompile(`^unknown anchor '([A-Za-z0-9_-]+)'`)
	// Errors of the parser name the line before the one where that begins which it
	// cannot finish; those of the scanner, which goes before, the line itself.
	yamlParser = regexp.MustCompile(`^did not find expected (key|node content|<document start>|'-' indicator|',' or .*)$`)
)

// refuseYAML adds what the YAML package found, and the line of it.
func (f *policyFile) refuseYAML(content []byte, err error) {
	line, said := 1, "it cannot be read"
	if parts := yamlError.FindStringSubmatch(err.Error()); parts != nil {
		said = parts[2]
		if n, err := strconv.Atoi(parts[1]); err == nil {
			line = n
			if yamlParser.MatchString(said) {
				line++
			}
		}
	}
	if alias := yamlAlias.FindStringSubmatch(said); alias != nil {
		said = quoteStar
		place := regexp.MustCompile(`(?m)(?:^|[\s\[{,:-])\*` + alias[1]).FindIndex(content)
		if place != nil {
			line = 1 + bytes.Count(content[:place[1]], []byte("\n"))
		}
	} else if strings.HasSuffix(said, "alphabetic or numeric character") {
		said = quoteStar
	}
	f.refuse(line, "not YAML from here: %s", said)
}

// plain refuses what makes YAML mean more than it says.
func (f *policyFile) plain(n *yaml.Node) bool {
	switch {
	case n.Kind == yaml.AliasNode || n.Anchor != "":
		f.refuse(n.Line, "anchors and aliases are not allowed; %s", quoteStar)
	case n.Style&yaml.TaggedStyle != 0:
		f.refuse(n.Line, "tags are not allowed; a value that begins with ! must be in quotes")
	default:
		return true
	}
	return false
}

// text returns a value as it is written, whatever YAML takes it for: no is no,
// and 1.10 is not 1.1.
func (f *policyFile) text(n *yaml.Node, what string) (string, bool) {
	switch {
	case !f.plain(n):
		return "", false
	case n.Kind != yaml.ScalarNode || n.Tag == "!!null":
		f.refuse(n.Line, "%s must have a value, and one only", what)
		return "", false
	}
	return n.Value, true
}

// pairs calls each for the keys and values of a mapping.
func (f *policyFile) pairs(n *yaml.Node, what string, each func(key string, line int, value *yaml.Node)) {
	if !f.plain(n) {
		return
	}
	if n.Kind != yaml.MappingNode {
		f.refuse(n.Line, "%s must be keys with values", what)
		return
	}
	lines := map[string]int{}
	for pair := range slices.Chunk(n.Content, 2) {
		key, ok := f.text(pair[0], "a key")
		if !ok {
			continue
		}
		if line, twice := lines[key]; twice {
			f.refuse(pair[0].Line, "%s: is there already, in line %d", quote(key), line)
			continue
		}
		lines[key] = pair[0].Line
		each(key, pair[0].Line, pair[1])
	}
}

// fields returns the values of a mapping by their keys, of which others than known
// are refused.
func (f *policyFile) fields(n *yaml.Node, what string, known ...string) map[string]*yaml.Node {
	fields := map[string]*yaml.Node{}
	f.pairs(n, what, func(key string, line int, value *yaml.Node) {
		if !slices.Contains(known, key) {
			f.refuse(line, "%s: is no key of %s: there are %s", quote(key), what, strings.Join(known, ", "))
			return
		}
		fields[key] = value
	})
	return fields
}

// items returns the items of a list.
func (f *policyFile) items(n *yaml.Node, what string) []*yaml.Node {
	if !f.plain(n) {
		return nil
	}
	if n.Kind != yaml.SequenceNode {
		f.refuse(n.Line, "%s must be a list", what)
		return nil
	}
	return n.Content
}

// quote quotes what is written in the file, and shortens it.
func quote(s string) string {
	const most = 80
	if runes := []rune(s); len(runes) > most {
		s = string(runes[:most]) + "…"
	}
	return strconv.Quote(s)
}

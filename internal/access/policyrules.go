package access

import (
	"cmp"
	"errors"
	"fmt"
	"regexp"
	"slices"
	"strings"
	"unicode"
	"unicode/utf8"

	"gopkg.in/yaml.v3"
)

// policy reads a file.
func (f *policyFile) policy(content []byte) *Policy {
	p := &Policy{file: f.name}
	root := f.root(content)
	if root == nil {
		return p
	}
	fields := f.fields(root, "an access file", "rules", "limits")
	if n := fields["rules"]; n != nil {
		lines := map[string]int{} // :: title → line
		last := 0
		for _, item := range f.few(n, "rules") {
			r := f.rule(item)
			if r.line == last {
				f.refuse(r.line, "a rule must begin in a line of its own")
			} else if line, twice := lines[r.title]; twice {
				f.refuse(r.line, "name: %s is the name of the rule in line %d already", quote(r.title), line)
			}
			lines[r.title], last = r.line, r.line
			p.rules = append(p.rules, r)
		}
	}
	if n := fields["limits"]; n != nil {
		for _, item := range f.few(n, "limits") {
			p.allowances = append(p.allowances, f.allowance(item))
		}
	}
	return p
}

// few returns the items of a list that may be empty, but not very long.
func (f *policyFile) few(n *yaml.Node, what string) []*yaml.Node {
	items := f.items(n, what)
	if len(items) > maxRules {
		f.refuse(items[maxRules].Line, "%s: has more than %d items", what, maxRules)
		return nil
	}
	return items
}

func (f *policyFile) rule(n *yaml.Node) *rule {
	r := &rule{title: fmt.Sprint("line ", n.Line), line: n.Line}
	fields := f.fields(n, "a rule", "name", "principals", "roles", "tenants", "labels", "scopes")
	if n := fields["name"]; n != nil {
		if name, ok := f.text(n, "name"); ok {
			if err := checkRuleName(name); err != nil {
				f.refuse(n.Line, "name: %v", err)
			}
			r.title, r.named = name, true
		}
	}
	r.principals = parseAll(f, fields["principals"], "principals", parsePrincipal)
	r.roles = parseAll(f, fields["roles"], "roles", parseRole)
	r.tenants = parseAll(f, fields["tenants"], "tenants", parseTenant)
	r.scopes = parseAll(f, fields["scopes"], "scopes", parseScope)
	if n := fields["labels"]; n != nil {
		r.labels = f.labels(n)
	}
	for _, role := range r.roles {
		r.methods |= role.methods
	}
	if len(r.labels) > 0 {
		r.methods &^= createTenant
	}
	if n.Kind != yaml.MappingNode {
		return r
	}
	for _, key := range []string{"principals", "roles"} {
		if fields[key] == nil {
			f.refuse(n.Line, "a rule must have %s", key)
		}
	}
	if fields["tenants"] == nil && fields["labels"] == nil {
		f.refuse(n.Line, `a rule must have tenants or labels, or both; tenants: ["*"] is every tenant`)
	}
	if scopes := fields["scopes"]; scopes != nil && r.methods&^tokenMethods != 0 {
		f.refuse(scopes.Line, "scopes: go with token.reader alone; the other roles need a rule of their own")
	}
	return r
}

// lineTitle is what a rule without a name is called.
var lineTitle = regexp.MustCompile(`^line [0-9]+$`)

func checkRuleName(name string) error {
	switch {
	case name == "" || utf8.RuneCountInString(name) > 128 || strings.TrimSpace(name) != name ||
		strings.ContainsFunc(name, func(r rune) bool { return !unicode.IsPrint(r) }):
		return errors.New("must be 1 to 128 printable characters, without space at the ends")
	case name == insecure || lineTitle.MatchString(name):
		return errors.New("is what other rules are called")
	}
	return nil
}

// parseAll reads the items of a list, one at least; none if there is no list.
func parseAll[T any](f *policyFile, n *yaml.Node, key string, parse func(string) (T, error)) (parsed []T) {
	if n == nil {
		return nil
	}
	if n.Kind == yaml.SequenceNode && len(n.Content) == 0 {
		f.refuse(n.Line, "%s: must not be empty", key)
		return nil
	}
	for _, item := range f.items(n, key) {
		text, ok := f.text(item, "an item of "+key)
		if !ok {
			continue
		}
		value, err := parse(text)
		if err != nil {
			f.refuse(item.Line, "%s: %s %v", key, quote(text), err)
			continue
		}
		parsed = append(parsed, value)
	}
	return parsed
}

var labelKey = regexp.MustCompile(`^[a-z][a-z0-9_./-]{0,62}$`)

// labels reads labels, which are as those of a tenant.
func (f *policyFile) labels(n *yaml.Node) (labels []label) {
	if n.Kind == yaml.MappingNode && len(n.Content) == 0 {
		f.refuse(n.Line, "labels: must not be empty")
		return nil
	}
	f.pairs(n, "labels", func(key string, line int, n *yaml.Node) {
		value, ok := f.text(n, "a label")
		switch {
		case !labelKey.MatchString(key):
			f.refuse(line, "labels: %s must be 1 to 63 lower-case letters, digits, hyphens, underscores, dots and slashes, and start with a letter", quote(key))
		case ok && (utf8.RuneCountInString(value) > 63 || strings.ContainsFunc(value, unicode.IsControl)):
			f.refuse(n.Line, "labels: the value of %s must be at most 63 characters, without control characters", key)
		}
		labels = append(labels, label{key, value})
	})
	slices.SortFunc(labels, func(a, b label) int { return cmp.Compare(a.key, b.key) })
	return labels
}

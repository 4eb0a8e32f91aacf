package access_test

import (
	"fmt"
	"regexp"
	"strings"
	"testing"
	"time"

	"smokeball.internal/tokenbroker/internal/access"
)

// What a pattern is written in.
const (
	forPrincipals = iota
	forTenants
	forScopes
)

// patternFile is an access file with one pattern in it.
func patternFile(place int, pattern string) string {
	values := []string{"jwt:a", "acme", "a/read"}
	values[place] = pattern
	for i := range values {
		values[i] = "'" + strings.ReplaceAll(values[i], "'", "''") + "'"
	}
	return fmt.Sprintf("rules:\n- {principals: [%s], roles: [token.reader], tenants: [%s], scopes: [%s]}", values[0], values[1], values[2])
}

// matches says whether a policy of patternFile takes name for one that its
// pattern stands for.
func matches(p *access.Policy, place int, name string) bool {
	values := []string{"jwt:a", "acme", "a/read"}
	values[place] = name
	g := p.Grants([]string{values[0]})
	return g.Decide(access.Query{Method: "GetToken", Tenant: values[1], Scopes: []string{values[2]}}).Verdict == access.Allowed
}

func TestPatterns(t *testing.T) {
	for _, c := range []struct {
		place    int
		pattern  string
		yes, not string // names, separated by spaces
	}{
		{forPrincipals, "spiffe://a.b/ns/x/sa/y", "spiffe://a.b/ns/x/sa/y",
			"spiffe://a.b/ns/x/sa/Y spiffe://a.b/ns/x/sa/y/ spiffe://a.b/ns/x/sa/yy spiffe://a.b/ns/x/sa spiffe://axb/ns/x/sa/y dns:a.b jwt:spiffe://a.b/ns/x/sa/y"},
		{forPrincipals, "spiffe://a/ns/*/sa/y", "spiffe://a/ns/x/sa/y spiffe://a/ns/x-2_.Z/sa/y",
			"spiffe://a/ns//sa/y spiffe://a/ns/x/z/sa/y spiffe://a/ns/x/sa/y/z spiffe://a/ns/x/sa spiffe://a/ns/sa/y spiffe://b/ns/x/sa/y spiffe://a/ns/../sa/y spiffe://a/ns/*/sa/y spiffe://a/ns/x%2F/sa/y"},
		{forPrincipals, "spiffe://a/web-*", "spiffe://a/web- spiffe://a/web-1 spiffe://a/web-1-2", "spiffe://a/web spiffe://a/web-1/x spiffe://a/xweb-1 spiffe://a/Web-1"},
		{forPrincipals, "spiffe://a/*b*c*", "spiffe://a/bc spiffe://a/xbxcx spiffe://a/bbcc spiffe://a/cbc", "spiffe://a/cb spiffe://a/b spiffe://a/c spiffe://a/b/c"},
		{forPrincipals, "spiffe://a/ab*ba", "spiffe://a/abba spiffe://a/abxba", "spiffe://a/aba spiffe://a/ab"},
		{forPrincipals, "spiffe://a/ns/**", "spiffe://a/ns/x spiffe://a/ns/x/y/z",
			"spiffe://a/ns spiffe://a/ns/ spiffe://a/nsx/y spiffe://a/ns//x spiffe://a/ns/x/ spiffe://a/ns/x//y spiffe://a/ns/x/../y spiffe://b/ns/x"},
		{forPrincipals, "spiffe://a/**", "spiffe://a/x spiffe://a/x/y", "spiffe://a spiffe://a/ spiffe://ab/x spiffe://b/x dns:a"},
		{forPrincipals, "spiffe://a/x*/**", "spiffe://a/x/y spiffe://a/xz/y/z", "spiffe://a/x spiffe://a/y/x"},
		{forPrincipals, "dns:Billing.internal", "dns:billing.internal dns:BILLING.Internal", "dns:billing.internal. dns:xbilling.internal dns:billing DNS:billing.internal billing.internal"},
		{forPrincipals, "dns:*.Internal", "dns:a.internal dns:A.INTERNAL dns:a-b_1.internal", "dns:internal dns:.internal dns:a.b.internal dns:*.internal dns:a.internal.b dns:a\u212a.internal"},
		{forPrincipals, "dns:web-*.*.internal", "dns:web-.a.internal dns:web-1.a.internal", "dns:web-1..internal dns:web-1.internal dns:web.a.internal"},
		{forPrincipals, "dns:*", "dns:a", "dns: dns:a.b jwt:a"},
		{forPrincipals, "subject:CN=a,O=b", "subject:CN=a,O=b", "subject:CN=A,O=b subject:cn=a,O=b subject:CN=a subject:CN=a,O=b,C=c subject:CN=*,O=b"},
		{forPrincipals, "jwt:a", "jwt:a", "jwt:A jwt:aa dns:a a JWT:a"},
		{forPrincipals, "jwt:system:serviceaccount:*:web", "jwt:system:serviceaccount:x:web jwt:system:serviceaccount:x|y@z.q:web",
			"jwt:system:serviceaccount::web jwt:system:serviceaccount:x:y:web jwt:system:serviceaccount:x/y:web jwt:system/serviceaccount:x:web"},
		{forPrincipals, "jwt:https://idp/*", "jwt:https://idp/u", "jwt:https://idp/ jwt:https://idp/u/v jwt:https://idp/u:v jwt:https:/idp/u jwt:https:///idp/u"},
		{forPrincipals, "jwt:*", "jwt:a jwt:dns.b", "jwt: jwt:a:b jwt:a/b jwt:* jwt:ö dns:a spiffe://a/b"},
		{forTenants, "acme", "acme", "acme2 acm Acme *"},
		{forTenants, "*", "acme a a-1", "5 - * Acme acme- tenants/acme ö"},
		{forTenants, "globex-*", "globex-us globex-1 globex-a-b", "globex globex- globexus globex-* globex-A globex-/a globex-us/../acme globex-us,acme"},
		{forTenants, "*-prod", "a-prod a-b-prod", "-prod prod a-prod2"},
		{forTenants, "a*a", "aa aba", "a ab"},
		{forTenants, "a*b*b*c", "abbc abxbc", "abc axbc"},
		{forScopes, "matters/read", "matters/read", "matters/write matters/readx matters Matters/read matters/read/x"},
		{forScopes, "contacts/*", "contacts/read contacts/x.y", "contacts contacts/ contacts/read/all xcontacts/read"},
		{forScopes, "*/read", "matters/read", "/read matters/x/read read"},
		{forScopes, "*/*", "matters/read", "matters matters/ /read a/b/c"},
		{forScopes, "open*", "open openid", "open/id xopenid"},
	} {
		p := parse(t, patternFile(c.place, c.pattern))
		for name := range strings.FieldsSeq(c.yes) {
			if !matches(p, c.place, name) {
				t.Errorf("%s does not stand for %s", c.pattern, name)
			}
		}
		for name := range strings.FieldsSeq(c.not) {
			if matches(p, c.place, name) {
				t.Errorf("%s stands for %s", c.pattern, name)
			}
		}
		if matches(p, c.place, "") {
			t.Errorf("%s stands for nothing", c.pattern)
		}
	}
}

func TestSpacesAreComparedToo(t *testing.T) {
	const subject = `subject:CN=Bürö\, 1,O=b+OU=c`
	p := parse(t, patternFile(forPrincipals, subject))
	if !matches(p, forPrincipals, subject) || matches(p, forPrincipals, strings.Replace(subject, ", ", ",", 1)) {
		t.Errorf("%s does not stand for itself alone", subject)
	}
	// The issuer would take it for two.
	if p := parse(t, patternFile(forScopes, "matters/*")); matches(p, forScopes, "matters/read openid") {
		t.Error("two scopes pass for one")
	}
}

func TestAPatternOfManyStarsTakesNoLonger(t *testing.T) {
	// Among the slowest for matchers that go back.
	p := parse(t, patternFile(forPrincipals, "spiffe://a/"+strings.Repeat("a*", 1000)+"b"))
	name := "spiffe://a/" + strings.Repeat("a", 2000)
	begin := time.Now()
	for range 100 {
		if matches(p, forPrincipals, name) {
			t.Fatal("matches")
		}
	}
	if took := time.Since(begin); took > 2*time.Second {
		t.Errorf("took %v for 100", took)
	}
}

// FuzzPattern compares patterns with regular expressions made of the sentence
// that describes them.
func FuzzPattern(f *testing.F) {
	f.Add(forPrincipals, "spiffe://a/ns/*/sa/**", "spiffe://a/ns/x/sa/y/z")
	f.Add(forPrincipals, "dns:web-*.*.internal", "dns:Web-1.a.internal")
	f.Add(forPrincipals, "jwt:a:*/*b*c*", "jwt:a:x/bbcc")
	f.Add(forPrincipals, "subject:CN=a,O=b", "subject:CN=a,O=b")
	f.Add(forTenants, "a*b*c", "abbcc")
	f.Add(forScopes, "*/re*d", "matters/read")
	f.Fuzz(func(t *testing.T, place int, pattern, name string) {
		if place < forPrincipals || place > forScopes || strings.ContainsAny(pattern, "\r\n") || len(pattern)+len(name) > 5000 {
			return
		}
		p, err := access.ParsePolicy("a", []byte(patternFile(place, pattern)))
		if err != nil {
			return
		}
		if got, want := matches(p, place, name), reference(place, pattern, name); got != want {
			t.Errorf("%q stands for %q: %v, want %v", pattern, name, got, want)
		}
	})
}

var nameForms = []*regexp.Regexp{
	regexp.MustCompile(`^(spiffe://[a-z0-9._-]+(/([A-Za-z0-9_-]|\.\.?[A-Za-z0-9_-]|\.\.\.)[A-Za-z0-9._-]*)+|dns:[A-Za-z0-9_-]+(\.[A-Za-z0-9_-]+)*|jwt:[!-)+-~]+|subject:.*)$`),
	regexp.MustCompile(`^[a-z]([a-z0-9-]{0,61}[a-z0-9])?$`),
	regexp.MustCompile(`^[!#-\[\]-~]{1,256}$`),
}

// expressions are those that reference has made; tests that call it are not
// parallel.
var expressions = map[string]*regexp.Regexp{}

// reference says what matches should.
func reference(place int, pattern, name string) bool {
	separators := ""
	switch {
	case place == forScopes || strings.HasPrefix(pattern, "spiffe:"):
		separators = "/"
	case strings.HasPrefix(pattern, "dns:"):
		separators = "."
		pattern, name = strings.ToLower(pattern), toLowerDNS(name)
	case strings.HasPrefix(pattern, "jwt:"):
		separators = ":/"
	}
	if !strings.Contains(pattern, "*") {
		return pattern == name
	}
	any := "."
	if separators != "" {
		any = "[^" + separators + "]"
	}
	ends := func(at int) bool {
		return at < 0 || at == len(pattern) || strings.IndexByte(separators, pattern[at]) >= 0
	}
	var expression strings.Builder
	for i := 0; i < len(pattern); i++ {
		switch {
		case strings.HasPrefix(pattern[i:], "**"):
			expression.WriteString(any + "+(/" + any + "+)*")
			i++
		case pattern[i] != '*':
			expression.WriteString(regexp.QuoteMeta(pattern[i : i+1]))
		case (ends(i-1) || pattern[:i] == "dns:") && ends(i+1):
			expression.WriteString(any + "+")
		default:
			expression.WriteString(any + "*")
		}
	}
	compiled, ok := expressions[expression.String()]
	if !ok {
		compiled = regexp.MustCompile(`^(?s:` + expression.String() + `)$`)
		expressions[expression.String()] = compiled
	}
	return compiled.MatchString(name) && nameForms[place].MatchString(name) && short(place, name)
}

// toLowerDNS returns the name of a host as it is compared.
func toLowerDNS(name string) string {
	if nameForms[forPrincipals].MatchString(name) {
		return strings.ToLower(name)
	}
	return name
}

// short says whether a name is not too long.
func short(place int, name string) bool {
	if place != forPrincipals {
		return true
	}
	kind, rest, _ := strings.Cut(name, ":")
	switch kind {
	case "spiffe":
		return len(name) <= 2048
	case "dns":
		for label := range strings.SplitSeq(rest, ".") {
			if len(label) > 63 {
				return false
			}
		}
		return len(rest) <= 253
	default:
		return len(rest) <= 255
	}
}

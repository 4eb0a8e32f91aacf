package access_test

import (
	"strings"
	"testing"

	"smokeball.internal/tokenbroker/internal/access"
)

// wantProblems reads an access file that has exactly these problems, one a line.
func wantProblems(t *testing.T, content string, want ...string) {
	t.Helper()
	p, err := access.ParsePolicy("access.yaml", []byte(content))
	if err == nil {
		t.Errorf("accepted:\n%s", content)
		return
	}
	if p != nil {
		t.Error("there is a policy beside the error")
	}
	if got := err.Error(); got != strings.Join(want, "\n") {
		t.Errorf("says\n%s\nwant\n%s\nof\n%s", got, strings.Join(want, "\n"), content)
	}
}

func TestWhatIsNoAccessFileIsRefusedWithItsLine(t *testing.T) {
	const quotes = "a value that begins with * must be in quotes"
	for content, want := range map[string]string{
		"rules: x: y":                        "1: not YAML from here: mapping values are not allowed in this context",
		"limits: []\nrules: x: y":            "2: not YAML from here: mapping values are not allowed in this context",
		"limits: []\nrules: [a\nb":           "2: not YAML from here: did not find expected ',' or ']'",
		"rules:\n  - name: a\n   roles: [b]": "2: not YAML from here: did not find expected '-' indicator",
		"rules:\n\t- a":                      "2: not YAML from here: found character that cannot start any token",
		"rules:\n- tenants: [*]":             "2: not YAML from here: " + quotes,
		"rules:\n- tenants: [a*b, *-prod]":   "2: not YAML from here: " + quotes,
		"rules:\n- tenants:\n  - *":          "3: not YAML from here: " + quotes,
		"limits: []\nrules:\n- *foo":         "3: not YAML from here: " + quotes,
		"rules: []\n---\nrules: []":          "2: a second YAML document begins here: there can be one only",
		"---\n---\nrules: []":                "2: a second YAML document begins here: there can be one only",
		"{rules: []}}":                       "1: not YAML from here: did not find expected <document start>",
		"rules: []\n# a\xff":                 "2: not UTF-8",
		"rules: []\n# a\u202eb":              "2: there is a character that cannot be seen, U+202E",
		"rules: []\n# a\u2028b":              "2: there is a character that cannot be seen, U+2028",
		"rules: []\n# a\rb":                  "2: there is a character that cannot be seen, U+000D",
		"\n\x00":                             "2: there is a character that cannot be seen, U+0000",
		"\n- a":                              "2: an access file must be keys with values",
		"secret":                             "1: an access file must be keys with values",
		"null":                               "1: an access file must be keys with values",
		"rules: []\nrule: secret":            `2: "rule": is no key of an access file: there are rules, limits`,
		"rules: []\nrules: []":               `2: "rules": is there already, in line 1`,
		"rules: []\n? [a]\n: b":              "2: a key must have a value, and one only",
		"rules: &a []":                       "1: anchors and aliases are not allowed; " + quotes,
		"limits: []\nrules: !!seq []":        "2: tags are not allowed; a value that begins with ! must be in quotes",
		"rules:\n":                           "1: rules must be a list",
		"limits: []\nrules: {}":              "2: rules must be a list",
		"limits: 5":                          "1: limits must be a list",
		strings.Repeat("#", 1<<20+1):         "1: the file is larger than 1048576 bytes",
	} {
		wantProblems(t, content, "access.yaml:"+want)
	}
}

// good are the lines of a rule and a limit that are right.
var good = []string{
	"rules:",
	"- principals: [jwt:a]", // 2
	"  roles: [token.reader]",
	"  tenants: [acme]", // 4
	"  labels: {team: a}",
	"  scopes: [a/read]", // 6
	"  name: first",
	"limits:", // 8
	"- principals: [jwt:a]",
	"  calls_per_second: 5", // 10
}

// with returns good with another line.
func with(line int, other string) string {
	lines := append([]string{}, good...)
	lines[line-1] = other
	return strings.Join(lines, "\n")
}

func TestWhatIsWrongInARuleIsRefusedWithItsLine(t *testing.T) {
	parse(t, strings.Join(good, "\n"))
	wantProblems(t, "rules: [{principals: [jwt:a], roles: [token.reader], tenants: [a]}, {name: a, principals: [jwt:a], roles: [token.reader], tenants: [a]}]",
		"access.yaml:1: a rule must begin in a line of its own")
	const (
		kinds   = "must begin with dns:, jwt:, subject: or spiffe://"
		path    = "must have a path of letters, digits, dots, hyphens and underscores, and no empty segment"
		domain  = "must have a trust domain of lower-case letters, digits, dots, hyphens and underscores"
		host    = "must be a host name: at most 253 letters, digits, hyphens and underscores, with dots in between"
		deep    = "has **, which can only be the whole last segment of a SPIFFE ID"
		dn      = "must be a subject as RFC 2253 has it: CN=billing,O=Example, without a space after the comma"
		ascii   = "must have a subject of 1 to 255 visible ASCII characters"
		id      = "must be 1 to 63 lower-case letters, digits, hyphens and *, start with a letter or * and not end with a hyphen"
		scope   = "must be 1 to 256 visible ASCII characters without space, quote or backslash"
		rate    = "must be a number such as 200 or 0.5, above 0 and at most 1000000"
		count   = "must be a whole number from 1 to 1000000"
		titled  = "must be 1 to 128 printable characters, without space at the ends"
		limited = "a limit must have one of calls_per_second, refreshes_per_minute, open_calls and connections"
		value   = "must have a value, and one only"
		key     = "must be 1 to 63 lower-case letters, digits, hyphens, underscores, dots and slashes, and start with a letter"
	)
	long := strings.Repeat("x", 300)
	cut := strings.Repeat("x", 76)
	for _, c := range []struct {
		line      int
		text, say string
	}{
		{2, "- {}\n- principals: [jwt:a]", "2: a rule must have principals\naccess.yaml:2: a rule must have roles\n" +
			`access.yaml:2: a rule must have tenants or labels, or both; tenants: ["*"] is every tenant`},
		{2, "- a\n- principals: [jwt:a]", "2: a rule must be keys with values"},
		{2, "- [a]\n- principals: [jwt:a]", "2: a rule must be keys with values"},
		{2, "-\n- principals: [jwt:a]", "2: a rule must be keys with values"},
		{2, "- prinzipals: [secret]\n  principals: [jwt:a]", `2: "prinzipals": is no key of a rule: there are name, principals, roles, tenants, labels, scopes`},
		{2, "- principals: [jwt:a]\n  <<: {name: a}", `3: "<<": is no key of a rule: there are name, principals, roles, tenants, labels, scopes`},
		{2, "- principals: jwt:a", "2: principals must be a list"},
		{2, "- principals:", "2: principals must be a list"},
		{2, "- principals: []", "2: principals: must not be empty"},
		{2, "- principals:\n  - jwt:a\n  -", "4: an item of principals " + value},
		{2, "- principals: [~]", "2: an item of principals " + value},
		{2, "- principals: [[jwt:a]]", "2: an item of principals " + value},
		{2, "- principals: [&b jwt:a]", "2: anchors and aliases are not allowed; a value that begins with * must be in quotes"},
		{2, "- principals: [!!str jwt:a]", "2: tags are not allowed; a value that begins with ! must be in quotes"},
		{2, "- principals: [jwt:a]\n  tenants: [a]", `5: "tenants": is there already, in line 3`},
		{2, `- principals: ["*"]`, `2: principals: "*" ` + kinds + "; there is no word for everybody"},
		{2, "- principals: [billing.internal]", `2: principals: "billing.internal" ` + kinds},
		{2, "- principals: [anyone]", `2: principals: "anyone" ` + kinds},
		{2, "- principals: [5]", `2: principals: "5" ` + kinds},
		{2, "- principals: ['*:a']", `2: principals: "*:a" ` + kinds},
		{2, "- principals: [SPIFFE://a/b]", `2: principals: "SPIFFE://a/b" ` + kinds},
		{2, "- principals: [spiffe://a]", `2: principals: "spiffe://a" must have a path after the trust domain`},
		{2, "- principals: [spiffe://a/]", `2: principals: "spiffe://a/" must have a path after the trust domain`},
		{2, "- principals: [spiffe://*.a/b]", `2: principals: "spiffe://*.a/b" must name its trust domain exactly, without *`},
		{2, "- principals: [spiffe:///b]", `2: principals: "spiffe:///b" ` + domain},
		{2, "- principals: [spiffe://A/b]", `2: principals: "spiffe://A/b" ` + domain},
		{2, "- principals: [spiffe://a:1/b]", `2: principals: "spiffe://a:1/b" ` + domain},
		{2, "- principals: [spiffe://" + long[:256] + "/b]", `2: principals: "spiffe://` + long[:71] + `…" ` + domain},
		{2, "- principals: [spiffe://a/b/]", `2: principals: "spiffe://a/b/" ` + path},
		{2, "- principals: [spiffe://a//b]", `2: principals: "spiffe://a//b" ` + path},
		{2, "- principals: [spiffe://a/../b]", `2: principals: "spiffe://a/../b" ` + path},
		{2, "- principals: [spiffe://a/./b]", `2: principals: "spiffe://a/./b" ` + path},
		{2, "- principals: [spiffe://a/b%20]", `2: principals: "spiffe://a/b%20" ` + path},
		{2, "- principals: [spiffe://a/**/b]", `2: principals: "spiffe://a/**/b" ` + deep},
		{2, "- principals: [spiffe://a/b**]", `2: principals: "spiffe://a/b**" ` + deep},
		{2, "- principals: [spiffe://a/***]", `2: principals: "spiffe://a/***" ` + deep},
		{2, "- principals: [spiffe://" + strings.Repeat("a/", 1020) + "a]", `2: principals: "spiffe://` + strings.Repeat("a/", 35) + `a…" must be at most 2048 characters long`},
		{2, "- principals: ['dns:']", `2: principals: "dns:" ` + host},
		{2, "- principals: [dns:a.]", `2: principals: "dns:a." ` + host},
		{2, "- principals: [dns:a..b]", `2: principals: "dns:a..b" ` + host},
		{2, "- principals: [dns:bürö]", `2: principals: "dns:bürö" ` + host},
		{2, "- principals: [dns:\u212ai]", `2: principals: "dns:` + "\u212a" + `i" ` + host}, // Whose lower case is k.
		{2, "- principals: ['dns:a:1']", `2: principals: "dns:a:1" ` + host},
		{2, "- principals: ['dns:**.a']", `2: principals: "dns:**.a" ` + deep},
		{2, "- principals: [dns:" + long[:64] + "]", `2: principals: "dns:` + long[:64] + `" ` + host},
		{2, "- principals: [dns:" + strings.Repeat("x.", 127) + "x]", `2: principals: "dns:` + strings.Repeat("x.", 38) + `…" ` + host},
		{2, "- principals: ['subject:']", `2: principals: "subject:" ` + dn},
		{2, "- principals: ['subject:CN=*']", `2: principals: "subject:CN=*" must be a whole subject, without *: subjects are compared exactly`},
		{2, "- principals: ['subject:CN=a, O=b']", `2: principals: "subject:CN=a, O=b" ` + dn},
		{2, "- principals: ['subject:CN=a,']", `2: principals: "subject:CN=a," ` + dn},
		{2, "- principals: ['subject:billing']", `2: principals: "subject:billing" ` + dn},
		{2, "- principals: ['subject:CN=" + strings.Repeat("x", 1022) + "']", `2: principals: "subject:CN=` + long[:69] + `…" must be a subject of at most 1024 printable characters`},
		{2, `- principals: ["subject:CN=a\nb"]`, `2: principals: "subject:CN=a\nb" must be a subject of at most 1024 printable characters`},
		{2, "- principals: ['jwt:']", `2: principals: "jwt:" ` + ascii},
		{2, "- principals: ['jwt:a b']", `2: principals: "jwt:a b" ` + ascii},
		{2, "- principals: [jwt:" + long + "]", `2: principals: "jwt:` + cut + `…" ` + ascii},
		{2, "- principals: [jwt:ö]", `2: principals: "jwt:ö" ` + ascii},
		{2, "- principals: ['jwt:a:**']", `2: principals: "jwt:a:**" ` + deep},
		{3, "  roles: []", "3: roles: must not be empty"},
		{3, "  roles: token.reader", "3: roles must be a list"},
		{3, "  roles: [token.reader, admin]", `3: roles: "admin" must be token.reader, tenant.viewer or tenant.admin`},
		{3, "  roles: ['*']", `3: roles: "*" must be token.reader, tenant.viewer or tenant.admin`},
		{3, "  roles: [tenant.viewer]", "6: scopes: go with token.reader alone; the other roles need a rule of their own"},
		{3, "  roles: [token.reader, tenant.admin]", "6: scopes: go with token.reader alone; the other roles need a rule of their own"},
		{4, "  tenants: []", "4: tenants: must not be empty"},
		{4, "  tenants: acme", "4: tenants must be a list"},
		{4, "  tenants: [tenants/acme]", `4: tenants: "tenants/acme" must be written without tenants/`},
		{4, "  tenants: [Acme]", `4: tenants: "Acme" ` + id},
		{4, "  tenants: [5a]", `4: tenants: "5a" ` + id},
		{4, "  tenants: [a-]", `4: tenants: "a-" ` + id},
		{4, "  tenants: ['-a']", `4: tenants: "-a" ` + id},
		{4, "  tenants: ['']", `4: tenants: "" ` + id},
		{4, "  tenants: [" + long[:64] + "]", `4: tenants: "` + long[:64] + `" ` + id},
		{4, "  tenants: ['**']", `4: tenants: "**" ` + deep},
		{5, "  labels: {}", "5: labels: must not be empty"},
		{5, "  labels: [a]", "5: labels must be keys with values"},
		{5, "  labels:", "5: labels must be keys with values"},
		{5, "  labels: {team: }", "5: a label " + value},
		{5, "  labels: {Team: a}", `5: labels: "Team" ` + key},
		{5, "  labels: {" + long[:64] + ": a}", `5: labels: "` + long[:64] + `" ` + key},
		{5, "  labels: {team: " + long[:64] + "}", "5: labels: the value of team must be at most 63 characters, without control characters"},
		{5, `  labels: {team: "a\tb"}`, "5: labels: the value of team must be at most 63 characters, without control characters"},
		{5, "  labels:\n    a: b\n    a: b", `7: "a": is there already, in line 6`},
		{6, "  scopes: []", "6: scopes: must not be empty"},
		{6, "  scopes: ['*']", `6: scopes: "*" is no bound: leave scopes out, or write */* for every scope that has one slash`},
		{6, "  scopes: ['a/**']", `6: scopes: "a/**" ` + deep},
		{6, "  scopes: ['a b']", `6: scopes: "a b" ` + scope},
		{6, "  scopes: ['a\"b']", `6: scopes: "a\"b" ` + scope},
		{6, "  scopes: ['a\\b']", `6: scopes: "a\\b" ` + scope},
		{6, "  scopes: ['']", `6: scopes: "" ` + scope},
		{6, "  scopes: [" + long + "]", `6: scopes: "` + strings.Repeat("x", 80) + `…" ` + scope},
		{7, "  name:", "7: name " + value},
		{7, "  name: ''", "7: name: " + titled},
		{7, "  name: ' a'", "7: name: " + titled},
		{7, `  name: "a\nb"`, "7: name: " + titled},
		{7, "  name: " + long, "7: name: " + titled},
		{7, "  name: insecure", "7: name: is what other rules are called"},
		{7, "  name: line 12", "7: name: is what other rules are called"},
		{7, "  name: a\n- {name: a, principals: [jwt:a], roles: [token.reader], tenants: [a]}", `8: name: "a" is the name of the rule in line 2 already`},
		{9, "- calls: 5\n  principals: [jwt:a]", `9: "calls": is no key of a limit: there are principals, calls_per_second, refreshes_per_minute, open_calls, connections`},
		{9, "- calls_per_second: 5\n- principals: [jwt:a]", "9: a limit must have principals"},
		{9, "- a\n- principals: [jwt:a]", "9: a limit must be keys with values"},
		{9, "- principals: [a]", `9: principals: "a" ` + kinds},
		{10, "", "9: " + limited},
		{10, "  calls_per_second:", "10: calls_per_second " + value},
		{10, "  calls_per_second: [5]", "10: calls_per_second " + value},
		{10, "  calls_per_second: 0", "10: calls_per_second: " + rate},
		{10, "  calls_per_second: 0.0", "10: calls_per_second: " + rate},
		{10, "  calls_per_second: -1", "10: calls_per_second: " + rate},
		{10, "  calls_per_second: 010", "10: calls_per_second: " + rate},
		{10, "  calls_per_second: 1e3", "10: calls_per_second: " + rate},
		{10, "  calls_per_second: .inf", "10: calls_per_second: " + rate},
		{10, "  calls_per_second: .5", "10: calls_per_second: " + rate},
		{10, "  calls_per_second: 1000001", "10: calls_per_second: " + rate},
		{10, "  refreshes_per_minute: many", "10: refreshes_per_minute: " + rate},
		{10, "  open_calls: 0", "10: open_calls: " + count},
		{10, "  open_calls: 1.5", "10: open_calls: " + count},
		{10, "  connections: 0x10", "10: connections: " + count},
		{10, "  connections: 1000001", "10: connections: " + count},
	} {
		wantProblems(t, with(c.line, c.text), strings.Split("access.yaml:"+c.say, "\n")...)
	}
}

func TestAllThatIsWrongIsToldButNotEndlessly(t *testing.T) {
	wantProblems(t, with(3, "  roles: [admin, token.reader]")+"\n  x: y",
		`access.yaml:3: roles: "admin" must be token.reader, tenant.viewer or tenant.admin`,
		`access.yaml:11: "x": is no key of a limit: there are principals, calls_per_second, refreshes_per_minute, open_calls, connections`)
	_, err := access.ParsePolicy("a", []byte("rules:\n"+strings.Repeat("- secret\n", 10_000)))
	lines := strings.Split(err.Error(), "\n")
	if len(lines) != 21 || lines[0] != "a:2: a rule must be keys with values" || lines[20] != "a: 9980 more errors" {
		t.Errorf("%d lines: %s", len(lines), err)
	}
	rule := "- {principals: [jwt:a], roles: [token.reader], tenants: [a]}\n"
	parse(t, "rules:\n"+strings.Repeat(rule, 10_000))
	wantProblems(t, "rules:\n"+strings.Repeat(rule, 10_001), "access.yaml:10002: rules: has more than 10000 items")
	limit := "- {principals: [jwt:a], open_calls: 1}\n"
	wantProblems(t, "limits:\n"+strings.Repeat(limit, 10_001), "access.yaml:10002: limits: has more than 10000 items")
}

func TestAFileOfSecretsIsNotRepeated(t *testing.T) {
	for _, content := range []string{
		"planted", "PASSWORD=planted", "password: planted", "- planted", `{"key": [{"value": "planted"}]}`, "rules: planted", "rules: [planted]",
		"rules:\n- principals: {a: planted}", "rules:\n- name: \"planted\\n\"", "*planted", "a: *planted", "a: &planted b", "a: !planted b", "rules: !planted b",
		"-----BEGIN EC PRIVATE KEY-----\nplanted==\n-----END EC PRIVATE KEY-----", "limits:\n- open_calls: planted", "%planted", "a: 'planted", "a: b: planted",
	} {
		_, err := access.ParsePolicy("a", []byte(content))
		if err == nil || strings.Contains(err.Error(), "planted") {
			t.Errorf("of %q it is said: %v", content, err)
		}
	}
}

package statuspage

import (
	"net/url"
	"strings"
	"unicode/utf8"
)

// query says which part of the page is looked at.
type query struct {
	part    string // of the ids of the tenants that are looked for; empty: all
	after   string // the id that the list begins behind
	trouble bool   // what is in trouble, and nothing else
	refresh bool   // the page loads itself again
}

const (
	path = "/status"
	// An id is a DNS label; tenants/ may stand before it.
	maxID = 63 + 8
	// Links of the page are shorter than this.
	maxQuery = 1024
)

// readQuery reads what is behind the question mark of a request, or says what is
// wrong with it.
func readQuery(raw string) (q query, wrong string) {
	if len(raw) > maxQuery {
		return q, "The query is too long: an id of a tenant has 63 characters at most."
	}
	values, err := url.ParseQuery(raw)
	if err != nil {
		return q, "The query cannot be read."
	}
	for _, text := range []string{values.Get("q"), values.Get("after")} {
		if len(text) > maxID || !utf8.ValidString(text) {
			return q, "What is looked for is part of a tenant's id, which has 63 characters at most."
		}
	}
	// As an id is written, and as the API names a tenant.
	q.part = strings.TrimPrefix(strings.ToLower(strings.TrimSpace(values.Get("q"))), "tenants/")
	q.after = values.Get("after")
	q.trouble = values.Get("show") == "trouble"
	q.refresh = values.Get("refresh") != ""
	return q, ""
}

// link returns the address of this part of the page.
func (q query) link() string {
	values := url.Values{}
	set := func(name, value string) {
		if value != "" {
			values.Set(name, value)
		}
	}
	set("q", q.part)
	set("after", q.after)
	if q.trouble {
		set("show", "trouble")
	}
	if q.refresh {
		set("refresh", "30")
	}
	if len(values) == 0 {
		return path
	}
	return path + "?" + values.Encode()
}

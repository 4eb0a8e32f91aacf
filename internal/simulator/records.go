package simulator

import (
	"cmp"
	"crypto/sha256"
	"fmt"
	"net/http"
	"net/url"
	"strconv"
	"strings"
)

const maxPage = 500 // Smokeball's

// record is an object of the API. It has an id and its own href.
type record map[string]any

type link struct {
	HRef string `json:"href"`
}

// page is Smokeball's "paged collection".
type page struct {
	HRef   string   `json:"href"`
	Offset int      `json:"offset"`
	Limit  int      `json:"limit"`
	Size   int      `json:"size"` // of the whole list
	First  link     `json:"first"`
	Next   *link    `json:"next,omitempty"`
	Last   link     `json:"last"`
	Value  []record `json:"value"`
}

// firm returns what the client's firm has, by resource: always the same for the same client, with ids of its own. Links
// begin with base.
func firm(clientID, base string) map[string][]record {
	contacts := []record{
		{"person": map[string]string{"firstName": "Ada", "lastName": "Marsh", "email": "ada.marsh@example.com"}},
		{"company": map[string]string{"name": "Northwind Estates", "email": "legal@northwind.example"}},
		{"person": map[string]string{"firstName": "Tom", "lastName": "Okoro", "email": "tom.okoro@example.com"}},
	}
	matters := []record{
		{"description": "Sale of 12 Harbour Street", "status": "Open", "openedDate": "2026-03-02T09:00:00Z"},
		{"description": "Lease review", "status": "Pending", "openedDate": "2026-05-18T14:30:00Z"},
		{"description": "Estate of E. Okoro", "status": "Closed", "openedDate": "2025-11-10T08:15:00Z", "closedDate": "2026-08-21T16:00:00Z"},
	}
	firm := map[string][]record{"contacts": contacts, "matters": matters}
	for resource, records := range firm {
		for n, r := range records {
			digest := sha256.Sum256(fmt.Appendf(nil, "%s\x00%s\x00%d", clientID, resource, n))
			id := asUUID([16]byte(digest[:16]))
			r["id"], r["href"] = id, base+"/"+resource+"/"+id
		}
	}
	initials := strings.ToUpper(clientID[:min(3, len(clientID))])
	for n, matter := range matters {
		matter["number"], matter["isLead"] = fmt.Sprintf("%s-%d", initials, 101+n), false
		matter["clients"] = []any{map[string]any{"href": contacts[n]["href"]}}
	}
	return firm
}

// answerPage answers with the part of the list that the query asks for.
func answerPage(w http.ResponseWriter, r *http.Request, href string, records []record) {
	var refused []problemError
	number := func(name string, least, most, absent int) int {
		text := parameter(r.URL.Query(), name)
		n, err := strconv.Atoi(cmp.Or(text, strconv.Itoa(absent)))
		if err != nil || n < least || n > most {
			refused = append(refused, problemError{Field: name, Message: fmt.Sprintf("must be from %d to %d", least, most)})
		}
		return n
	}
	offset, limit := number("offset", 0, 1<<31-1, 0), number("limit", 1, maxPage, maxPage)
	if len(refused) > 0 {
		answerProblem(w, r, http.StatusBadRequest, "See the errors field for details.", refused)
		return
	}
	at := func(offset int) link { return link{fmt.Sprintf("%s?limit=%d&offset=%d", href, limit, offset)} }
	p := page{
		HRef: href, Offset: offset, Limit: limit, Size: len(records),
		First: at(0), Last: at(max(0, len(records)-1) / limit * limit),
		Value: []record{},
	}
	if offset < len(records) {
		p.Value = records[offset:min(offset+limit, len(records))]
	}
	if next := offset + limit; next < len(records) {
		next := at(next)
		p.Next = &next
	}
	answerObject(w, http.StatusOK, "application/json; charset=utf-8", p)
}

// parameter returns the value of a parameter, whose name may be written in any case.
func parameter(query url.Values, name string) string {
	for key, values := range query {
		if strings.EqualFold(key, name) {
			return values[0]
		}
	}
	return ""
}

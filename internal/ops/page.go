package ops

import (
	"net/http"
	"strings"
)

// statusOrPage answers people's browsers with the page, and scripts with JSON.
func (s *Server) statusOrPage(w http.ResponseWriter, r *http.Request) {
	w.Header().Add("Vary", "Accept")
	if s.config.Page != nil && wantsHTML(r) {
		s.config.Page.ServeHTTP(w, r)
		return
	}
	s.status(w, r)
}

// wantsHTML says whether a request names HTML among what it accepts, as browsers'
// do. That it accepts anything is what scripts say.
func wantsHTML(r *http.Request) bool {
	for _, accepted := range strings.Split(strings.Join(r.Header.Values("Accept"), ","), ",") {
		kind, _, _ := strings.Cut(accepted, ";")
		if strings.EqualFold(strings.TrimSpace(kind), "text/html") {
			return true
		}
	}
	return false
}

// Hindrances says which calls cannot be answered, and why, a sentence each; none, if
// all can.
func (s *Server) Hindrances() (all []string) {
	tokens, tenants := s.tokens.Load().(string), s.tenants.Load().(string)
	if tokens != "" {
		all = append(all, "not ready: "+tokens)
	}
	switch {
	case tenants == "", tenants == tokens:
	case tokens == "":
		all = append(all, "ready, but serves no administrators: "+tenants)
	default:
		all = append(all, "serves no administrators: "+tenants)
	}
	return all
}

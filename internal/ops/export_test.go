package ops

import "net/http"

// Handler is what answers requests, whoever they come from.
func (s *Server) Handler() http.Handler { return s.http.Handler }

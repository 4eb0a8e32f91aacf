package ops

import (
	"net/http"

	"smokeball.internal/tokenbroker/internal/access"
)

// fromHere says whether a request is of somebody on this host: the port has no
// authentication. It has to come neither through a proxy on this host, nor from a page
// in a browser on it, which cannot ask here without the browser saying so.
func fromHere(r *http.Request) bool {
	return access.Local(r) && r.Header.Get("Origin") == "" && r.Header.Get("Sec-Fetch-Site") == ""
}

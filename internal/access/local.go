package access

import (
	"net"
	"net/http"
	"net/netip"
	"strings"
)

// Local says whether an HTTP request is of somebody on this machine, who has asked
// for this machine. One that somebody has passed on is not; nor is one of a browser
// that was led here by a name that is another's (DNS rebinding).
func Local(r *http.Request) bool {
	for name := range r.Header {
		if name == "Forwarded" || name == "Via" || name == "X-Real-Ip" || strings.HasPrefix(name, "X-Forwarded-") {
			return false
		}
	}
	host := r.Host
	if h, _, err := net.SplitHostPort(host); err == nil {
		host = h
	}
	return FromLoopback(r) && (strings.EqualFold(host, "localhost") || loopback(strings.Trim(host, "[]")))
}

// FromLoopback says whether the other end of a request's connection is on this
// machine.
func FromLoopback(r *http.Request) bool {
	host, _, err := net.SplitHostPort(r.RemoteAddr)
	return err == nil && loopback(host)
}

func loopback(host string) bool {
	ip, err := netip.ParseAddr(host)
	return err == nil && ip.Unmap().IsLoopback()
}

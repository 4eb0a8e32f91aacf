package access

import (
	"net"
	"net/http"
	"net/netip"
	"strings"
)

// Local says whether an HTTP request is of somebody on this machine, who has asked
// for this machine. One that somebody has passed on is not, as far as that can be seen;
// nor is one of a browser that was led here by a name that is another's (DNS rebinding).
func Local(r *http.Request) bool {
	if !r.ProtoAtLeast(1, 1) { // nginx, as it comes, says no more of itself than that.
		return false
	}
	// Whoever asks for localhost has come to it. The proxy of a mesh passes connections
	// on to the machine's own address, and what is asked for on them is what others say.
	if at, served := r.Context().Value(http.LocalAddrContextKey).(net.Addr); served && !loopbackPort(at.String()) {
		return false
	}
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
func FromLoopback(r *http.Request) bool { return loopbackPort(r.RemoteAddr) }

func loopbackPort(addr string) bool {
	host, _, err := net.SplitHostPort(addr)
	return err == nil && loopback(host)
}

func loopback(host string) bool {
	ip, err := netip.ParseAddr(host)
	return err == nil && ip.Unmap().IsLoopback()
}

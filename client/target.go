package client

import (
	"errors"
	"fmt"
	"net"
	"strings"

	"google.golang.org/grpc/resolver"
)

// target returns the target in gRPC's words, or an error if it cannot be one: gRPC
// itself would find that at the first call.
func (o *options) target(target string) (string, error) {
	if target == "" {
		return "", errors.New("there is no target")
	}
	scheme, rest, ok := strings.Cut(target, ":")
	switch {
	case ok && resolver.Get(scheme) != nil:
	case !strings.Contains(target, "://"):
		scheme, rest, target = "dns", "///"+target, "dns:///"+target
	case len(o.dial) > 0: // gRPC's options may have a resolver for it.
		return target, nil
	default:
		return "", fmt.Errorf("target %q: there is no resolver for %q; a broker is at HOST:PORT", target, scheme)
	}
	if scheme != "dns" && scheme != "passthrough" {
		return target, nil
	}
	// dns:[//AUTHORITY/]HOST:PORT
	endpoint := rest
	if after, ok := strings.CutPrefix(rest, "//"); ok {
		_, endpoint, _ = strings.Cut(after, "/")
	}
	host, port, err := net.SplitHostPort(endpoint)
	if err != nil || host == "" || port == "" {
		return "", fmt.Errorf("target %q: it must have a host and a port, HOST:PORT", target)
	}
	if plain := len(o.channels) == 1 && o.channels[0].plain; plain && !isLoopback(host) {
		return "", fmt.Errorf("target %q: WithInsecure is for this machine only, a loopback address or a Unix socket", target)
	}
	return target, nil
}

func isLoopback(host string) bool {
	return strings.EqualFold(host, "localhost") || net.ParseIP(host).IsLoopback()
}

package client

import (
	"errors"
	"fmt"
	"net"
	"strings"

	"google.golang.org/grpc/resolver"
)

// targetOf returns the target in gRPC's words, or an error if it cannot be one, which gRPC
// itself would find at the first call. plain: it must be on this machine. custom:
// gRPC may know more resolvers than are known here.
func targetOf(target string, plain, custom bool) (string, error) {
	if target == "" {
		return "", errors.New("there is no target")
	}
	scheme, rest, ok := strings.Cut(target, ":")
	switch {
	case ok && resolver.Get(scheme) != nil:
	case !strings.Contains(target, "://"):
		scheme, rest, target = "dns", "///"+target, "dns:///"+target
	case custom:
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
	if plain && !isLoopback(host) {
		return "", fmt.Errorf("target %q: WithInsecure is for this machine only, a loopback address or a Unix socket", target)
	}
	return target, nil
}

func isLoopback(host string) bool {
	return strings.EqualFold(host, "localhost") || net.ParseIP(host).IsLoopback()
}

package smokeball

import (
	"cmp"
	"errors"
	"fmt"
	"net"
	"net/url"
	"slices"
	"strconv"
	"strings"

	"smokeball.internal/tokenbroker/internal/tenant"
)

// Place is a region and environment: where accounts and credentials live.
type Place struct {
	Region      tenant.Region
	Environment tenant.Environment
}

// String returns, for example, "us/production".
func (p Place) String() string { return string(p.Region) + "/" + string(p.Environment) }

// host is what a place has: its token endpoint, and where its API is.
type host struct{ token, api string }

// hosts are Smokeball's, as https://docs.smokeball.com lists them under "Base
// URLs". A token is asked for nowhere else, unless the server's own
// configuration says so.
var hosts = map[Place]host{
	{tenant.US, tenant.Production}: {"https://auth.smokeball.com/oauth2/token", "https://api.smokeball.com"},
	{tenant.US, tenant.Staging}:    {"https://datastaging-auth.smokeball.com/oauth2/token", "https://stagingapi.smokeball.com"},
	{tenant.AU, tenant.Production}: {"https://auth.smokeball.com.au/oauth2/token", "https://api.smokeball.com.au"},
	{tenant.AU, tenant.Staging}:    {"https://datastaging-auth.smokeball.com.au/oauth2/token", "https://stagingapi.smokeball.com.au"},
	{tenant.UK, tenant.Production}: {"https://auth.smokeball.co.uk/oauth2/token", "https://api.smokeball.co.uk"},
	{tenant.UK, tenant.Staging}:    {"https://datastaging-auth.smokeball.co.uk/oauth2/token", "https://stagingapi.smokeball.co.uk"},
}

// Addresses are where tokens of a place are asked for and used. An empty one is
// Smokeball's own.
type Addresses struct {
	// TokenEndpoint is the whole URL of the token endpoint.
	TokenEndpoint string
	// API is what the paths of the API come behind, without a trailing slash.
	API string
}

// Overrides are addresses to use in place of Smokeball's.
type Overrides map[Place]Addresses

// ParseOverride reads "us/production=https://host/path", a place and a URL. The
// client secret or the tokens are sent there, so plain http is taken for a loopback
// address only. The URL has a scheme, a host, a port perhaps, and a path without dot
// segments. The errors do not quote it, as it may hold a password.
func ParseOverride(s string) (Place, string, error) {
	name, address, ok := strings.Cut(s, "=")
	region, environment, ok2 := strings.Cut(name, "/")
	place := Place{tenant.Region(region), tenant.Environment(environment)}
	if _, known := hosts[place]; !ok || !ok2 || !known {
		return Place{}, "", errors.New("want REGION/ENVIRONMENT=URL with a region of us, au, uk and an environment of production, staging")
	}
	u, err := url.Parse(address)
	if err != nil {
		return Place{}, "", fmt.Errorf("%s: not a URL", place)
	}
	switch {
	case u.Hostname() == "" || u.User != nil || strings.ContainsAny(address, "?#"): // also an empty query or fragment
		return Place{}, "", fmt.Errorf("%s: want a URL of scheme, host and path only", place)
	case !goodPort(u.Port()):
		return Place{}, "", fmt.Errorf("%s: want a port from 1 to 65535", place)
	case slices.ContainsFunc(strings.Split(u.Path, "/"), isDots):
		return Place{}, "", fmt.Errorf(`%s: want a path without a segment "." or ".."`, place)
	case u.Scheme == "https", u.Scheme == "http" && loopback(u.Hostname()):
		return place, address, nil
	default:
		return Place{}, "", fmt.Errorf("%s: want https (http only to a loopback address)", place)
	}
}

// goodPort says whether a URL may have this port; "": it has none.
func goodPort(port string) bool {
	n, err := strconv.ParseUint(port, 10, 16)
	return port == "" || err == nil && n > 0
}

// isDots says whether a segment of a path leads somewhere else.
func isDots(segment string) bool { return segment == "." || segment == ".." }

func loopback(host string) bool {
	ip := net.ParseIP(host)
	return host == "localhost" || ip != nil && ip.IsLoopback()
}

// TokenEndpoint returns the URL where tokens of the tenant are asked for.
func (i *Issuer) TokenEndpoint(t *tenant.Tenant) string {
	place := Place{t.Region, t.Environment}
	return cmp.Or(i.overrides[place].TokenEndpoint, hosts[place].token)
}

// APIBaseURL returns where requests with the tenant's tokens go: the API, and the
// account where the tenant has one. Source: https://docs.smokeball.com, "Making
// requests".
func (i *Issuer) APIBaseURL(t *tenant.Tenant) string {
	place := Place{t.Region, t.Environment}
	base := cmp.Or(i.overrides[place].API, hosts[place].api)
	if t.AccountID != "" {
		base += "/" + t.AccountID
	}
	return base
}

package client

import (
	"errors"
	"fmt"
	"net/http"
	"net/url"
	"strings"
)

// locate returns where a request goes, and whether the token goes with it: to the
// tenant's API, unless somebody else has sent it there.
func locate(req *http.Request, apiBaseURL string) (target *url.URL, authorized bool, err error) {
	base, err := parseBase(apiBaseURL)
	if err != nil {
		return nil, false, err
	}
	switch asked := redirected(req); {
	case asked == nil:
		return nil, false, errors.New("the request has no URL")
	case asked.Opaque != "":
		return nil, false, errors.New("the request's URL is opaque, and names no host")
	case asked.Scheme == "" && asked.Host == "":
		target, err = below(base, asked)
		return target, !strayed(req, base), err
	case asked.Scheme == "" || asked.Host == "":
		return nil, false, errors.New("the request's URL must have a scheme and a host, or neither")
	case !sameOrigin(asked, base):
		return asked, false, nil
	default:
		// The host as the broker says it: nobody has to think about other spellings.
		target := *asked
		target.Scheme, target.Host, target.User = base.Scheme, base.Host, nil
		return &target, !strayed(req, base), nil
	}
}

// strayed says whether one of the redirects that led to req was not the API's own. Who
// is asked without the token could otherwise choose what is done with it: a redirect may
// keep the method and the body, and names the path. Where it cannot be told, it is so.
func strayed(req *http.Request, base *url.URL) bool {
	for before := req.Response; before != nil; before = before.Request.Response {
		if before.Request == nil || before.Request.URL == nil || !sameOrigin(before.Request.URL, base) {
			return true
		}
	}
	return false
}

// parseBase parses Token.APIBaseURL, which must be one that a token may be sent to.
func parseBase(apiBaseURL string) (*url.URL, error) {
	base, err := url.Parse(apiBaseURL)
	switch {
	case err != nil || base.Host == "" || base.Opaque != "" || base.User != nil:
		return nil, errors.New("the broker's API base URL is not one")
	case base.Scheme == "https", base.Scheme == "http" && isLoopback(base.Hostname()):
		return base, nil
	default:
		return nil, errors.New("the broker's API base URL is neither https nor a loopback address")
	}
}

// redirected returns the URL that is asked. http.Client has resolved a redirect
// against the URL that it knows, which may have had no host; here it is resolved
// against the one that was asked indeed.
func redirected(req *http.Request) *url.URL {
	if req.URL == nil || req.URL.Scheme != "" && req.URL.Host != "" {
		return req.URL
	}
	if before := req.Response; before != nil {
		if location, err := before.Location(); err == nil && location.Host != "" {
			return location
		}
	}
	return req.URL
}

// below returns the URL of a path below the base. What some server on the way might take
// for a way out of it is refused: some take a backslash for a slash, and some ignore the
// parameters behind a ";".
func below(base, asked *url.URL) (*url.URL, error) {
	if strings.Contains(asked.Path, `\`) {
		return nil, errors.New("the request's path has a backslash, which could lead out of the account")
	}
	for segment := range strings.SplitSeq(asked.Path, "/") {
		if name, _, _ := strings.Cut(segment, ";"); name == "." || name == ".." {
			return nil, fmt.Errorf("the request's path has a segment %q, which could lead out of the account", name)
		}
	}
	target := *base
	target.Path = join(base.Path, asked.Path)
	target.RawPath = join(base.EscapedPath(), asked.EscapedPath()) // An encoded slash stays one.
	target.RawQuery, target.ForceQuery = asked.RawQuery, asked.ForceQuery
	return &target, nil
}

func join(base, path string) string {
	if path == "" {
		return base
	}
	return strings.TrimSuffix(base, "/") + "/" + strings.TrimPrefix(path, "/")
}

func sameOrigin(a, b *url.URL) bool {
	return strings.EqualFold(a.Scheme, b.Scheme) && strings.EqualFold(a.Hostname(), b.Hostname()) && port(a) == port(b)
}

func port(u *url.URL) string {
	switch {
	case u.Port() != "":
		return u.Port()
	case strings.EqualFold(u.Scheme, "https"):
		return "443"
	default:
		return "80"
	}
}

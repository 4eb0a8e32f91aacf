package access

import (
	"errors"
	"fmt"
	"regexp"
	"strings"
	"unicode"
)

// The kinds of principals, by what their names begin with. The beginning is
// compared exactly, so no pattern is for more than one kind.
const (
	spiffePrefix  = "spiffe://"
	dnsPrefix     = "dns:"
	subjectPrefix = "subject:"
	jwtPrefix     = "jwt:"
)

var (
	errKind = errors.New("must begin with dns:, jwt:, subject: or spiffe://")
	errDeep = errors.New("has **, which can only be the whole last segment of a SPIFFE ID")
)

// parsePrincipal reads a principal of the access file: a name, or a pattern.
func parsePrincipal(text string) (pattern, error) {
	switch {
	case strings.HasPrefix(text, spiffePrefix):
		return newPattern(text, spiffePrefix, "/"), checkSPIFFE(text)
	case strings.HasPrefix(text, dnsPrefix):
		// Not before it is known to be ASCII: elsewhere other letters have a lower case
		// that is ASCII.
		err := checkDNS(text[len(dnsPrefix):])
		return newPattern(strings.ToLower(text), dnsPrefix, "."), err
	case strings.HasPrefix(text, subjectPrefix):
		return newPattern(text, subjectPrefix, ""), checkSubject(text[len(subjectPrefix):])
	case strings.HasPrefix(text, jwtPrefix):
		return newPattern(text, jwtPrefix, ":/"), checkJWT(text[len(jwtPrefix):])
	case text == "*":
		return pattern{}, fmt.Errorf("%w; there is no word for everybody", errKind)
	default:
		return pattern{}, errKind
	}
}

// parseName reads the name of one caller, and returns it as it is compared. A
// name with a * in it, such as that of a wildcard certificate, is refused: it is
// not of one caller.
func parseName(name string) (string, error) {
	p, err := parsePrincipal(name)
	if err == nil && strings.Contains(name, "*") {
		err = errors.New("must be the name of one caller, without *")
	}
	return p.text, err
}

var (
	trustDomain = regexp.MustCompile(`^[a-z0-9._-]{1,255}$`)
	pathSegment = regexp.MustCompile(`^[A-Za-z0-9._*-]+$`)
)

// checkSPIFFE checks a SPIFFE ID, in whose path there may be stars. Source:
// https://github.com/spiffe/spiffe/blob/main/standards/SPIFFE-ID.md, section 2.
func checkSPIFFE(id string) error {
	domain, path, _ := strings.Cut(id[len(spiffePrefix):], "/")
	switch {
	case len(id) > 2048:
		return errors.New("must be at most 2048 characters long")
	case strings.Contains(domain, "*"):
		return errors.New("must name its trust domain exactly, without *")
	case !trustDomain.MatchString(domain):
		return errors.New("must have a trust domain of lower-case letters, digits, dots, hyphens and underscores")
	case path == "":
		return errors.New("must have a path after the trust domain")
	}
	segments := strings.Split(path, "/")
	for i, s := range segments {
		switch {
		case s == "**" && i == len(segments)-1:
		case strings.Contains(s, "**"):
			return errDeep
		case s == "." || s == ".." || !pathSegment.MatchString(s):
			return errors.New("must have a path of letters, digits, dots, hyphens and underscores, and no empty segment")
		}
	}
	return nil
}

var hostLabel = regexp.MustCompile(`^[A-Za-z0-9_*-]{1,63}$`)

// checkDNS checks the name of a host, in which there may be stars.
func checkDNS(host string) error {
	if strings.Contains(host, "**") {
		return errDeep
	}
	for label := range strings.SplitSeq(host, ".") {
		if len(host) > 253 || !hostLabel.MatchString(label) {
			return errors.New("must be a host name: at most 253 letters, digits, hyphens and underscores, with dots in between")
		}
	}
	return nil
}

// subject is a distinguished name as RFC 2253, section 3, has it, but for spaces
// and quotes that crypto/x509 does not write.
var subject = func() *regexp.Regexp {
	const attribute = `(?:[A-Za-z][A-Za-z0-9-]*|[0-9]+(?:\.[0-9]+)*)=(?:\\.|[^,+\\])*`
	return regexp.MustCompile(`^` + attribute + `(?:[,+]` + attribute + `)*$`)
}()

// checkSubject checks a distinguished name. It is compared exactly, so that
// another form of the same name would never match.
func checkSubject(name string) error {
	switch {
	case strings.Contains(name, "*"):
		return errors.New("must be a whole subject, without *: subjects are compared exactly")
	case len(name) > 1024 || strings.ContainsFunc(name, func(r rune) bool { return !unicode.IsPrint(r) }):
		return errors.New("must be a subject of at most 1024 printable characters")
	case !subject.MatchString(name):
		return errors.New("must be a subject as RFC 2253 has it: CN=billing,O=Example, without a space after the comma")
	}
	return nil
}

var visible = regexp.MustCompile(`^[!-~]{1,255}$`)

// checkJWT checks the subject of a JWT, in which there may be stars. Source:
// OpenID Connect Core 1.0, section 2: at most 255 ASCII characters.
func checkJWT(subject string) error {
	switch {
	case !visible.MatchString(subject):
		return errors.New("must have a subject of 1 to 255 visible ASCII characters")
	case strings.Contains(subject, "**"):
		return errDeep
	}
	return nil
}

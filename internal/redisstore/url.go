package redisstore

import (
	"cmp"
	"errors"
	"fmt"
	"maps"
	"net"
	"net/url"
	"slices"
	"strconv"
	"strings"

	"smokeball.internal/tokenbroker/internal/secret"
)

// shape is how the servers behind a URL belong together.
type shape int

const (
	standalone shape = iota // one server, or whatever is behind one address
	sentinels               // sentinels, which say who is the primary
	cluster                 // the nodes of a Redis Cluster
)

// address is what a URL says.
type address struct {
	shape    shape
	hosts    []string // host:port
	user     string
	password secret.Text
	db       int
	tls      *tlsFiles // nil: without TLS

	// With sentinels only.
	primary          string
	sentinelUser     string
	sentinelPassword secret.Text
}

// errURL says what URLs there are. It never quotes the one that was given, nor
// part of it: a character that is not encoded may have any part be the password.
var errURL = errors.New("redis URL: want redis://[user[:password]@]host[:port][/db], " +
	"redis+sentinel://[user[:password]@]host[:port][,host[:port]...]/master-name[/db] or " +
	"redis+cluster://[user[:password]@]host[:port][,host[:port]...] " +
	"(rediss, rediss+sentinel, rediss+cluster for TLS), with reserved characters percent-encoded, " +
	"and no parameters but ca_file, cert_file, key_file with TLS and sentinel_user, sentinel_password with sentinels")

// schemes maps the schemes of URLs to what they stand for.
func schemes() map[string]address {
	return map[string]address{
		"redis":           {shape: standalone},
		"rediss":          {shape: standalone, tls: &tlsFiles{}},
		"redis+sentinel":  {shape: sentinels},
		"rediss+sentinel": {shape: sentinels, tls: &tlsFiles{}},
		"redis+cluster":   {shape: cluster},
		"rediss+cluster":  {shape: cluster, tls: &tlsFiles{}},
	}
}

// parseURL reads a URL. The error is errURL, or names a parameter.
func parseURL(raw string) (*address, error) {
	scheme, rest, _ := strings.Cut(raw, "://")
	a, known := schemes()[scheme]
	if !known || strings.Contains(rest, "#") {
		return nil, errURL
	}
	end := strings.IndexAny(rest+"/", "/?")
	at := strings.LastIndexByte(rest[:end], '@') + 1
	// What net/url does not know is a list of hosts. An @ elsewhere is one of a
	// password that was not encoded.
	u, err := url.Parse("redis://" + rest[:at] + "host" + rest[end:])
	if err != nil || strings.Count(rest, "@") > min(at, 1) {
		return nil, errURL
	}
	if u.User != nil {
		password, _ := u.User.Password()
		a.user, a.password = u.User.Username(), secret.New(password)
	}
	if !a.takeHosts(rest[at:end]) || !a.takePath(strings.Trim(u.Path, "/")) {
		return nil, errURL
	}
	return &a, a.takeQuery(u.RawQuery)
}

// takeHosts reads host[:port][,host[:port]...].
func (a *address) takeHosts(list string) bool {
	usual := "6379"
	if a.shape == sentinels {
		usual = "26379"
	}
	for host := range strings.SplitSeq(list, ",") {
		u, err := url.Parse("redis://" + host)
		if err != nil || u.Hostname() == "" || host[0] != '[' && strings.Count(host, ":") > 1 {
			return false
		}
		port := cmp.Or(u.Port(), usual)
		if n, err := strconv.ParseUint(port, 10, 16); err != nil || n == 0 {
			return false
		}
		a.hosts = append(a.hosts, net.JoinHostPort(u.Hostname(), port))
	}
	return a.shape != standalone || len(a.hosts) == 1
}

// takePath reads the name of the primary and the number of the database.
func (a *address) takePath(path string) bool {
	if a.shape == sentinels {
		if a.primary, path, _ = strings.Cut(path, "/"); a.primary == "" {
			return false
		}
	}
	if path == "" {
		return true
	}
	db, err := strconv.ParseUint(path, 10, 16)
	a.db = int(db)
	return err == nil && a.shape != cluster
}

// takeQuery reads the parameters. Each that is not known is refused: among those
// that the client would take is one that leaves TLS unverified.
func (a *address) takeQuery(raw string) error {
	query, err := url.ParseQuery(raw)
	if err != nil {
		return errURL
	}
	var sentinelPassword string
	known := map[string]*string{}
	if a.tls != nil {
		known["ca_file"], known["cert_file"], known["key_file"] = &a.tls.ca, &a.tls.cert, &a.tls.key
	}
	if a.shape == sentinels {
		known["sentinel_user"], known["sentinel_password"] = &a.sentinelUser, &sentinelPassword
	}
	for _, name := range slices.Sorted(maps.Keys(query)) {
		value, ok := known[name]
		switch {
		case !ok:
			return errURL // It may be no name, but part of a password.
		case len(query[name]) > 1 || query.Get(name) == "":
			return fmt.Errorf("redis URL: parameter %s must be given once and have a value", name)
		}
		*value = query.Get(name)
	}
	a.sentinelPassword = secret.New(sentinelPassword)
	if a.tls != nil && (a.tls.cert == "") != (a.tls.key == "") {
		return errors.New("redis URL: parameters cert_file and key_file go together")
	}
	return nil
}

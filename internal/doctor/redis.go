package doctor

import (
	"context"
	"crypto/x509"
	"errors"
	"fmt"
	"net"
	"strconv"
	"strings"
	"syscall"
	"time"

	"smokeball.internal/tokenbroker/internal/redisstore"
)

const (
	// Slower than this, callers notice it whose token is not in memory.
	slowRedis = 20 * time.Millisecond
	// Nothing depends on Redis's wall clock, but records of times are compared.
	redisClock = 5 * time.Second
)

// redis tells whether Redis is there and has what the broker needs of it.
func (e *examination) redis(ctx context.Context, r *report) {
	reached, err := redisstore.Reach(ctx, redisstore.Config{URL: e.Settings.RedisURL})
	if err != nil {
		r.problem("Correct --redis-url: docs/redis.md has the forms.", "%v", err)
		return
	}
	lost := 0
	for _, host := range reached {
		if host.Step != "" {
			lost++
		}
	}
	state := Problem
	if lost < len(reached) { // One of several sentinels or nodes is enough.
		state = Warning
	}
	for _, host := range reached {
		if host.Step != "" {
			says, mend := unreached(host)
			r.add(state, mend, "%s: %s", host.Host, says)
		}
	}
	if lost == len(reached) {
		return
	}
	store, err := e.store()
	if err != nil {
		r.problem("Correct the setting, or the file that it names.", "%v", err)
		return
	}
	servers, err := e.servers()
	if err != nil {
		says, mend := refusal(err)
		r.problem(mend, "%s", says)
		return
	}
	for _, server := range servers {
		tellServer(r, server)
	}
	rights, err := store.Rights(ctx)
	if err != nil {
		says, mend := refusal(err)
		r.problem(mend, "%s", says)
		return
	}
	tellRights(r, rights, e.Settings.RedisPrefix)
}

// unreached says why a host was not reached, and what mends it.
func unreached(host redisstore.Reached) (says, mend string) {
	switch {
	case host.Step == redisstore.StepResolve:
		return "the name has no address", "Correct the host in --redis-url, or the DNS of this machine."
	case host.Step == redisstore.StepTLS:
		return "TLS fails: " + certificateTrouble(host.Err),
			"Compare the server's certificate with the host in --redis-url and with ca_file; redis:// instead of rediss:// is without TLS."
	case errors.Is(host.Err, syscall.ECONNREFUSED):
		return "refuses the connection, since nothing listens there", "Start Redis there, or correct host and port in --redis-url."
	default:
		return "does not answer", "Look at firewalls, network policies and whether the machine is up."
	}
}

// certificateTrouble says why a TLS handshake failed.
func certificateTrouble(err error) string {
	var host x509.HostnameError
	var authority x509.UnknownAuthorityError
	var invalid x509.CertificateInvalidError
	switch {
	case errors.As(err, &host):
		return "the certificate is of another host"
	case errors.As(err, &authority):
		return "the certificate is of an authority that is not known here"
	case errors.As(err, &invalid) && invalid.Reason == x509.Expired:
		return "the certificate has expired, or is not valid yet"
	case errors.As(err, &invalid):
		return "the certificate is not valid for this"
	default:
		return "the other side does not speak it, or refuses the certificate from here"
	}
}

// refusal says what an answer of Redis means, and what mends it.
func refusal(err error) (says, mend string) {
	const user = "Correct the user in --redis-url and the password in --redis-password-file (of sentinels: --redis-sentinel-password-file), or the user in Redis (docs/redis.md)."
	var network net.Error
	switch kind := redisstore.Refused(err); {
	case kind == "NOAUTH":
		return "Redis wants a password, and there is none", user
	case kind == "WRONGPASS":
		return "Redis refuses user and password", user
	case kind == "NOPERM":
		return "the user may not even say PING or TIME", "Give it the rights that deploy/redis.conf has."
	case kind == "LOADING":
		return "Redis is reading its data from disk", "Wait, and look again."
	case kind == "CLUSTERDOWN":
		return "the cluster is down: part of its slots has no node", "Look at \"redis-cli cluster info\"."
	case kind == "ERR":
		return "Redis refuses to be spoken to as --redis-url has it", "A password without AUTH in Redis, a database that is not there, and a cluster spoken to as one server do that."
	case kind != "":
		return "Redis answers " + kind, "Look at the log of Redis."
	case errors.Is(err, context.DeadlineExceeded), errors.As(err, &network) && network.Timeout():
		return "Redis takes connections, but does not answer", "Look at the load and the log of Redis."
	default:
		return err.Error(), "Look at the log of Redis, and of the sentinels."
	}
}

func tellServer(r *report, s redisstore.Server) {
	name := s.Addr
	if name == "" {
		name = "the primary that the sentinels name"
	}
	switch {
	case s.Version == "":
		r.skip("%s does not say its version: its user may not ask for INFO, or it is managed by somebody", name)
	case older(s.Version, 6, 2):
		r.problem("Install Redis 7 or later, or Valkey.", "%s is version %s, and 6.2 is the oldest that will do", name, s.Version)
	case older(s.Version, 7, 0):
		r.warn("Install Redis 7 or later, or Valkey.", "%s is version %s, which deploy/redis.conf does not know, and which is not maintained any more", name, s.Version)
	}
	if s.Replica {
		r.problem("Have --redis-url lead to the primary, or name the sentinels (redis+sentinel://).", "%s is a replica: it takes no changes", name)
	}
	if s.Ahead.Abs() > redisClock+s.Latency {
		r.warn("Run an NTP client on both machines.", "the clock of %s is %s this machine's", name, apart(s.Ahead))
	}
	if s.Latency > slowRedis {
		r.warn("Put the server closer to Redis; look at the load of both.", "%s takes %v for the quickest of some commands", name, s.Latency.Round(time.Millisecond))
	}
	r.ok("%s answers in %v%s", name, s.Latency.Round(10*time.Microsecond), versioned(s.Version))
}

func versioned(version string) string {
	if version == "" {
		return ""
	}
	return ", version " + version
}

// apart says how far another clock is from this machine's.
func apart(ahead time.Duration) string {
	if ahead < 0 {
		return fmt.Sprintf("%v behind", -ahead.Round(time.Second))
	}
	return fmt.Sprintf("%v ahead of", ahead.Round(time.Second))
}

// older compares the first two numbers of a version.
func older(version string, major, minor int) bool {
	parts := append(strings.Split(version, "."), "0")
	a, err := strconv.Atoi(parts[0])
	b, err2 := strconv.Atoi(parts[1])
	return err == nil && err2 == nil && (a < major || a == major && b < minor)
}

func tellRights(r *report, rights redisstore.Rights, prefix string) {
	const mend = "Give the user the commands and keys that deploy/redis.conf has, in Redis: ACL SETUSER."
	missing := strings.Join(rights.Missing, ", ")
	switch {
	case len(rights.Missing) == 1 && missing == "scan":
		r.warn(mend, `the user may not SCAN: the server does not need it, but "keyset reseal" and "keyset prune" do`)
	case missing != "":
		r.problem(mend, "the user may not, or not with the keys %s*: %s", prefix, missing)
	}
	for _, kind := range rights.Refused {
		r.problem("Look at its disk, memory and replicas, and at its log.", "Redis takes no changes now: it answers %s", kind)
	}
	if missing == "" && len(rights.Refused) == 0 {
		r.ok("the user may do all that the broker does")
	}
}

// durability tells what Redis may lose.
func (e *examination) durability(ctx context.Context, r *report) {
	store, err := e.store()
	if err == nil {
		_, err = e.servers()
	}
	if err != nil {
		r.skip("Redis cannot be asked: see redis")
		return
	}
	warnings, err := store.Warnings(ctx)
	if err != nil {
		r.skip("Redis cannot be asked: see redis")
		return
	}
	for _, w := range warnings {
		r.warn("docs/redis.md says what each setting promises.", "%s: %s", w.Kind, w.Text)
	}
	if r.quiet() {
		r.ok("it writes what it keeps to disk, and throws nothing away")
	}
}

// registry tells whether tenants are there, and open with this keyset.
func (e *examination) registry(ctx context.Context, r *report) {
	store, err := e.store()
	if err != nil {
		r.skip("Redis cannot be asked: see redis")
		return
	}
	state, err := store.Registry(ctx)
	switch {
	case err != nil:
		r.skip("Redis cannot be asked: see redis")
		return
	case !state.There && state.Heard:
		r.problem(`Restore it: "tokenbroker tenants import FILE", from what "tokenbroker tenants export" has written. If there is nothing to restore, restart the replicas and register anew.`,
			"the registry of tenants is gone from Redis: brokers have worked with it, and it has no tenants any more and no name")
		return
	case !state.There:
		r.warn(`If there was one, restore it with "tokenbroker tenants import FILE"; if not, the first "tokenbroker tenants create" begins it.`,
			"there is no registry in Redis under the prefix %q: nobody was ever registered, or Redis came back empty", e.Settings.RedisPrefix)
		return
	}
	tenants, err := e.tenants()
	if err != nil {
		r.skip("%d tenants are registered; whether they open is not known: %v", state.Tenants, err)
		return
	}
	unreadable, first := 0, ""
	for _, t := range tenants {
		if t.Region == "" {
			if unreadable++; first == "" {
				first = t.ID
			}
		}
	}
	if unreadable == 0 {
		r.ok("%d tenants are registered; %d of them were opened with this keyset", state.Tenants, len(tenants))
		return
	}
	_, why := store.Tenant(ctx, first)
	if unreadable == len(tenants) {
		r.problem(`Use the keyset that the other replicas have: compare "tokenbroker keyset show" there and here.`,
			"this is the wrong keyset: none of %d tenants opens with it (tenants/%s: %v)", unreadable, first, why)
		return
	}
	r.problem(`Compare "tokenbroker keyset show" with the other replicas: a key may be missing here. What no keyset opens was edited or moved: delete it and create it anew.`,
		"%d of %d tenants cannot be opened with this keyset (tenants/%s: %v)", unreadable, len(tenants), first, why)
}

package doctor

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"
	"sync"
	"syscall"
	"time"

	"smokeball.internal/tokenbroker/internal/audit"
	"smokeball.internal/tokenbroker/internal/smokeball"
	"smokeball.internal/tokenbroker/internal/token"
)

const (
	// Bearer tokens are allowed to be a minute from the future.
	clockProblem = time.Minute
	clockWarning = 5 * time.Second
)

// issuers tells whether the token endpoints answer, of all places that are
// overridden or that a tenant is in.
func (e *examination) issuers(ctx context.Context, r *report) {
	overrides, err := e.Settings.Overrides()
	if err != nil {
		r.skip("the overrides are wrong: see settings")
		return
	}
	used := map[string]smokeball.Place{}
	for place, at := range overrides {
		if at.TokenEndpoint != "" {
			used[place.String()] = place
		}
	}
	tenants, err := e.tenants()
	for _, t := range tenants {
		if t.Region != "" {
			place := smokeball.Place{Region: t.Region, Environment: t.Environment}
			used[place.String()] = place
		}
	}
	if err != nil {
		r.skip("which issuers tenants need is not known, since they cannot be read")
	} else if len(used) == 0 {
		r.skip("there are no tenants, and so no issuer is needed yet")
	}
	var places []smokeball.Place
	for _, name := range slices.Sorted(maps.Keys(used)) {
		places = append(places, used[name])
	}
	issuer := smokeball.New(overrides)
	reached, errs := make([]smokeball.Reached, len(places)), make([]error, len(places))
	var all sync.WaitGroup
	for i, place := range places {
		all.Go(func() { reached[i], errs[i] = issuer.Reach(ctx, place) })
	}
	all.Wait()
	told := map[string]bool{} // Several places may have one host, and that one clock.
	for i, place := range places {
		tellIssuer(r, place, reached[i], errs[i])
		host := reached[i].Host
		if errs[i] == nil && reached[i].Dated && !told[host] {
			told[host] = true
			tellClock(r, host, reached[i].Ahead)
		}
	}
}

func tellIssuer(r *report, place smokeball.Place, reached smokeball.Reached, err error) {
	const mend = "Look at DNS, firewall and proxy of this machine, and at https://status.smokeball.com; an --issuer-override may be wrong."
	var failure *token.Failure
	var certificate *tls.CertificateVerificationError
	switch {
	case errors.As(err, &certificate):
		r.problem("Something stands between here and the issuer, or the host is wrong: credentials are not sent there. Compare --issuer-override and the authorities of this machine.",
			"%s: %s has a TLS certificate that does not verify: %s", place, reached.Host, certificateTrouble(err))
	case errors.Is(err, syscall.ECONNREFUSED):
		r.problem(mend, "%s: %s refuses the connection", place, reached.Host)
	case errors.As(err, &failure):
		r.problem(mend, "%s: %s", place, failure.Message)
	case err != nil:
		r.problem(mend, "%s: %s could not be reached", place, reached.Host)
	case reached.Status >= 500:
		r.warn("Look at https://status.smokeball.com. Held tokens are served meanwhile.", "%s: %s answers with status %d", place, reached.Host, reached.Status)
	case reached.Status >= 300 && reached.Status < 400:
		r.warn("Correct --issuer-override: credentials are sent to no other place.", "%s: %s answers with a redirect (status %d), which is not followed", place, reached.Host, reached.Status)
	default:
		r.ok("%s: %s answers (status %d, to a request for no token)", place, reached.Host, reached.Status)
	}
}

func tellClock(r *report, host string, ahead time.Duration) {
	const mend = "Run an NTP client on this machine (timedatectl set-ntp true), or correct the clock."
	what := fmt.Sprintf("the clock of %s is %s this machine's", host, apart(ahead))
	switch {
	case ahead.Abs() > clockProblem:
		r.problem(mend, "%s: certificates and bearer tokens are taken for expired, or not valid yet", what)
	case ahead.Abs() > clockWarning:
		r.warn(mend, "%s", what)
	}
}

// auditLog tells whether records can be written.
func (e *examination) auditLog(ctx context.Context, r *report) {
	sink := e.Settings.Audit
	if audit.ValidateSink(sink) != nil {
		r.skip("--audit is wrong: see settings")
		return
	}
	if err := audit.Probe(ctx, sink); err != nil {
		r.problem("Changes of tenants are refused while it cannot be written. Make the directory and give it to the server's user, or correct --audit.", "%v", err)
		return
	}
	if sink == "none" && !e.Settings.Insecure {
		r.warn("Set --audit to where it is to go (docs/security.md).", "there is none: nobody will know who had which token")
		return
	}
	name, _, _ := strings.Cut(sink, "://")
	r.ok("it can be written to %s", name)
}

package statuspage

import (
	"crypto/rand"
	"errors"
	"net/http"
	"time"

	"smokeball.internal/tokenbroker/internal/access"
	"smokeball.internal/tokenbroker/internal/audit"
	"smokeball.internal/tokenbroker/internal/tenant"
)

// viewer is who looks at the page.
type viewer struct {
	guard  *access.Guard
	caller *access.Caller // nil: somebody on this machine
}

// all says whether the viewer sees all tenants, whatever the rules are.
func (v *viewer) all() bool { return v.caller == nil }

func (v *viewer) sees(t *tenant.Tenant) bool {
	return v.all() || v.guard.Sees(v.caller, t.ID, t.Labels)
}

// What those are told who do not get the page.
const (
	onlyHere    = "This page is for people on this machine. Over the network it is served with --ops-tls, to those whom the access file lets list tenants (tenant.viewer)."
	onlyOverTLS = "A bearer token is not taken over a connection that is not encrypted, and should not be sent over one: serve this port with --ops-tls."
)

// admit says who looks at the page. leave must be called when it has been served.
//
// Who is on this machine needs no proof, as with the other pages of this port. Who
// shows one is judged by it, also on this machine.
func (p *Page) admit(r *http.Request) (_ *viewer, leave func(), _ *refusal) {
	proven := len(r.Header.Values("Authorization")) > 0 || r.TLS != nil && len(r.TLS.PeerCertificates) > 0
	switch {
	case !proven && access.Local(r):
		return &viewer{}, func() {}, nil
	case p.config.Guard == nil:
		return nil, nil, &refusal{status: http.StatusForbidden, why: onlyHere}
	case r.TLS == nil && proven && !access.FromLoopback(r):
		return nil, nil, &refusal{status: http.StatusForbidden, why: onlyOverTLS}
	case r.TLS == nil && !proven:
		return nil, nil, &refusal{status: http.StatusForbidden, why: onlyHere}
	}
	record := audit.Record{Event: "view", RequestID: rand.Text(), Peer: r.RemoteAddr, Method: "GET /status", Outcome: "allowed"}
	caller, leave, rule, err := p.identify(r)
	if caller != nil {
		record.Principal, record.Rule = caller.Principal(), rule
	}
	refused := refusalOf(err)
	if err != nil {
		record.Outcome, record.Reason = "denied", http.StatusText(refused.status)
	}
	// Who is not known, or comes too fast, is not to fill the log.
	few := caller == nil || errors.As(err, new(*access.TooFastError))
	if few {
		record.Event = "refused"
	}
	if !few || p.some.Allow() {
		if unwritten := p.config.Audit.Decision(record); unwritten != nil && err == nil {
			leave()
			return nil, nil, &refusal{status: http.StatusServiceUnavailable, why: "The audit log cannot be written, and without it this is not shown.", after: time.Second}
		}
	}
	if refused != nil {
		return nil, nil, refused
	}
	return &viewer{p.config.Guard, caller}, leave, nil
}

// identify has the guard say whether the request is of somebody who may list
// tenants, as it does for the API. A request counts as a connection while it lasts.
// With an error, the caller may be known.
func (p *Page) identify(r *http.Request) (_ *access.Caller, leave func(), rule string, err error) {
	guard := p.config.Guard
	var connected *access.Caller
	if r.TLS != nil && p.config.Certificates != nil {
		if connected, err = p.config.Certificates.Caller(*r.TLS); err != nil {
			return nil, nil, "", err
		}
	}
	if connected != nil {
		if err := guard.Connect(connected); err != nil {
			return connected, nil, "", err
		}
		defer func() {
			if err != nil {
				connected.Disconnect()
			}
		}()
	}
	caller, err := guard.Identify(connected, r.Header.Values("Authorization"))
	if err != nil {
		return nil, nil, "", err
	}
	const method = "ListTenants"
	if err := guard.Admit(caller, method); err != nil {
		return caller, nil, "", err
	}
	if err := caller.Open(); err != nil {
		return caller, nil, "", err
	}
	if rule, err = guard.Decide(r.Context(), caller, access.Query{Method: method}); err != nil {
		caller.Close()
		return caller, nil, "", err
	}
	return caller, func() {
		caller.Close()
		if connected != nil {
			connected.Disconnect()
		}
	}, rule, nil
}

// refusalOf puts an error of the guard in words; nil for nil.
func refusalOf(err error) *refusal {
	var fast *access.TooFastError
	switch {
	case err == nil:
		return nil
	case errors.As(err, &fast):
		return &refusal{status: http.StatusTooManyRequests, why: "Not so fast: " + fast.Error() + ".", after: fast.After}
	case errors.Is(err, access.ErrNobody):
		return &refusal{status: http.StatusUnauthorized, why: "Show who you are: a client certificate or a bearer token is needed."}
	case errors.Is(err, access.ErrNotAllowed):
		return &refusal{status: http.StatusForbidden, why: "No rule of the access file lets you list tenants (tenant.viewer)."}
	default:
		return &refusal{status: http.StatusUnauthorized, why: "What you show is not accepted: " + err.Error() + "."}
	}
}

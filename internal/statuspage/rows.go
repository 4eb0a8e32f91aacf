package statuspage

import (
	"strings"
	"time"

	"smokeball.internal/tokenbroker/internal/broker"
	"smokeball.internal/tokenbroker/internal/token"
)

// state is how bad something is. Its text is a class of the style; what it is, the
// page also says in words and by a mark.
type state string

const (
	good state = "good"
	warn state = "warn"
	bad  state = "bad"
	none state = "none" // nothing to tell
)

// Mark returns the sign that goes with the words.
func (s state) Mark() string {
	switch s {
	case good:
		return "●"
	case warn:
		return "▲"
	case bad:
		return "■"
	default:
		return "○"
	}
}

// chip says how one thing is.
type chip struct {
	Of, Says string
	State    state
}

// row is one token of a tenant.
type row struct {
	ID, Name, Place string
	Scopes          string // if they are not those that are registered
	State           state
	Word            string
	Why             string // a sentence; empty: there is nothing to say
	Detail          string // what was answered, for those who know the issuer; may be empty
	Life            *bar   // nil: there is no token
	Left            string
	Last, Next      stamp // refresh, and exchange
	Plot            plot
}

// rowOf puts in words how a token fares at now; wanted says that somebody is known to
// miss it when it ends.
func rowOf(v broker.View, now time.Time, wanted bool) row {
	r := row{ID: clip(v.Tenant.ID), Name: clip(v.Tenant.DisplayName), Plot: plotOf(&v.History)}
	if v.Tenant.Region == "" {
		r.State, r.Word, r.Why = bad, "Unreadable", "The record cannot be opened with this replica's keyset."
		return r
	}
	r.Place = strings.ToUpper(string(v.Tenant.Region)) + " " + string(v.Tenant.Environment)
	if token.ScopeParam(v.Scopes) != token.ScopeParam(v.Tenant.Scopes) {
		r.Scopes = clip(token.ScopeParam(v.Scopes))
	}
	t, f := v.Token, v.Failure
	if t != nil && t.Lifetime() > 0 {
		r.Last = at(t.Issued)
		if now.Before(t.Expires) {
			r.Life = barOf(t, now)
			r.Left = span(t.Expires.Sub(now)) + " left"
			r.Next = at(t.RefreshAt).or(now, t.RefreshAt, "due")
		} else {
			r.Left = "ended " + span(now.Sub(t.Expires)) + " ago"
		}
	}
	if f != nil {
		r.Why, r.Detail = reasonOf(f.Class), sentence(f.Message)
		r.Next = at(f.RetryAt).or(now, f.RetryAt, "when asked")
	}
	r.State, r.Word = judge(v, now, wanted)
	return r
}

// reasonOf says what a failed exchange means for those who have to do something.
func reasonOf(c token.Class) string {
	switch c {
	case token.CredentialsRejected:
		return "The issuer does not accept the client id and secret."
	case token.GrantRejected:
		return "The issuer knows the client, but lets it have no token this way."
	case token.ScopeRejected:
		return "The issuer does not grant these scopes."
	case token.Throttled:
		return "The issuer asks to slow down."
	case token.Blocked:
		return "Something in front of the issuer has refused the request."
	case token.Unavailable:
		return "The issuer does not answer, or is in trouble."
	case token.Malformed:
		return "What the issuer answers is no token."
	default: // Of a replica of a later version.
		return "The exchange has failed."
	}
}

// judge says how bad it is, in a word or two.
func judge(v broker.View, now time.Time, wanted bool) (state, string) {
	usable := v.Token.Usable(now, 0)
	switch {
	case v.Tenant.Disabled:
		return none, "Disabled"
	case v.Failure != nil && v.Failure.Class.Permanent() && !usable:
		return bad, "Refused"
	case v.Failure != nil && !usable, wanted && !usable:
		return bad, "No token"
	case v.Failure != nil:
		return warn, "Refresh fails"
	case wanted:
		return warn, "Refresh late"
	case !usable:
		return none, "Idle"
	case v.Token.Due(now):
		return good, "Refresh due"
	default:
		return good, "Fresh"
	}
}

// replicaRow is one replica.
type replicaRow struct {
	Name, Addr, Version string
	Self                bool
	Since               stamp
	Seen                string
	State               state
	Word                string
}

// silent is how long a replica may say nothing before it is taken for gone. It says
// that it is there every ten seconds.
const silent = 35 * time.Second

func replicaRowOf(r Replica) replicaRow {
	row := replicaRow{Name: clip(r.Name), Addr: clip(r.Addr), Version: clip(r.Version), Self: r.Self,
		Since: at(r.Since), Seen: span(r.Seen) + " ago", State: good, Word: "There"}
	if row.Name == "" {
		row.Name = "unnamed"
	}
	if r.Seen > silent {
		row.State, row.Word = warn, "Silent"
	}
	return row
}

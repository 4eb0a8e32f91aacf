package simulator

import (
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"net/url"
	"slices"
	"strings"
	"time"
)

// Kind names a way of failing. Some kinds happen in front of the issuer, at the edge or in a proxy: the issuer never
// hears of the request, so credentials are not looked at and nothing is bought. The others happen to the issuer's own
// answer: a token has been bought, if the request deserved one, and refusals of wrong requests stay what they are
// unless the kind says otherwise.
type Kind string

// Kinds that happen in front of the issuer.
const (
	// KindStatus answers with Status, and Body, ContentType and RetryAfter where given.
	KindStatus Kind = "status"
	// KindWAF answers with CloudFront's 403 page, in HTML.
	KindWAF Kind = "waf"
	// KindRedirect answers with Status (default 302) and Location.
	KindRedirect Kind = "redirect"
	// KindEmpty answers 200 with no body.
	KindEmpty Kind = "empty"
	// KindGarbage answers 200, typed as JSON, with Body or something else that is not JSON.
	KindGarbage Kind = "garbage"
	// KindErrorIn200 answers 200 with Body or an OAuth error.
	KindErrorIn200 Kind = "error_in_200"
	// KindNoToken answers 200 with a token response that lacks access_token.
	KindNoToken Kind = "no_token"
)

// Kinds that happen to the issuer's answer.
const (
	// KindDelay answers as usual, after Delay.
	KindDelay Kind = "delay"
	// KindHang never answers, be it a token or a refusal. The request ends when its client leaves, or with Close.
	KindHang Kind = "hang"
	// KindReset resets the connection in place of any answer, be it a token or a refusal.
	KindReset Kind = "reset"
	// KindTruncate cuts the connection in the middle of the token response.
	KindTruncate Kind = "truncate"
	// KindOversize puts Size bytes (default 8 MiB) of padding before the token, in valid JSON.
	KindOversize Kind = "oversize"
	// KindExpiresIn writes ExpiresIn into the response. The exp claim of the token goes on telling the truth.
	KindExpiresIn Kind = "expires_in"
	// KindSameToken repeats the token last sold for the same scope, with a full expires_in, as a caching proxy does.
	// Nothing is bought, unless there is no such token yet.
	KindSameToken Kind = "same_token"
	// KindTokenType writes TokenType into the response.
	KindTokenType Kind = "token_type"
	// KindOpaque sells a token that is not a JWT.
	KindOpaque Kind = "opaque"
	// KindClaims sells a token with Claims in place of its own claims of these names.
	KindClaims Kind = "claims"
)

// Omitted leaves expires_in out of the response, where a Fault has it as ExpiresIn.
const Omitted = `"omitted"`

const (
	defaultOversize = 8 << 20
	maxOversize     = 256 << 20
)

// Fault is one way of failing, and for how long. The zero value is no fault, and SetFault refuses it. In JSON the names
// are those of the tags and delay is text such as "1.5s".
type Fault struct {
	// Kind is required; it says which of the other fields may be set.
	Kind Kind `json:"kind"`
	// Times is how many requests meet the fault before it is gone; zero means until it is cleared.
	Times int `json:"times,omitempty"`
	// Delay passes before the answer, whatever the kind. A client that leaves meanwhile is let go.
	Delay time.Duration `json:"-"`
	// Status is the HTTP status, 200 to 599 for KindStatus, a redirection for KindRedirect.
	Status int `json:"status,omitempty"`
	// Body is sent as it is.
	Body string `json:"body,omitempty"`
	// ContentType describes Body. Empty means JSON if Body is JSON, and plain text otherwise.
	ContentType string `json:"content_type,omitempty"`
	// RetryAfter is sent as the Retry-After header as it is: seconds, an HTTP date, or nonsense.
	RetryAfter string `json:"retry_after,omitempty"`
	// Location is where KindRedirect points to.
	Location string `json:"location,omitempty"`
	// ExpiresIn is the JSON value to send: 3600.0, -1, "3600", null, 1e400, or Omitted.
	ExpiresIn json.RawMessage `json:"expires_in,omitempty"`
	// TokenType is the token_type to send.
	TokenType string `json:"token_type,omitempty"`
	// Claims is a JSON object.
	Claims json.RawMessage `json:"claims,omitempty"`
	// Size is the number of bytes of padding, at most 256 MiB.
	Size int `json:"size,omitempty"`
}

// A kind's rules: whether it happens in front of the issuer, whether the API can have it too, and the fields that must be
// set and those that may be, beside times and delay, which any fault may have.
type rules struct {
	inFront, api   bool
	needs, permits []string
}

var kinds = map[Kind]rules{
	KindStatus:     {inFront: true, api: true, needs: []string{"status"}, permits: []string{"body", "content_type", "retry_after"}},
	KindWAF:        {inFront: true, api: true},
	KindRedirect:   {inFront: true, api: true, needs: []string{"location"}, permits: []string{"status"}},
	KindEmpty:      {inFront: true, api: true},
	KindGarbage:    {inFront: true, api: true, permits: []string{"body"}},
	KindErrorIn200: {inFront: true, permits: []string{"body"}},
	KindNoToken:    {inFront: true},
	KindDelay:      {api: true, needs: []string{"delay"}},
	KindHang:       {api: true},
	KindReset:      {api: true},
	KindTruncate:   {},
	KindOversize:   {permits: []string{"size"}},
	KindExpiresIn:  {needs: []string{"expires_in"}},
	KindSameToken:  {},
	KindTokenType:  {needs: []string{"token_type"}},
	KindOpaque:     {},
	KindClaims:     {needs: []string{"claims"}},
}

func (k Kind) inFront() bool { return kinds[k].inFront }

// validate returns an error that begins with the name of the field at fault.
func (f Fault) validate() error {
	rule, ok := kinds[f.Kind]
	if !ok {
		known := slices.Sorted(maps.Keys(kinds))
		return fmt.Errorf("kind: %q is not one of %q", f.Kind, known)
	}
	fields := []struct {
		name string
		set  bool
		ok   bool
		want string
	}{
		{"times", f.Times != 0, f.Times >= 0, "must not be negative"},
		{"delay", f.Delay != 0, f.Delay >= 0, "must not be negative"},
		{"status", f.Status != 0, f.Status >= 200 && f.Status <= 599, "must be from 200 to 599"},
		{"body", f.Body != "", true, ""},
		{"content_type", f.ContentType != "", !hasControl(f.ContentType), "must not contain control characters"},
		{"retry_after", f.RetryAfter != "", !hasControl(f.RetryAfter), "must not contain control characters"},
		{"location", f.Location != "", isURL(f.Location), "must be a URL"},
		{"expires_in", len(f.ExpiresIn) > 0, json.Valid(f.ExpiresIn), "must be a JSON value"},
		{"token_type", f.TokenType != "", true, ""},
		{"claims", len(f.Claims) > 0, isObject(f.Claims), "must be a JSON object"},
		{"size", f.Size != 0, f.Size > 0 && f.Size <= maxOversize, "must be from 1 to 268435456"},
	}
	for _, field := range fields {
		needed := slices.Contains(rule.needs, field.name)
		anywhere := field.name == "times" || field.name == "delay"
		switch {
		case needed && !field.set:
			return fmt.Errorf("%s: required by kind %q", field.name, f.Kind)
		case !field.set:
		case !needed && !anywhere && !slices.Contains(rule.permits, field.name):
			return fmt.Errorf("%s: not used by kind %q", field.name, f.Kind)
		case !field.ok:
			return fmt.Errorf("%s: %s", field.name, field.want)
		}
	}
	if f.Kind == KindRedirect && f.Status != 0 && !slices.Contains([]int{301, 302, 303, 307, 308}, f.Status) {
		return errors.New("status: must be 301, 302, 303, 307 or 308")
	}
	return nil
}

func hasControl(s string) bool {
	return strings.ContainsFunc(s, func(r rune) bool { return r < ' ' || r == 0x7f })
}

func isObject(b []byte) bool {
	var object map[string]any
	return json.Unmarshal(b, &object) == nil && object != nil
}

func isURL(s string) bool {
	_, err := url.Parse(s)
	return err == nil
}

// faultJSON carries delay as text beside the fields that need no care.
type faultJSON struct {
	*plainFault
	Delay string `json:"delay,omitempty"`
}

type plainFault Fault

// MarshalJSON writes the fault as UnmarshalJSON reads it.
func (f Fault) MarshalJSON() ([]byte, error) {
	wire := faultJSON{plainFault: (*plainFault)(&f)}
	if f.Delay != 0 {
		wire.Delay = f.Delay.String()
	}
	b, err := json.Marshal(wire)
	if err != nil {
		return nil, fmt.Errorf("encoding a fault: %w", err)
	}
	return b, nil
}

// UnmarshalJSON reads a fault. It fails on unknown fields, whatever decoder it is called from; whether the values make
// sense is for SetFault to say.
func (f *Fault) UnmarshalJSON(data []byte) error {
	var read Fault
	wire := faultJSON{plainFault: (*plainFault)(&read)}
	if err := decodeStrict(data, &wire); err != nil {
		return err
	}
	if wire.Delay != "" {
		delay, err := time.ParseDuration(wire.Delay)
		if err != nil {
			return fmt.Errorf("delay: must be a duration such as 1.5s: %w", err)
		}
		read.Delay = delay
	}
	*f = read
	return nil
}

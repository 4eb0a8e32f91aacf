package simulator

import (
	"crypto/sha256"
	"crypto/subtle"
	"io"
	"mime"
	"net/http"
	"net/url"
	"slices"
	"strings"
	"time"
)

const maxRequestBody = 64 << 10

// Error codes of RFC 6749 section 5.2. Cognito answers all of them with status 400, invalid_client included, although
// the RFC wants 401 for it.
const (
	invalidRequest       = "invalid_request"
	invalidClient        = "invalid_client"
	invalidScope         = "invalid_scope"
	unsupportedGrantType = "unsupported_grant_type"
	serverError          = "server_error"
)

// tokenRequest is what the endpoint could read of a request. Reading never fails: what is wrong with it is for check to
// say, because even a request that is beyond repair is counted and can meet a fault.
type tokenRequest struct {
	endpoint     string
	formType     bool // the content type is application/x-www-form-urlencoded
	readable     bool // the body is a form, within bounds
	credentials  int  // number of Authorization headers
	basic        bool // the first of them is Basic
	user, secret string
	form         url.Values
}

// readTokenRequest takes user and secret from the Basic header as they are. RFC 6749 section 2.3.1 would have them form
// encoded first; Smokeball and Cognito document the plain base64(client_id:client_secret).
func readTokenRequest(w http.ResponseWriter, r *http.Request) tokenRequest {
	q := tokenRequest{endpoint: r.PathValue("region") + "/" + r.PathValue("environment")}
	contentType, _, err := mime.ParseMediaType(r.Header.Get("Content-Type"))
	q.formType = err == nil && contentType == "application/x-www-form-urlencoded"
	q.credentials = len(r.Header.Values("Authorization"))
	q.user, q.secret, q.basic = r.BasicAuth()
	body, err := io.ReadAll(http.MaxBytesReader(w, r.Body, maxRequestBody))
	if err != nil {
		return q
	}
	q.form, err = url.ParseQuery(string(body))
	q.readable = err == nil
	return q
}

// clientID is the name the request is made in.
func (q *tokenRequest) clientID() string {
	if q.basic {
		return q.user
	}
	return q.form.Get("client_id")
}

// check returns the error code for a request that is wrong whoever sent it, or "". client_id in the body repeats the
// user of the Basic header, because Smokeball documents it as required; Cognito alone would not miss it.
func (q *tokenRequest) check() string {
	if !q.formType || !q.readable || q.credentials > 1 {
		return invalidRequest
	}
	for _, values := range q.form {
		if len(values) > 1 { // RFC 6749 section 3.2: parameters must not be repeated
			return invalidRequest
		}
	}
	if q.credentials > 0 && q.form.Get("client_secret") != "" { // RFC 6749 section 2.3: one method per request
		return invalidRequest
	}
	id := q.form.Get("client_id")
	if q.form.Get("grant_type") == "" || id == "" || q.basic && id != q.user {
		return invalidRequest
	}
	return ""
}

// grant is the issuer's own answer: a token with its lifetime in seconds, or the code of an error.
type grant struct {
	token    string
	lifetime int64
	code     string
}

// receive counts the request, takes the fault it meets, and lets the issuer decide, all in one step, so that counters
// and faults limited to n requests are exact whatever the concurrency. A request that meets a fault in front of the
// issuer is never decided, and the grant is empty.
func (s *Simulator) receive(q *tokenRequest) (Fault, grant) {
	s.mu.Lock()
	defer s.mu.Unlock()
	id := q.clientID()
	a := s.accounts[id]
	if a == nil {
		if len(s.accounts) >= maxAccounts || len(id) > maxIdentifier {
			id = ""
		}
		if a = s.accounts[id]; a == nil {
			a = &account{}
			s.accounts[id] = a
		}
	}
	a.requests++
	fault := takeFault(s.faults, id)
	if fault.Kind.inFront() {
		return fault, grant{}
	}
	return fault, s.decide(q, a, fault)
}

// decide authenticates the client and sells it a token. An unknown client, a wrong secret and a client of another
// endpoint look the same from outside, in the answer and in the time it takes.
func (s *Simulator) decide(q *tokenRequest, a *account, fault Fault) grant {
	if code := q.check(); code != "" {
		return grant{code: code}
	}
	if !authenticate(q, a.client) {
		return grant{code: invalidClient}
	}
	if q.form.Get("grant_type") != "client_credentials" {
		return grant{code: unsupportedGrantType}
	}
	scopes := a.client.Scopes
	if asked := strings.Fields(q.form.Get("scope")); len(asked) > 0 {
		for _, scope := range asked {
			if !slices.Contains(a.client.Scopes, scope) {
				return grant{code: invalidScope}
			}
		}
		scopes = asked
	}
	scopes = slices.Clone(scopes)
	slices.Sort(scopes)
	scopes = slices.Compact(scopes)
	scope := strings.Join(scopes, " ")
	if last, ok := a.last[scope]; ok && fault.Kind == KindSameToken {
		return grant{token: last, lifetime: a.client.lifetime()}
	}
	now := time.Now()
	token, err := s.mint(a.client, scope, now, fault.Claims)
	if err != nil {
		return grant{code: serverError}
	}
	if fault.Kind == KindOpaque {
		token = randomText(48)
	}
	if a.last == nil {
		a.last = make(map[string]string)
	}
	a.last[scope] = token
	a.bought++
	s.sold.add(token, sale{clientID: a.client.ID, scopes: scopes, expires: now.Unix() + a.client.lifetime()}, now)
	return grant{token: token, lifetime: a.client.lifetime()}
}

// authenticate accepts Basic only, the one method Smokeball documents, although Cognito also knows client_secret_post.
func authenticate(q *tokenRequest, c *Client) bool {
	if c == nil {
		c = &Client{Secrets: []string{""}} // costs the time of a comparison, matches nothing
	}
	given := sha256.Sum256([]byte(q.secret))
	match := 0
	for _, secret := range c.Secrets {
		want := sha256.Sum256([]byte(secret))
		match |= subtle.ConstantTimeCompare(given[:], want[:])
	}
	return q.basic && q.secret != "" && c.Endpoint == q.endpoint && match == 1
}

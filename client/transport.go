package client

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"strings"
)

// Transport is an http.RoundTripper for requests to Smokeball with a tenant's
// token. It is safe for concurrent use.
//
//	smokeball := &http.Client{Transport: &client.Transport{Source: broker.TokenSource("tenants/acme")}}
//	resp, err := smokeball.Get("/matters?limit=1")
//
// A request whose URL has no scheme and no host goes to the tenant's API, below
// Token.APIBaseURL: "/matters?limit=1" to https://api.smokeball.com/ACCOUNT/matters?limit=1,
// for example. One whose path has a segment "." or "..", or a backslash, is refused,
// encoded or not, since it could lead out of the account. A request to the API's origin
// (scheme, host and port) keeps its path. Both get the headers Authorization and, if the
// tenant has one, x-api-key, in place of what the caller has set there.
//
// A request to any other origin, for example after a redirect to a file store, goes
// without these two headers, the caller's own too. So does one to the API that another
// origin has redirected there: it would say what is done in the tenant's name.
//
// When Smokeball answers 401, another token is asked for (TokenSource.Replace), and
// with that the request is repeated once, if it has no body or one that can be had
// again (http.Request.GetBody). Else the answer is returned as it is, and so is any
// other: 403 says that the token is good, and may not do this.
//
// A token is sent over TLS only, or to a loopback address. The Request of a
// response has the URL that was asked, and not the token.
type Transport struct {
	// Source has the tokens. Required.
	Source *TokenSource
	// Base makes the requests. nil: http.DefaultTransport.
	Base http.RoundTripper
}

// RoundTrip implements http.RoundTripper. Its errors are those of
// TokenSource.Get, those of Base, and those of a URL that cannot be asked.
func (t *Transport) RoundTrip(req *http.Request) (*http.Response, error) {
	if t.Source == nil {
		return nil, refuse(req, errors.New("Transport has no Source"))
	}
	return roundTrip(t.Source, t.Base, req)
}

// tokens is a *TokenSource.
type tokens interface {
	Get(ctx context.Context) (*Token, error)
	Replace(ctx context.Context, rejectedID string) (*Token, error)
}

func roundTrip(source tokens, base http.RoundTripper, req *http.Request) (*http.Response, error) {
	if base == nil {
		base = http.DefaultTransport
	}
	token, err := source.Get(req.Context())
	if err != nil {
		return nil, refuse(req, err)
	}
	first, authorized, err := prepare(req, token)
	if err != nil {
		return nil, refuse(req, err)
	}
	resp, err := send(base, first, req)
	if err != nil || !authorized || resp.StatusCode != http.StatusUnauthorized {
		return resp, err
	}
	other, err := source.Replace(req.Context(), token.ID)
	if err != nil || other.ID == token.ID {
		return resp, nil //nolint:nilerr // The 401 is the answer.
	}
	second, _, err := prepare(req, other)
	if err != nil || !rewind(second) {
		return resp, nil //nolint:nilerr // As before.
	}
	_ = resp.Body.Close() // Unread: it may have no end, and a connection is not worth the wait.
	return send(base, second, req)
}

// send sends the prepared form of req. Its answer does not lead to the token: those
// who log an answer may log its request with it.
func send(base http.RoundTripper, prepared, req *http.Request) (*http.Response, error) {
	resp, err := base.RoundTrip(prepared)
	if err != nil {
		return nil, err
	}
	asked := req.WithContext(req.Context()) // a shallow copy
	asked.URL, asked.Host = prepared.URL, prepared.Host
	resp.Request = asked
	return resp, nil
}

// prepare returns req as it is sent with this token, and whether it carries it.
func prepare(req *http.Request, token *Token) (prepared *http.Request, authorized bool, err error) {
	target, authorized, err := locate(req, token.APIBaseURL)
	if err != nil {
		return nil, false, err
	}
	prepared = req.Clone(req.Context())
	prepared.URL = target
	if prepared.Header == nil {
		prepared.Header = http.Header{}
	}
	if !authorized {
		remove(prepared.Header, "Authorization")
		remove(prepared.Header, "X-Api-Key")
		return prepared, false, nil
	}
	prepared.Host = target.Host // Behind a shared front another host would be another's server.
	remove(prepared.Header, "Authorization")
	prepared.Header.Set("Authorization", "Bearer "+token.AccessToken)
	if token.APIKey != "" {
		remove(prepared.Header, "X-Api-Key")
		prepared.Header.Set("X-Api-Key", token.APIKey)
	}
	return prepared, true, nil
}

// remove removes a header however it is spelled: a caller may have set it past
// http.Header.Set.
func remove(header http.Header, name string) {
	for key := range header {
		if strings.EqualFold(key, name) {
			delete(header, key)
		}
	}
}

// rewind gives a request that is sent again its body again, and says whether it
// could.
func rewind(req *http.Request) bool {
	if req.Body == nil || req.Body == http.NoBody {
		return true
	}
	if req.GetBody == nil {
		return false
	}
	body, err := req.GetBody()
	req.Body = body
	return err == nil
}

// refuse returns the error of a request that is not sent. As http.RoundTripper
// demands, its body is closed.
func refuse(req *http.Request, err error) error {
	if req.Body != nil {
		_ = req.Body.Close()
	}
	return fmt.Errorf("token broker: %w", err)
}

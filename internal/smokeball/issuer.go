// Package smokeball talks to Smokeball's token issuer (AWS Cognito): which hosts
// there are, one client-credentials exchange (RFC 6749 section 4.4), and what
// each of its outcomes means.
package smokeball

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"net"
	"net/http"
	"net/url"
	"strings"
	"time"

	semconv "go.opentelemetry.io/otel/semconv/v1.43.0"
	"go.opentelemetry.io/otel/trace"

	"smokeball.internal/tokenbroker/internal/token"
)

const (
	// exchangeTimeout bounds an exchange with all its attempts.
	exchangeTimeout = 10 * time.Second
	attemptTimeout  = 5 * time.Second
	maxAttempts     = 3
	// An attempt with less time than this would buy a token that cannot arrive.
	minAttempt = time.Second
	// The wait before the second attempt, at most; doubled before the third.
	firstBackoff = 250 * time.Millisecond
	// A Retry-After up to this long is waited for within the exchange; after a
	// longer one the caller is told to come back.
	maxInlineWait = 2 * time.Second
	// Tokens of Cognito are JWTs of one to a few KiB.
	maxBody = 256 << 10
)

// Issuer exchanges credentials for tokens. It is safe for concurrent use.
type Issuer struct {
	overrides Overrides
	client    *http.Client
}

// New returns an issuer that asks Smokeball, or the addresses in overrides (nil:
// none).
func New(overrides Overrides) *Issuer {
	transport := &http.Transport{
		Proxy:               http.ProxyFromEnvironment,
		DialContext:         (&net.Dialer{Timeout: 3 * time.Second}).DialContext,
		TLSClientConfig:     &tls.Config{MinVersion: tls.VersionTLS12},
		TLSHandshakeTimeout: 3 * time.Second,
		IdleConnTimeout:     30 * time.Second,
		MaxIdleConnsPerHost: 16,
		ForceAttemptHTTP2:   true,
		// An answer that unpacks to more than it says is not worth asking for.
		DisableCompression:     true,
		MaxResponseHeaderBytes: 64 << 10,
		// More than is read is not taken off the network: it would be 4 MiB.
		HTTP2: &http.HTTP2Config{MaxReceiveBufferPerStream: maxBody + 1},
	}
	return &Issuer{
		overrides: overrides,
		client: &http.Client{
			Transport: transport,
			// To follow a redirect would send the secret to another place.
			CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse },
		},
	}
}

// Exchange buys a token. What is worth repeating is repeated, up to three times
// within ten seconds. The error is a *token.Failure, or ctx's own error if ctx
// ended first. The token's RefreshAt is not set.
func (i *Issuer) Exchange(ctx context.Context, c token.Credential) (*token.Token, error) {
	ctx, span := beginSpan(ctx, "exchange", c)
	t, err := i.exchange(ctx, c)
	endSpan(span, err)
	return t, err
}

func (i *Issuer) exchange(ctx context.Context, c token.Credential) (*token.Token, error) {
	within, cancel := context.WithTimeout(ctx, exchangeTimeout)
	defer cancel()
	for attempt := 1; ; attempt++ {
		tried, span := beginAttempt(within, c, attempt)
		t, failure := i.attempt(tried, c)
		if failure == nil {
			endSpan(span, nil)
			return t, nil
		}
		endSpan(span, failure)
		if err := ctx.Err(); err != nil {
			return nil, err
		}
		wait, again := retry(failure, attempt)
		if deadline, _ := within.Deadline(); !again || time.Until(deadline) < wait+minAttempt {
			return nil, failure
		}
		select {
		case <-time.After(wait):
		case <-ctx.Done():
			return nil, ctx.Err()
		}
	}
}

// retry says whether another attempt may cure the failure, and how long to wait
// before it. A throttle that does not say how long it lasts is not tried again
// here: quick repetition prolongs it.
func retry(f *token.Failure, attempt int) (wait time.Duration, again bool) {
	if attempt == maxAttempts || f.RetryAfter > maxInlineWait || errors.Is(f.Cause, errSettled) {
		return 0, false
	}
	backoff := firstBackoff << (attempt - 1)
	backoff = backoff/2 + rand.N(backoff/2)
	switch f.Class {
	case token.Unavailable, token.Malformed:
		return max(f.RetryAfter, backoff), true
	case token.Throttled:
		return f.RetryAfter + backoff/2, f.RetryAfter > 0
	default:
		return 0, false
	}
}

// attempt makes one token request, as Smokeball documents it: Basic
// authentication with the identifier and secret as they are (not form-encoded
// first, as RFC 6749 section 2.3.1 has it), and client_id in the body too.
func (i *Issuer) attempt(ctx context.Context, c token.Credential) (*token.Token, *token.Failure) {
	ctx, cancel := context.WithTimeout(ctx, attemptTimeout)
	defer cancel()
	form := url.Values{"grant_type": {"client_credentials"}, "client_id": {c.ClientID}}
	if len(c.Scopes) > 0 {
		form.Set("scope", token.ScopeParam(c.Scopes))
	}
	req, err := http.NewRequestWithContext(ctx, http.MethodPost, c.Endpoint, strings.NewReader(form.Encode()))
	if err != nil {
		return nil, &token.Failure{Class: token.Unavailable, Message: "the token endpoint is not a URL"}
	}
	req.SetBasicAuth(c.ClientID, c.Secret.Reveal())
	req.Header.Set("Content-Type", "application/x-www-form-urlencoded")
	req.Header.Set("Accept", "application/json")
	req.Header.Set("User-Agent", "tokenbroker")

	sent := time.Now()
	resp, err := i.client.Do(req)
	if err != nil {
		return nil, unreachable(req.URL.Host, err)
	}
	defer func() { _ = resp.Body.Close() }()
	trace.SpanFromContext(ctx).SetAttributes(semconv.HTTPResponseStatusCode(resp.StatusCode))
	body, err := io.ReadAll(io.LimitReader(resp.Body, maxBody+1))
	switch {
	case err != nil:
		return nil, describe(resp, token.Unavailable, "the answer broke off", err)
	case len(body) > maxBody:
		return nil, describe(resp, token.Malformed, fmt.Sprintf("the answer is longer than %d KiB", maxBody>>10), errSettled)
	}
	return interpret(resp, body, c, sent)
}

// unreachable classifies an error of the transport. Its text is not passed on as
// it is: it may quote what the other side sent.
func unreachable(host string, err error) *token.Failure {
	message := "could not be reached"
	var dns *net.DNSError
	var certificate *tls.CertificateVerificationError
	var network net.Error
	switch {
	case errors.As(err, &dns):
		message = "has no address: DNS look-up failed"
	case errors.As(err, &certificate):
		message = "has a TLS certificate that does not verify"
	case errors.Is(err, context.DeadlineExceeded), errors.As(err, &network) && network.Timeout():
		message = "did not answer in time"
	case errors.Is(err, io.EOF), errors.Is(err, io.ErrUnexpectedEOF):
		message = "closed the connection without an answer"
	}
	return &token.Failure{Class: token.Unavailable, Message: host + " " + message, Cause: err}
}

package smokeball

import (
	"context"
	"net/http"
	"time"

	"smokeball.internal/tokenbroker/internal/tenant"
)

// Reached is what a token endpoint has answered.
type Reached struct {
	// Host is its host, with the port if its URL has one.
	Host string
	// Status is that of HTTP. Cognito answers 404 or 405 to what asks for no token.
	Status int
	// Ahead is how far the clock of whoever answered is before this machine's, by its
	// Date header, give or take a second.
	Ahead time.Duration
	// Dated says whether there was such a header.
	Dated bool
}

// Reach asks the token endpoint of a place for its headers, on the way that
// exchanges go. It sends no credential and buys no token. The error is a
// *token.Failure.
func (i *Issuer) Reach(ctx context.Context, p Place) (Reached, error) {
	ctx, cancel := context.WithTimeout(ctx, attemptTimeout)
	defer cancel()
	endpoint := i.TokenEndpoint(&tenant.Tenant{Region: p.Region, Environment: p.Environment})
	req, err := http.NewRequestWithContext(ctx, http.MethodHead, endpoint, nil)
	if err != nil {
		return Reached{}, unreachable(endpoint, err)
	}
	r := Reached{Host: req.URL.Host}
	req.Header.Set("User-Agent", "tokenbroker")
	asked := time.Now()
	resp, err := i.client.Do(req)
	if err != nil {
		return r, unreachable(r.Host, err)
	}
	_ = resp.Body.Close()
	r.Status = resp.StatusCode
	if date, err := http.ParseTime(resp.Header.Get("Date")); err == nil {
		// It names the second that has begun, and was written on the way.
		middle := asked.Add(time.Since(asked) / 2)
		r.Ahead, r.Dated = date.Add(500*time.Millisecond).Sub(middle), true
	}
	return r, nil
}

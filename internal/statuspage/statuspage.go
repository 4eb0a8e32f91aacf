// Package statuspage is the page that people on call look at: every tenant with its
// token, what is in trouble, the replicas, Redis and the issuers. It is HTML made here,
// with nothing to be fetched and no script in it, and nothing secret on it.
package statuspage

import (
	"bytes"
	"context"
	"crypto/sha256"
	_ "embed"
	"encoding/base64"
	"html/template"
	"log/slog"
	"net/http"
	"strconv"
	"time"

	"golang.org/x/time/rate"

	"smokeball.internal/tokenbroker/internal/access"
	"smokeball.internal/tokenbroker/internal/audit"
	"smokeball.internal/tokenbroker/internal/broker"
)

// Config is what a page is made of. All fields but Guard, Certificates and Audit
// are required.
type Config struct {
	// Version of the program.
	Version string
	// Registry has the tenants and their tokens.
	Registry *broker.Registry
	// Stats says how the issuers are.
	Stats func() broker.Stats
	// Hindrances says why calls cannot be answered, a sentence each; none, if they can.
	Hindrances func() []string
	// Redis says how Redis is.
	Redis Redis
	// Guard says who may see which tenants. nil: only who is on this machine sees
	// any, and sees all.
	Guard *access.Guard
	// Certificates tell whose a client certificate is; nil: there are none.
	Certificates *access.Certificates
	// Audit gets a record of each view by somebody who had to prove who it is.
	Audit *audit.Log
	// Logger gets what goes wrong.
	Logger *slog.Logger
}

// Redis is what the page shows of the store beside tenants and tokens.
type Redis interface {
	// Ping returns nil if it can be asked.
	Ping(ctx context.Context) error
	// Warnings says what is wrong with it, a sentence each.
	Warnings() []string
	// CountTenants returns how many there are.
	CountTenants(ctx context.Context) (int, error)
	// Replicas returns those that were heard of lately, the last heard first, or the
	// first of them, and how many there are. Whoever can write to Redis can have put
	// them there.
	Replicas(ctx context.Context) (replicas []Replica, count int, err error)
}

// Replica is one broker of the fleet.
type Replica struct {
	Name, Addr, Version string
	Since               time.Time     // when it started
	Seen                time.Duration // how long ago it was heard
	Self                bool          // it is this one
}

const (
	// Views that are made at a time. Each asks Redis for up to a few hundred
	// records, or, for a search, to look through all ids.
	maxViews = 4
	// How long a view may take.
	viewTimeout = 5 * time.Second
)

// Page serves the page. It is safe for concurrent use.
type Page struct {
	config Config
	views  chan struct{} // one for each that is being made
	some   *rate.Limiter // of the audit log's records of strangers, and of who comes too fast: a few tell that somebody tries
}

// New returns a page.
func New(c Config) *Page {
	return &Page{config: c, views: make(chan struct{}, maxViews), some: rate.NewLimiter(1, 10)}
}

var (
	//go:embed page.html.tmpl
	pageSource string
	//go:embed page.css
	style string

	pageTemplate = template.Must(template.New("page").Parse(pageSource))

	// policy forbids the page everything but its own style.
	policy = func() string {
		sum := sha256.Sum256([]byte(style))
		return "default-src 'none'; style-src 'sha256-" + base64.StdEncoding.EncodeToString(sum[:]) +
			"'; form-action 'self'; base-uri 'none'; frame-ancestors 'none'"
	}()
)

// ServeHTTP answers with the page, or says in plain text why not.
func (p *Page) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	for name, value := range map[string]string{
		"Content-Security-Policy":      policy,
		"Cache-Control":                "no-store",
		"X-Content-Type-Options":       "nosniff",
		"X-Frame-Options":              "DENY",
		"Referrer-Policy":              "no-referrer",
		"Cross-Origin-Opener-Policy":   "same-origin",
		"Cross-Origin-Resource-Policy": "same-origin",
	} {
		w.Header().Set(name, value)
	}
	q, wrong := readQuery(r.URL.RawQuery)
	if wrong != "" {
		refuse(w, &refusal{status: http.StatusBadRequest, why: wrong})
		return
	}
	v, leave, refused := p.admit(r)
	if refused != nil {
		refuse(w, refused)
		return
	}
	defer leave()
	html, refused := p.render(r.Context(), v, q)
	if refused != nil {
		refuse(w, refused)
		return
	}
	w.Header().Set("Content-Type", "text/html; charset=utf-8")
	w.Header().Set("Content-Length", strconv.Itoa(len(html)))
	_, _ = w.Write(html)
}

// render makes a page, when not too many are being made.
func (p *Page) render(ctx context.Context, v *viewer, q query) ([]byte, *refusal) {
	select {
	case p.views <- struct{}{}:
		defer func() { <-p.views }()
	default:
		return nil, &refusal{status: http.StatusServiceUnavailable, why: "This page is being made for others. Try again in a moment.", after: time.Second}
	}
	ctx, cancel := context.WithTimeout(ctx, viewTimeout)
	defer cancel()
	var html bytes.Buffer
	if err := pageTemplate.Execute(&html, p.gather(ctx, v, q)); err != nil {
		p.config.Logger.ErrorContext(ctx, "the status page cannot be made", "error", err)
		return nil, &refusal{status: http.StatusInternalServerError, why: "The page cannot be made. The log says why."}
	}
	return html.Bytes(), nil
}

// refusal is why somebody does not get the page.
type refusal struct {
	status int
	why    string        // a sentence or two
	after  time.Duration // when to try again; 0: it is of no use
}

func refuse(w http.ResponseWriter, r *refusal) {
	w.Header().Set("Content-Type", "text/plain; charset=utf-8")
	if r.after > 0 {
		w.Header().Set("Retry-After", strconv.Itoa(int((r.after+time.Second-1)/time.Second)))
	}
	if r.status == http.StatusUnauthorized {
		w.Header().Set("WWW-Authenticate", "Bearer")
	}
	w.WriteHeader(r.status)
	_, _ = w.Write([]byte(r.why + "\n"))
}

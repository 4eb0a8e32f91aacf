// Package doctor looks at everything that a server needs, without serving and
// without changing anything, and says what is wrong and what mends it.
package doctor

import (
	"context"
	"fmt"
	"time"

	"smokeball.internal/tokenbroker/internal/config"
	"smokeball.internal/tokenbroker/internal/redisstore"
	"smokeball.internal/tokenbroker/internal/seal"
)

// State says how a finding is.
type State string

// The states.
const (
	OK      State = "ok"
	Warning State = "warning" // It serves, and something is not as it should be.
	Problem State = "problem" // It does not serve, or not for long, or not safely.
	Skipped State = "skipped" // It was not looked at; the finding says why.
)

// Finding is one thing that was looked at. There is no secret in it.
type Finding struct {
	// Check names what was looked at, such as "redis"; it stays the same between
	// versions.
	Check string `json:"check"`
	State State  `json:"state"`
	// Says is what was found, in words.
	Says string `json:"says"`
	// Mend is what to do about it; empty: nothing.
	Mend string `json:"mend,omitempty"`
}

// Config is what is to be looked at. All fields but Refused are required.
type Config struct {
	// Settings are the server's.
	Settings *config.Serve
	// Refused says which settings could not be understood, and are at their default
	// in Settings.
	Refused []error
	// OpenStore opens the store as the server does.
	OpenStore func(*seal.Keyset) (*redisstore.Store, error)
	// FetchKeys gets the keys of bearer tokens from their URL, as the server does.
	FetchKeys func(context.Context) ([]byte, error)
	// AskStatus gets what a broker that is running with these settings has at /status,
	// JSON; an error: there is none.
	AskStatus func(context.Context) ([]byte, error)
	// ForbidCoreDumps does so for this process, as the server does.
	ForbidCoreDumps func() error
}

// check is one thing to look at, apart from the others.
type check struct {
	name string
	look func(context.Context, *report)
}

// Examine looks at everything at once, and returns what it finds in an order that
// does not depend on what was quick. What takes longer than ctx is a problem.
func Examine(ctx context.Context, c Config) []Finding {
	begun := time.Now()
	e := newExamination(ctx, c)
	checks := []check{
		{"settings", e.settings}, {"files", e.files}, {"keyset", e.keysetFile},
		{"redis", e.redis}, {"redis data", e.durability}, {"registry", e.registry},
		{"certificate", e.certificate}, {"client authorities", e.authorities}, {"access file", e.accessFile}, {"bearer tokens", e.bearerTokens},
		{"audit log", e.auditLog}, {"issuer", e.issuers}, {"addresses", e.addresses}, {"limits", e.limits},
	}
	done := make([]chan []Finding, len(checks))
	for i, check := range checks {
		done[i] = make(chan []Finding, 1)
		go func() {
			r := &report{check: check.name}
			check.look(ctx, r)
			done[i] <- r.findings
		}()
	}
	var findings []Finding
	for i, check := range checks {
		select {
		case found := <-done[i]:
			findings = append(findings, found...)
			continue
		case <-ctx.Done():
		}
		select {
		case found := <-done[i]:
			findings = append(findings, found...)
		case <-time.After(grace):
			findings = append(findings, Finding{check.name, Problem,
				fmt.Sprintf("this was not done within %v", time.Since(begun).Round(100*time.Millisecond)), "Look at what else is a problem, or let it take longer (--timeout)."})
		}
	}
	e.close()
	return findings
}

// How long a check may take to notice that the time is over.
const grace = 100 * time.Millisecond

// report collects the findings of one check.
type report struct {
	check    string
	findings []Finding
}

func (r *report) add(state State, mend, format string, args ...any) {
	r.findings = append(r.findings, Finding{r.check, state, fmt.Sprintf(format, args...), mend})
}

func (r *report) ok(format string, args ...any)            { r.add(OK, "", format, args...) }
func (r *report) warn(mend, format string, args ...any)    { r.add(Warning, mend, format, args...) }
func (r *report) problem(mend, format string, args ...any) { r.add(Problem, mend, format, args...) }
func (r *report) skip(format string, args ...any)          { r.add(Skipped, "", format, args...) }

// quiet says that nothing was found yet.
func (r *report) quiet() bool { return len(r.findings) == 0 }

package main

import (
	"context"
	"crypto/x509"
	"encoding/json"
	"fmt"
	"io"
	"log/slog"
	"os"
	"strings"
	"text/tabwriter"
	"time"

	"smokeball.internal/tokenbroker/internal/config"
	"smokeball.internal/tokenbroker/internal/doctor"
	"smokeball.internal/tokenbroker/internal/redisstore"
	"smokeball.internal/tokenbroker/internal/seal"
)

type doctorCommand struct {
	serveCommand `embed:""`
	Output       string        `short:"o" env:"-" default:"table" enum:"table,json" placeholder:"FORMAT" help:"table, for people, or json, for scripts. Default ${default}."`
	Timeout      time.Duration `env:"-" default:"20s" placeholder:"DURATION" help:"How long all of it may take. Default ${default}."`
}

// Run looks at everything. A problem is an exit code of 1.
func (c *doctorCommand) Run(ctx context.Context, out output) error { return c.examine(ctx, out, nil) }

// examineAnyway is Run for settings that kong refuses: that is one finding among
// others.
func examineAnyway(ctx context.Context, args []string, out output) error {
	var c doctorCommand
	return c.examine(ctx, out, config.Gather(&c, variables, args))
}

func (c *doctorCommand) examine(ctx context.Context, out output, refused []error) error {
	ctx, cancel := context.WithTimeout(ctx, c.Timeout)
	defer cancel()
	findings := doctor.Examine(ctx, doctor.Config{
		Settings: &c.Serve,
		Refused:  refused,
		OpenStore: func(keyset *seal.Keyset) (*redisstore.Store, error) {
			return openStore(&c.Redis, keyset, slog.New(slog.DiscardHandler), nil) // The findings say it all.
		},
		FetchKeys: c.fetchKeys,
		AskStatus: func(ctx context.Context) ([]byte, error) {
			_, status, err := askOperators(ctx, c.OpsAddr, c.OpsTLS, "/status")
			return status, err
		},
		ForbidCoreDumps: forbidCoreDumps,
	})
	write := writeFindings
	if c.Output == "json" {
		write = writeFindingsJSON
	}
	if err := write(out.stdout, findings); err != nil {
		return err
	}
	if count(findings, doctor.Problem) > 0 {
		return exit(1)
	}
	return nil
}

// fetchKeys gets the keys of bearer tokens once.
func (c *doctorCommand) fetchKeys(ctx context.Context) ([]byte, error) {
	var roots *x509.CertPool // nil: the system's
	if c.JWTKeysCA != "" {
		content, err := os.ReadFile(c.JWTKeysCA)
		if err != nil {
			return nil, err
		}
		if roots, err = c.keysRoots(content); err != nil {
			return nil, err
		}
	}
	return fetch(ctx, c.JWTKeysURL(), roots)
}

func count(findings []doctor.Finding, state doctor.State) (n int) {
	for _, f := range findings {
		if f.State == state {
			n++
		}
	}
	return n
}

// writeFindings writes a table with a line for each finding, and one below for what
// mends it.
func writeFindings(w io.Writer, findings []doctor.Finding) error {
	table := tabwriter.NewWriter(w, 0, 0, 2, ' ', 0)
	_, _ = fmt.Fprintln(table, "STATE\tWHAT\tFINDING")
	for _, f := range findings {
		_, _ = fmt.Fprintf(table, "%s\t%s\t%s\n", f.State, f.Check, printable(f.Says))
		if f.Mend != "" {
			_, _ = fmt.Fprintf(table, "\t\t→ %s\n", printable(f.Mend))
		}
	}
	if err := table.Flush(); err != nil {
		return err
	}
	var said []string
	for _, state := range []doctor.State{doctor.Problem, doctor.Warning, doctor.OK, doctor.Skipped} {
		said = append(said, fmt.Sprintf("%s %d", state, count(findings, state)))
	}
	_, err := fmt.Fprintln(w, "\n"+strings.Join(said, ", "))
	return err
}

// writeFindingsJSON writes an object with the findings.
func writeFindingsJSON(w io.Writer, findings []doctor.Finding) error {
	text, err := json.Marshal(struct {
		Version  string           `json:"version"`
		Problems int              `json:"problems"`
		Warnings int              `json:"warnings"`
		Findings []doctor.Finding `json:"findings"`
	}{version, count(findings, doctor.Problem), count(findings, doctor.Warning), findings})
	if err != nil {
		return err
	}
	return writeIndented(w, text)
}

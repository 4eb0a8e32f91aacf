package main

import (
	"errors"
	"fmt"
	"io"
	"os"

	"smokeball.internal/tokenbroker/internal/audit"
)

type auditCommand struct {
	Verify verifyCommand `cmd:"" help:"Say whether an audit log is as it was written: nothing edited, removed, inserted or moved."`
}

type verifyCommand struct {
	Files []string `arg:"" name:"file" help:"The files, the oldest first; - for standard input. What was compressed goes through zcat."`
	Head  []string `sep:"none" env:"-" placeholder:"HASH" help:"A hash that the server has logged as its \"audit chain\": the record must be there. Can be repeated. Without one, it is not seen if all records from some point on were removed or written anew."`
	Mixed bool     `env:"-" help:"Other lines may be among the records, as in what several programs wrote."`
}

// maxWriters bounds how many writers are told of one by one.
const maxWriters = 20

// Run verifies files and tells what was found.
func (c *verifyCommand) Run(out output) error {
	report, err := c.verify()
	if err != nil {
		return err
	}
	for _, finding := range report.Findings {
		_, _ = fmt.Fprintln(out.stderr, finding)
	}
	if report.MoreFindings > 0 {
		_, _ = fmt.Fprintf(out.stderr, "and %d findings more\n", report.MoreFindings)
	}
	if err := tellReport(out.stdout, report); err != nil {
		return err
	}
	if len(report.Findings) > 0 {
		return errors.New("the audit log is not as it was written")
	}
	return nil
}

func (c *verifyCommand) verify() (*audit.Report, error) {
	var inputs []audit.Input
	for _, path := range c.Files {
		if path == "-" {
			inputs = append(inputs, audit.Input{Name: "standard input", Reader: os.Stdin})
			continue
		}
		f, err := os.Open(path)
		if err != nil {
			return nil, err
		}
		defer func() { _ = f.Close() }()
		inputs = append(inputs, audit.Input{Name: path, Reader: f})
	}
	return audit.Verify(audit.VerifyOptions{Heads: c.Head, Mixed: c.Mixed}, inputs...)
}

// tellReport prints what is there, and what is worth a look.
func tellReport(w io.Writer, report *audit.Report) error {
	for _, note := range report.Notes {
		_, _ = fmt.Fprintln(w, note)
	}
	if report.MoreNotes > 0 {
		_, _ = fmt.Fprintf(w, "and %d notes more\n", report.MoreNotes)
	}
	for _, writer := range report.Writers[:min(len(report.Writers), maxWriters)] {
		_, _ = fmt.Fprintln(w, writer)
	}
	if more := len(report.Writers) - maxWriters; more > 0 {
		_, _ = fmt.Fprintf(w, "and %d writers more\n", more)
	}
	_, err := fmt.Fprintf(w, "records %d, writers %d, with something before them %d, other lines %d, findings %d\n",
		report.Records, len(report.Writers), report.Prefixed, report.Others, len(report.Findings)+report.MoreFindings)
	return err
}

package main

import (
	"errors"
	"fmt"
	"strings"

	"github.com/alecthomas/kong"

	"smokeball.internal/tokenbroker/internal/access"
)

type accessCommand struct {
	Explain explainCommand `cmd:"" help:"Say whether a caller may call a method for a tenant, and by which rule. Exits with 0 if so, with 1 if not, and with 2 if there is no answer."`
	Check   checkCommand   `cmd:"" help:"Say what is wrong with an access file, or read its rules aloud."`
}

type checkCommand struct {
	File string `arg:"" help:"The access file."`
}

// Run reads the file.
func (c *checkCommand) Run(out output) error {
	policy, err := access.LoadPolicy(c.File)
	if err != nil {
		return fmt.Errorf("%s is refused:\n%w", c.File, err)
	}
	_, err = fmt.Fprintln(out.stdout, strings.Join(policy.ReadAloud(), "\n"))
	return err
}

type explainCommand struct {
	Config     kong.ConfigFlag `placeholder:"FILE" help:"The server's --config."`
	AccessFile string          `name:"access-file" required:"" placeholder:"FILE" help:"The server's --access-file."`

	Principal string   `arg:"" help:"A name of the caller, for example spiffe://prod.example/ns/billing/sa/invoicer."`
	Method    string   `arg:"" help:"For example GetToken, or tokenbroker.v1.TokenService/GetToken."`
	Tenant    string   `arg:"" optional:"" help:"The tenant, for example tenants/acme. None, or -, for ListTenants."`
	Scope     []string `env:"-" sep:"none" placeholder:"SCOPE" help:"A scope that the token is asked for. May be repeated; without it, all that the tenant has."`
	Label     []string `name:"tenant-label" env:"-" sep:"none" placeholder:"KEY=VALUE" help:"A label of the tenant. May be repeated; without it, the labels are not known."`
}

// Run answers the question. A question without an answer is no denial, and must
// not look like one to a script.
func (c *explainCommand) Run(out output) error {
	decision, why, err := c.explain()
	if err != nil {
		_, _ = fmt.Fprintf(out.stderr, "tokenbroker: %v\n", err)
		return exit(2)
	}
	if _, err := fmt.Fprintln(out.stdout, why); err != nil {
		return exit(2)
	}
	if decision.Verdict != access.Allowed {
		return exit(1)
	}
	return nil
}

func (c *explainCommand) explain() (access.Decision, string, error) {
	labels, err := c.labels()
	if err != nil {
		return access.Decision{}, "", err
	}
	query := access.Query{Method: c.Method, Tenant: strings.TrimPrefix(c.Tenant, "tenants/"), Scopes: c.Scope}
	if strings.Contains(c.Method, "/") {
		method, ok := access.MethodNamed(c.Method)
		if !ok {
			return access.Decision{}, "", errors.New("there is no such method in the API")
		}
		query.Method = method
	}
	if c.Tenant == "-" {
		query.Tenant = ""
	}
	policy, err := access.LoadPolicy(c.AccessFile)
	if err != nil {
		return access.Decision{}, "", err
	}
	return policy.Explain(c.Principal, query, labels)
}

// labels returns the labels that were given; nil, if none were.
func (c *explainCommand) labels() (map[string]string, error) {
	var labels map[string]string
	for _, l := range c.Label {
		key, value, ok := strings.Cut(l, "=")
		if !ok || key == "" {
			return nil, errors.New("--tenant-label: want KEY=VALUE")
		}
		if _, twice := labels[key]; twice {
			return nil, errors.New("--tenant-label: a key is given twice")
		}
		if labels == nil {
			labels = map[string]string{}
		}
		labels[key] = value
	}
	return labels, nil
}

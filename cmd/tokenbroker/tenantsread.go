package main

import (
	"context"
	"errors"
	"fmt"
	"strings"

	pb "smokeball.internal/tokenbroker/gen/tokenbroker/v1"
)

// calls is for verbs that go through the API.
type calls struct {
	connection `embed:""`
	Output     string `short:"o" env:"-" default:"table" enum:"table,json" placeholder:"FORMAT" help:"table, for people, or json, for scripts: the messages of the API. Default ${default}."`
}

// tenantArg is the argument that names a tenant.
type tenantArg struct {
	Tenant string `arg:"" help:"The tenant: acme, or tenants/acme."`
}

// name returns the tenant's resource name.
func (a *tenantArg) name() string { return "tenants/" + a.id() }

func (a *tenantArg) id() string { return strings.TrimPrefix(a.Tenant, "tenants/") }

type listCommand struct {
	calls `embed:""`
}

// Run lists all tenants, page by page.
func (c *listCommand) Run(ctx context.Context, out output) error {
	var tenants []*pb.Tenant
	err := c.call(ctx, func(api pb.TenantServiceClient, each contexts) error {
		for token := ""; ; {
			page, err := one(each, api.ListTenants, &pb.ListTenantsRequest{PageSize: 1000, PageToken: token})
			if err != nil {
				return err
			}
			tenants = append(tenants, page.GetTenants()...)
			if token = page.GetNextPageToken(); token == "" {
				return nil
			}
		}
	})
	if err != nil {
		return err
	}
	if c.Output == "json" {
		return writeJSONArray(out.stdout, tenants)
	}
	return writeTenants(out.stdout, tenants)
}

type getCommand struct {
	calls     `embed:""`
	tenantArg `embed:""`
}

// Run shows one tenant and its status.
func (c *getCommand) Run(ctx context.Context, out output) error {
	return c.tenant(ctx, out, func(api pb.TenantServiceClient, each contexts) (*pb.Tenant, error) {
		resp, err := one(each, api.GetTenant, &pb.GetTenantRequest{Name: c.name()})
		return resp.GetTenant(), err
	})
}

// tenant makes calls that return a tenant, and shows it.
func (c *calls) tenant(ctx context.Context, out output, do func(pb.TenantServiceClient, contexts) (*pb.Tenant, error)) error {
	var t *pb.Tenant
	err := c.call(ctx, func(api pb.TenantServiceClient, each contexts) (err error) {
		t, err = do(api, each)
		return err
	})
	switch {
	case err != nil:
		return err
	case c.Output == "json":
		return writeJSON(out.stdout, t)
	default:
		return writeTenant(out.stdout, t)
	}
}

type checkTenantCommand struct {
	calls            `embed:""`
	tenantArg        `embed:""`
	SkipOtherRegions bool `name:"skip-other-regions" env:"-" help:"Do not try refused credentials in the other regions."`
}

// Run has the tenant's credentials tried at the issuer. What is wrong with them is
// an exit code of 1.
func (c *checkTenantCommand) Run(ctx context.Context, out output) error {
	var found *pb.CheckTenantResponse
	err := c.call(ctx, func(api pb.TenantServiceClient, each contexts) (err error) {
		found, err = one(each, api.CheckTenant, &pb.CheckTenantRequest{Name: c.name(), SkipOtherRegions: c.SkipOtherRegions})
		return err
	})
	if err != nil {
		return err
	}
	if c.Output == "json" {
		err = writeJSON(out.stdout, found)
	} else {
		said := c.name() + ": " + word(found.GetFinding(), "FINDING_") + ": " + printable(found.GetMessage())
		if advice := found.GetAdvice(); advice != "" {
			said += "\n" + printable(advice)
		}
		_, err = fmt.Fprintln(out.stdout, said)
	}
	if err == nil && found.GetFinding() != pb.CheckTenantResponse_FINDING_OK {
		err = exit(1)
	}
	return err
}

type deleteCommand struct {
	calls     `embed:""`
	tenantArg `embed:""`
	Etag      string `env:"-" placeholder:"ETAG" help:"Delete it only if it is as it was read with this etag."`
	Yes       bool   `short:"y" env:"-" help:"Do not ask."`
	DryRun    bool   `name:"dry-run" env:"-" help:"Have it checked, and delete nothing."`
}

// Run deletes a tenant.
func (c *deleteCommand) Run(ctx context.Context, out output) error {
	switch {
	case c.Yes || c.DryRun:
	case !onTerminal():
		return misused(out, "there is no terminal to ask on: --yes deletes without asking")
	case !confirm(ctx, out, "Delete "+c.name()+" and its secrets.", c.id()):
		return errors.New("nothing was deleted")
	}
	err := c.call(ctx, func(api pb.TenantServiceClient, each contexts) error {
		_, err := one(each, api.DeleteTenant, &pb.DeleteTenantRequest{Name: c.name(), Etag: c.Etag, ValidateOnly: c.DryRun})
		return err
	})
	switch {
	case err != nil:
		return err
	case c.Output == "json":
		return writeJSON(out.stdout, &pb.DeleteTenantResponse{})
	case c.DryRun:
		_, err = fmt.Fprintln(out.stdout, "would delete "+c.name())
	default:
		_, err = fmt.Fprintln(out.stdout, "deleted "+c.name()+": tokens that were handed out stay valid until they expire")
	}
	return err
}

// enum is an enum of the API.
type enum interface{ String() string }

// word returns the value of an enum as people write it: REGION_US is us.
func word(e enum, prefix string) string {
	return strings.ReplaceAll(strings.ToLower(strings.TrimPrefix(e.String(), prefix)), "_", " ")
}

package main

import (
	"context"
	"maps"
	"time"

	"google.golang.org/protobuf/types/known/durationpb"
	"google.golang.org/protobuf/types/known/fieldmaskpb"

	pb "smokeball.internal/tokenbroker/gen/tokenbroker/v1"
)

// fields are what create and update set. nil: not given.
type fields struct {
	DisplayName *string           `name:"display-name" env:"-" placeholder:"NAME" help:"A name for people."`
	Region      string            `env:"-" enum:",us,au,uk" default:"" placeholder:"REGION" help:"us, au or uk."`
	Environment string            `env:"-" enum:",production,staging" default:"" placeholder:"ENVIRONMENT" help:"production or staging. A new tenant: production, if not given."`
	ClientID    *string           `name:"client-id" env:"-" placeholder:"ID" help:"OAuth 2.0 client identifier."`
	AccountID   *string           `name:"account-id" env:"-" placeholder:"ID" help:"Smokeball account, where the client may reach several."`
	Scope       []string          `env:"-" sep:"none" placeholder:"SCOPE" help:"A scope. May be repeated, and is all the scopes then."`
	KeepWarm    *bool             `name:"keep-warm" env:"-" negatable:"" help:"Keep a token fresh even if nobody asks for it."`
	Label       map[string]string `env:"-" mapsep:"none" placeholder:"KEY=VALUE" help:"A label. May be repeated, and is all the labels then."`
	APIKeyFile  string            `name:"api-key-file" env:"-" placeholder:"FILE" help:"File with the x-api-key of the app; -: standard input, which is asked without echo on a terminal."`
}

// fill puts what was given into t, and returns the names of those fields.
func (f *fields) fill(ctx context.Context, out output, t *pb.Tenant) (paths []string, err error) {
	set := func(path string, given bool) bool {
		if given {
			paths = append(paths, path)
		}
		return given
	}
	if set("display_name", f.DisplayName != nil) {
		t.DisplayName = *f.DisplayName
	}
	if set("region", f.Region != "") {
		t.Region = map[string]pb.Region{"us": pb.Region_REGION_US, "au": pb.Region_REGION_AU, "uk": pb.Region_REGION_UK}[f.Region]
	}
	if set("environment", f.Environment != "") {
		t.Environment = map[string]pb.Environment{
			"production": pb.Environment_ENVIRONMENT_PRODUCTION, "staging": pb.Environment_ENVIRONMENT_STAGING}[f.Environment]
	}
	if set("client_id", f.ClientID != nil) {
		t.ClientId = *f.ClientID
	}
	if set("account_id", f.AccountID != nil) {
		t.AccountId = *f.AccountID
	}
	if set("scopes", f.Scope != nil) {
		t.Scopes = f.Scope
	}
	if set("keep_warm", f.KeepWarm != nil) {
		t.KeepWarm = *f.KeepWarm
	}
	if set("labels", f.Label != nil) {
		t.Labels = maps.Clone(f.Label)
	}
	if set("api_key", f.APIKeyFile != "") {
		key, err := readSecret(ctx, out, "API key", f.APIKeyFile)
		if err != nil {
			return nil, err
		}
		t.ApiKey = key.Reveal()
	}
	return paths, nil
}

// clientSecret is where a client secret comes from.
type clientSecret struct {
	ClientSecretFile string `name:"client-secret-file" env:"-" placeholder:"FILE" help:"File with the client secret; -: standard input. Without it, the secret is asked for on the terminal, without echo."`
}

// read returns the secret.
func (c *clientSecret) read(ctx context.Context, out output) (string, error) {
	path := c.ClientSecretFile
	if path == "" {
		if !onTerminal() {
			return "", misused(out, "there is no terminal to ask for the client secret on: --client-secret-file=FILE, or - for standard input")
		}
		path = "-"
	}
	text, err := readSecret(ctx, out, "client secret", path)
	return text.Reveal(), err
}

type createCommand struct {
	calls        `embed:""`
	tenantArg    `embed:""`
	fields       `embed:""`
	clientSecret `embed:""`
	Disabled     bool `env:"-" help:"Hand out no token of it yet."`
	DryRun       bool `name:"dry-run" env:"-" help:"Have it checked, and register nothing."`
}

// Run registers a tenant.
func (c *createCommand) Run(ctx context.Context, out output) error {
	switch {
	case c.Region == "" || c.ClientID == nil:
		return misused(out, "a new tenant needs --region and --client-id")
	case c.APIKeyFile == "-" && c.ClientSecretFile == "-" && !onTerminal():
		return misused(out, "--client-secret-file and --api-key-file cannot both be standard input")
	}
	t := &pb.Tenant{}
	if c.Disabled {
		t.State = pb.Tenant_STATE_DISABLED
	}
	var err error
	if t.ClientSecret, err = c.clientSecret.read(ctx, out); err != nil {
		return err
	}
	if _, err = c.fill(ctx, out, t); err != nil {
		return err
	}
	return c.tenant(ctx, out, func(api pb.TenantServiceClient, each contexts) (*pb.Tenant, error) {
		resp, err := one(each, api.CreateTenant, &pb.CreateTenantRequest{TenantId: c.id(), Tenant: t, ValidateOnly: c.DryRun})
		return resp.GetTenant(), err
	})
}

type updateCommand struct {
	calls     `embed:""`
	tenantArg `embed:""`
	fields    `embed:""`
	Clear     []string `env:"-" enum:"scopes,labels,api-key" placeholder:"FIELD" help:"Have no scopes, labels or api-key any more. May be repeated."`
	Etag      string   `env:"-" placeholder:"ETAG" help:"Change it only if it is as it was read with this etag."`
	DryRun    bool     `name:"dry-run" env:"-" help:"Have it checked, and change nothing."`
}

// Run changes the fields that are given, and no others.
func (c *updateCommand) Run(ctx context.Context, out output) error {
	t := &pb.Tenant{Name: c.name(), Etag: c.Etag}
	paths, err := c.fill(ctx, out, t)
	if err != nil {
		return err
	}
	for _, field := range c.Clear {
		switch {
		case field == "scopes" && c.Scope == nil, field == "labels" && c.Label == nil:
			paths = append(paths, field)
		case field == "api-key" && c.APIKeyFile == "":
			paths = append(paths, "api_key")
		default:
			return misused(out, "--clear="+field+" excludes a new value")
		}
	}
	if len(paths) == 0 {
		return misused(out, "there is nothing to change")
	}
	return c.update(ctx, out, t, paths, c.DryRun)
}

// update changes the fields at paths to what they are in t.
func (c *calls) update(ctx context.Context, out output, t *pb.Tenant, paths []string, dry bool) error {
	return c.tenant(ctx, out, func(api pb.TenantServiceClient, each contexts) (*pb.Tenant, error) {
		resp, err := one(each, api.UpdateTenant, &pb.UpdateTenantRequest{
			Tenant: t, UpdateMask: &fieldmaskpb.FieldMask{Paths: paths}, ValidateOnly: dry})
		return resp.GetTenant(), err
	})
}

type enableCommand struct {
	calls     `embed:""`
	tenantArg `embed:""`
}

// Run makes a tenant active.
func (c *enableCommand) Run(ctx context.Context, out output) error {
	return c.update(ctx, out, &pb.Tenant{Name: c.name(), State: pb.Tenant_STATE_ACTIVE}, []string{"state"}, false)
}

type disableCommand struct {
	calls     `embed:""`
	tenantArg `embed:""`
}

// Run disables a tenant.
func (c *disableCommand) Run(ctx context.Context, out output) error {
	return c.update(ctx, out, &pb.Tenant{Name: c.name(), State: pb.Tenant_STATE_DISABLED}, []string{"state"}, false)
}

type rotateCommand struct {
	calls            `embed:""`
	tenantArg        `embed:""`
	clientSecret     `embed:""`
	FallbackTTL      time.Duration `name:"fallback-ttl" env:"-" default:"24h" placeholder:"DURATION" help:"How long the old secret is kept as a fallback; 0s: not at all. Default ${default}."`
	SkipVerification bool          `name:"skip-verification" env:"-" help:"Do not try the new secret at the issuer first."`
	Etag             string        `env:"-" placeholder:"ETAG" help:"Change it only if it is as it was read with this etag."`
	DryRun           bool          `name:"dry-run" env:"-" help:"Try the new secret at the issuer, and change nothing."`
}

// Run replaces the client secret.
func (c *rotateCommand) Run(ctx context.Context, out output) error {
	text, err := c.clientSecret.read(ctx, out)
	if err != nil {
		return err
	}
	return c.tenant(ctx, out, func(api pb.TenantServiceClient, each contexts) (*pb.Tenant, error) {
		resp, err := one(each, api.RotateClientSecret, &pb.RotateClientSecretRequest{Name: c.name(), ClientSecret: text, Etag: c.Etag,
			SkipVerification: c.SkipVerification, FallbackTtl: durationpb.New(c.FallbackTTL), ValidateOnly: c.DryRun})
		return resp.GetTenant(), err
	})
}

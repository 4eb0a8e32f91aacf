package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"os"

	"github.com/alecthomas/kong"

	"smokeball.internal/tokenbroker/internal/config"
	"smokeball.internal/tokenbroker/internal/redisstore"
	"smokeball.internal/tokenbroker/internal/seal"
)

type tenantsCommand struct {
	List    listCommand        `cmd:"" help:"List the tenants."`
	Get     getCommand         `cmd:"" help:"Show a tenant and how its token fares."`
	Create  createCommand      `cmd:"" help:"Register a tenant. Its credentials are not tried: check does that."`
	Update  updateCommand      `cmd:"" help:"Change a tenant, but for its client secret: rotate does that."`
	Delete  deleteCommand      `cmd:"" help:"Remove a tenant and its secrets."`
	Enable  enableCommand      `cmd:"" help:"Hand out the tenant's tokens."`
	Disable disableCommand     `cmd:"" help:"Hand out no token of the tenant any more."`
	Rotate  rotateCommand      `cmd:"" help:"Replace a client secret by one that the issuer accepts. The old one is kept as a fallback for a while."`
	Check   checkTenantCommand `cmd:"" help:"Try a tenant's credentials at the issuer, and say what is wrong. Exits with 1 if something is. Buys a token."`

	Export exportCommand `cmd:"" help:"Write the tenants to FILE, sealed as they are in Redis. An existing file is never written over."`
	Import importCommand `cmd:"" help:"Put the tenants of FILE back into Redis. Those that are there are left as they are."`
}

// direct is for verbs that go to Redis and not through the API.
type direct struct {
	Config       kong.ConfigFlag `placeholder:"FILE" help:"The server's --config."`
	config.Redis `embed:""`
}

// open opens the store. What it logs goes to the user.
func (d *direct) open(ctx context.Context, out output) (*redisstore.Store, error) {
	keyset, err := seal.Load(ctx, d.KeysetFile)
	if err != nil {
		return nil, fmt.Errorf("keyset: %w", err)
	}
	return d.openWith(keyset, out)
}

// openWith is open with a keyset that was read already.
func (d *direct) openWith(keyset *seal.Keyset, out output) (*redisstore.Store, error) {
	return openStore(&d.Redis, keyset, slog.New(slog.NewTextHandler(out.stderr, &slog.HandlerOptions{Level: slog.LevelWarn})), nil)
}

type exportCommand struct {
	direct `embed:""`
	File   string `arg:"" help:"The file to write; - for standard output."`
}

// Run writes the registry to a file. One that has unreadable records in it is
// written, and an error: a key may be missing here that is there elsewhere.
func (c *exportCommand) Run(ctx context.Context, out output) error {
	store, err := c.open(ctx, out)
	if err != nil {
		return err
	}
	defer func() { _ = store.Close() }()
	var done redisstore.Exported
	export := func(w io.Writer) (err error) {
		done, err = store.Export(ctx, w)
		return err
	}
	said, name := out.stdout, c.File
	if c.File == "-" {
		said, name = out.stderr, "standard output"
		err = export(out.stdout)
	} else {
		err = writeNew(c.File, export)
	}
	if err != nil {
		return err
	}
	for _, id := range done.Unreadable {
		_, _ = fmt.Fprintf(out.stderr, "tenants/%s cannot be opened with this keyset; it is in the file as it is\n", id)
	}
	_, err = fmt.Fprintf(said, "exported %d to %s, unreadable %d: keep it apart from the keyset, which opens it\n", done.Tenants, name, len(done.Unreadable))
	switch {
	case err != nil:
		return err
	case done.Strange > 0:
		return fmt.Errorf("%d records that no broker has written are not in the file", done.Strange)
	case len(done.Unreadable) > 0:
		return errors.New("not all could be opened: is this the keyset of the servers?")
	}
	return nil
}

type importCommand struct {
	direct    `embed:""`
	File      string `arg:"" help:"The file to read; - for standard input."`
	Overwrite bool   `env:"-" help:"Replace tenants that were changed since by those of the file."`
	DryRun    bool   `name:"dry-run" env:"-" help:"Say what would be done, and change nothing."`
}

// Run puts the tenants of a file into the registry.
func (c *importCommand) Run(ctx context.Context, out output) error {
	backup, err := c.read()
	if err != nil {
		return err
	}
	store, err := c.open(ctx, out)
	if err != nil {
		return err
	}
	defer func() { _ = store.Close() }()
	done, err := store.Import(ctx, backup, redisstore.ImportOptions{Overwrite: c.Overwrite, DryRun: c.DryRun})
	if errors.Is(err, redisstore.ErrWrongKeyset) {
		return fmt.Errorf("nothing was changed: %w", err)
	}
	// Also after an error: some may be imported.
	return errors.Join(c.tell(out, done), err)
}

func (c *importCommand) read() (*redisstore.Backup, error) {
	if c.File == "-" {
		return redisstore.ReadBackup(os.Stdin)
	}
	f, err := os.Open(c.File)
	if err != nil {
		return nil, err
	}
	defer func() { _ = f.Close() }()
	backup, err := redisstore.ReadBackup(f)
	if err != nil {
		return nil, fmt.Errorf("%s: nothing was changed: %w", c.File, err)
	}
	return backup, nil
}

// tell prints what was done. The error says that something was left out.
func (c *importCommand) tell(out output, done redisstore.Imported) error {
	verb, dry := "left", ""
	if c.Overwrite {
		verb = "replaced"
	}
	if c.DryRun {
		dry = "nothing was changed; it would be: "
	}
	for _, id := range done.Different {
		_, _ = fmt.Fprintf(out.stderr, "tenants/%s is there in another version: %s\n", id, verb)
	}
	for _, id := range done.Unreadable {
		_, _ = fmt.Fprintf(out.stderr, "tenants/%s cannot be opened with this keyset: left out\n", id)
	}
	if done.OtherRegistry {
		_, _ = fmt.Fprintln(out.stderr, "a new registry was begun since the old one was lost: restart the replicas that report it as gone")
	}
	_, err := fmt.Fprintf(out.stdout, "%simported %d, already there %d, different and %s %d, unreadable %d\n",
		dry, done.Created, done.Same, verb, len(done.Different), len(done.Unreadable))
	switch {
	case err != nil:
		return err
	case len(done.Unreadable) > 0:
		return errors.New("not all could be opened: running replicas go on reporting the registry as gone; repeat the import with the keyset that opens them")
	case len(done.Different) > 0 && !c.Overwrite:
		return errors.New("some were changed since and are left as they are (--overwrite replaces them)")
	}
	return nil
}

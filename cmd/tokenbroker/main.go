// Command tokenbroker hands out Smokeball access tokens over gRPC. "serve" runs
// it in production, "dev" on a developer's machine with everything it needs.
// It exits with 0 when it has done what it was asked, with 1 when that failed,
// and with 2 when it could not be understood. "access explain" exits with 1 when
// the answer is no, and with 2 when there is none.
package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log"
	"os"
	"os/signal"
	"strings"
	"syscall"

	"github.com/alecthomas/kong"

	"smokeball.internal/tokenbroker/internal/config"
)

func main() {
	// The libraries' HTTP writes to the standard logger what it was sent, and with
	// GODEBUG=http2debug=1 what it sends, Authorization and all. What matters of it
	// comes back as errors.
	log.SetOutput(io.Discard)
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM, syscall.SIGHUP)
	context.AfterFunc(ctx, stop) // A second signal ends it at once.
	// Compose and Kubernetes write VAR= for what is not set.
	for _, variable := range os.Environ() {
		if name, value, _ := strings.Cut(variable, "="); value == "" && strings.HasPrefix(name, "TOKENBROKER_") {
			_ = os.Unsetenv(name)
		}
	}
	os.Exit(run(ctx, os.Args[1:], os.Stdout, os.Stderr))
}

// variables is what the names of settings in the environment begin with.
const variables = "TOKENBROKER"

// version is set when a release is built.
var version = "development"

// commands is the grammar of the command line.
type commands struct {
	Serve      serveCommand      `cmd:"" help:"Serve the API."`
	Dev        devCommand        `cmd:"" help:"Serve the API on this machine with an embedded store, a simulated issuer and two tenants. Nothing is kept."`
	Keyset     keysetCommand     `cmd:"" help:"Make, rotate and look at the keyset that seals what is stored."`
	Tenants    tenantsCommand    `cmd:"" help:"List, register and change tenants through the API; write the registry to a file, and put it back."`
	Audit      auditCommand      `cmd:"" help:"Verify the audit log."`
	Access     accessCommand     `cmd:"" help:"Check the access file, and ask it who may do what."`
	Doctor     doctorCommand     `cmd:"" help:"Look at everything that serve needs, with the same settings, and say what is wrong and what mends it. Changes nothing."`
	Health     healthCommand     `cmd:"" help:"Exit with 0 if the server on this machine is ready: a health check for containers."`
	Completion completionCommand `cmd:"" help:"Print a script that completes commands, flags and the names of tenants in a shell."`
	Complete   completeCommand   `cmd:"" hidden:"" help:"Say what the last of some words may become: what these scripts ask."`
	Version    kong.VersionFlag  `env:"-" help:"Print the version."`
}

// output is where commands write.
type output struct{ stdout, stderr io.Writer }

func run(ctx context.Context, args []string, stdout, stderr io.Writer) int {
	parser, err := kong.New(&commands{},
		kong.Name("tokenbroker"),
		kong.Description("Hands out Smokeball access tokens: bought once, kept fresh, shared by all who need them."),
		kong.Vars{"version": version, "kms_help": kmsHelp},
		kong.Writers(stdout, stderr),
		kong.DefaultEnvars(variables),
		kong.Configuration(config.File),
		kong.ConfigureHelp(kong.HelpOptions{Compact: true, WrapUpperBound: 100}),
		kong.BindTo(ctx, (*context.Context)(nil)),
		kong.Bind(output{stdout, stderr}))
	if err != nil {
		panic(err) // The grammar is wrong for every argument, or for none.
	}
	command, err := parser.Parse(args)
	switch {
	case err == nil:
		err = command.Run()
	case len(args) > 0 && args[0] == "doctor":
		err = examineAnyway(ctx, args[1:], output{stdout, stderr})
	default:
		_, _ = fmt.Fprintf(stderr, "tokenbroker: %v\nTry \"tokenbroker --help\".\n", err)
		return 2
	}
	var code exit
	switch {
	case err == nil:
		return 0
	case errors.As(err, &code):
		return int(code)
	default:
		_, _ = fmt.Fprintf(stderr, "tokenbroker: %v\n", err)
		return 1
	}
}

// exit is the exit code of a command that has said all there is to say.
type exit int

func (e exit) Error() string { return fmt.Sprintf("exit code %d", int(e)) }

package main

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"time"
	"unicode"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"smokeball.internal/tokenbroker/client"
	pb "smokeball.internal/tokenbroker/gen/tokenbroker/v1"
)

// connection is the settings of verbs that go through the API. Their variables are
// not those of the server, which may run on the same machine.
type connection struct {
	Addr     string        `default:"127.0.0.1:9090" env:"TOKENBROKER_ADDR" placeholder:"HOST:PORT" help:"Where the API is. Default ${default}."`
	CAFile   string        `name:"ca-file" env:"TOKENBROKER_CA_FILE" placeholder:"FILE" help:"Certificate authorities of the API, PEM; those of the system if not given."`
	CertFile string        `name:"cert-file" env:"TOKENBROKER_CERT_FILE" placeholder:"FILE" help:"Certificate to show, PEM."`
	KeyFile  string        `name:"key-file" env:"TOKENBROKER_KEY_FILE" placeholder:"FILE" help:"Its private key, PEM."`
	JWTFile  string        `name:"jwt-file" env:"TOKENBROKER_JWT_FILE" placeholder:"FILE" help:"Bearer token (JWT) to show, in place of a certificate."`
	Insecure bool          `env:"TOKENBROKER_ADDR_INSECURE" help:"Connect in plain text, to this machine only."`
	Timeout  time.Duration `default:"30s" env:"-" placeholder:"DURATION" help:"How long each call may take. Default ${default}."`
}

// Validate refuses settings that do not go together. Kong calls it.
func (c *connection) Validate() error {
	switch {
	case (c.CertFile == "") != (c.KeyFile == ""):
		return errors.New("--cert-file and --key-file are needed together")
	case c.CertFile != "" && c.JWTFile != "":
		return errors.New("--cert-file and --jwt-file are two ways to say who you are: use one")
	case c.Insecure && (c.CAFile != "" || c.CertFile != ""):
		return errors.New("--insecure excludes --ca-file, --cert-file and --key-file")
	case c.Timeout <= 0:
		return errors.New("--timeout must be positive")
	}
	return nil
}

// contexts returns the context of one call.
type contexts func() (context.Context, context.CancelFunc)

// one makes one call.
func one[Request, Response any](each contexts, method func(context.Context, Request, ...grpc.CallOption) (Response, error), req Request) (Response, error) {
	ctx, cancel := each()
	defer cancel()
	return method(ctx, req)
}

// call connects and has do make its calls.
func (c *connection) call(ctx context.Context, do func(api pb.TenantServiceClient, each contexts) error) error {
	options := []client.Option{client.WithTLS(c.CAFile)}
	switch {
	case c.Insecure:
		options[0] = client.WithInsecure()
	case c.CertFile != "":
		options[0] = client.WithMTLS(c.CAFile, c.CertFile, c.KeyFile)
	}
	if c.JWTFile != "" {
		options = append(options, client.WithJWTFile(c.JWTFile))
	}
	broker, err := client.New(ctx, c.Addr, options...)
	if err != nil {
		return fmt.Errorf("connect to %s: %w", c.Addr, err)
	}
	defer func() { _ = broker.Close() }()
	err = do(pb.NewTenantServiceClient(broker.Conn()), func() (context.Context, context.CancelFunc) {
		return context.WithTimeout(ctx, c.Timeout)
	})
	return c.explained(err)
}

// explained puts the status of a call in words, with what to do about it.
func (c *connection) explained(err error) error {
	s, ok := status.FromError(err)
	if err == nil || !ok {
		return err
	}
	said := printable(s.Message())
	reason := client.Reason(err)
	if reason != "" {
		said += " (" + printable(reason) + ")"
	} else {
		said = s.Code().String() + ": " + said
	}
	advice := reasonAdvice[reason]
	if advice == "" && len(s.Details()) == 0 {
		switch s.Code() {
		case codes.Unavailable:
			advice = connectionAdvice(s.Message(), c.Addr)
		case codes.DeadlineExceeded:
			advice = "--timeout waits longer. If this was a change, it may have been made all the same: read the tenant to know"
		}
	}
	if advice != "" {
		said += "\n" + advice
	}
	return errors.New(said)
}

// printable returns text without what would change a terminal.
func printable(text string) string {
	return strings.Map(func(r rune) rune {
		if !unicode.IsPrint(r) {
			return '?'
		}
		return r
	}, text)
}

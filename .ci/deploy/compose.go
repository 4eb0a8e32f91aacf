package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"

	"github.com/compose-spec/compose-go/v2/cli"
	"github.com/compose-spec/compose-go/v2/types"
)

// checkCompose loads a Compose file, which validates it, and sees that every
// service is confined and that what it mounts is there.
func checkCompose(ctx context.Context, file string) error {
	options, err := cli.NewProjectOptions([]string{file}, cli.WithEnv([]string{"TOKENBROKER_JWT_ISSUER=https://idp.example"}))
	if err != nil {
		return err
	}
	project, err := options.LoadProject(ctx)
	if err != nil {
		return err
	}
	var found []error
	for name, s := range project.Services {
		if err := confined(s); err != nil {
			found = append(found, fmt.Errorf("service %s: %w", name, err))
		}
	}
	// What is in secrets is whose it is that runs this, and is not in the repository.
	secrets := filepath.Join(filepath.Dir(file), "secrets")
	for name, c := range project.Configs {
		if filepath.Dir(c.File) == secrets {
			continue
		}
		if _, err := os.Stat(c.File); err != nil {
			found = append(found, fmt.Errorf("config %s: %w", name, err))
		}
	}
	for name, s := range project.Secrets {
		if filepath.Dir(s.File) != secrets {
			found = append(found, fmt.Errorf("secret %s is not in %s", name, secrets))
		}
	}
	return errors.Join(found...)
}

// confined says what a service may do that it need not.
func confined(s types.ServiceConfig) error {
	switch {
	case !s.ReadOnly:
		return errors.New("its file system can be written to")
	case s.User == "" || s.User == "0" || s.User == "root":
		return errors.New("it runs as root")
	case len(s.CapDrop) != 1 || s.CapDrop[0] != "ALL" || len(s.CapAdd) > 0:
		return errors.New("it has capabilities")
	case len(s.SecurityOpt) != 1 || s.SecurityOpt[0] != "no-new-privileges:true":
		return errors.New("it may gain privileges")
	case s.Privileged:
		return errors.New("it is privileged")
	case s.HealthCheck == nil:
		return errors.New("it has no health check")
	}
	return nil
}

// Command deploy checks the files of deploy/ that a program reads which is not at
// hand: compose.yaml as docker compose does, envoy.yaml against Envoy's API,
// kubernetes as kubectl does, against Kubernetes' API and the binary, and systemd
// against the binary and, where it is installed, systemd-analyze.
//
// It is a module of its own so that the product does not depend on any of them.
package main

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
)

func main() {
	if len(os.Args) != 3 {
		fmt.Fprintln(os.Stderr, "usage: deploy DIRECTORY BINARY")
		os.Exit(2)
	}
	failed := false
	for name, check := range map[string]func(context.Context, string) error{
		"compose.yaml": checkCompose,
		"envoy.yaml":   checkEnvoy,
		"systemd": func(ctx context.Context, dir string) error {
			return checkSystemd(ctx, dir, os.Args[2])
		},
		"kubernetes/overlays/example": func(ctx context.Context, dir string) error {
			return checkKubernetes(ctx, dir, os.Args[2])
		},
	} {
		if err := check(context.Background(), filepath.Join(os.Args[1], name)); err != nil {
			fmt.Fprintf(os.Stderr, "%s: %v\n", name, err)
			failed = true
		}
	}
	if failed {
		os.Exit(1)
	}
}

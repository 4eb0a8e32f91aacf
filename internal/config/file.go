package config

import (
	"errors"
	"fmt"
	"io"
	"os"
	"slices"
	"strings"

	"github.com/alecthomas/kong"
	"gopkg.in/yaml.v3"
)

// File reads settings from YAML. It is a kong.ConfigurationLoader.
func File(r io.Reader) (kong.Resolver, error) {
	values := map[string]any{}
	if err := yaml.NewDecoder(r).Decode(&values); err != nil && !errors.Is(err, io.EOF) {
		return nil, fmt.Errorf("not YAML of names and values: %w", err)
	}
	return file(values), nil
}

// file maps the names of flags to values.
type file map[string]any

// Validate refuses names that no flag has.
func (f file) Validate(app *kong.Application) error {
	var known []string
	for _, command := range app.Children {
		for _, flag := range command.Flags {
			known = append(known, flag.Name)
		}
	}
	for name := range f {
		if !slices.Contains(known, name) || name == "config" {
			return fmt.Errorf("unknown setting %q in the configuration file", name)
		}
	}
	return nil
}

// Resolve returns the value for a flag; nil if the file has none, or a variable
// of the environment goes before it.
func (f file) Resolve(_ *kong.Context, _ *kong.Path, flag *kong.Flag) (any, error) {
	value, ok := f[flag.Name]
	if !ok {
		return nil, nil
	}
	for _, name := range flag.Envs {
		if _, set := os.LookupEnv(name); set {
			return nil, nil
		}
	}
	if list, ok := value.([]any); ok {
		var parts []string
		for _, part := range list {
			parts = append(parts, fmt.Sprint(part))
		}
		return strings.Join(parts, ","), nil
	}
	return fmt.Sprint(value), nil
}

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
	settings := map[string]yaml.Node{}
	decoder := yaml.NewDecoder(r)
	if err := decoder.Decode(&settings); err != nil && !errors.Is(err, io.EOF) {
		return nil, fmt.Errorf("not YAML of names and values: %w", err)
	}
	if err := decoder.Decode(&yaml.Node{}); !errors.Is(err, io.EOF) {
		return nil, errors.New("more than one YAML document in the configuration file")
	}
	values := file{}
	for name, node := range settings {
		value, err := text(&node)
		if err != nil {
			return nil, fmt.Errorf("setting %q in the configuration file: %w", name, err)
		}
		values[name] = value
	}
	return values, nil
}

// text returns a value as it is written, whatever YAML takes it for, so that it
// is read as that of a flag is: 0010 is not 8. The parts of a list are joined as
// they are in a variable.
func text(n *yaml.Node) (string, error) {
	switch {
	case n.Kind == yaml.ScalarNode && n.Tag != "!!null":
		return n.Value, nil
	case n.Kind == yaml.SequenceNode:
		var parts []string
		for _, part := range n.Content {
			if part.Kind != yaml.ScalarNode {
				return "", errors.New("must be a list of values")
			}
			parts = append(parts, part.Value)
		}
		return strings.Join(parts, ","), nil
	default:
		return "", errors.New("must have a value or a list of values")
	}
}

// file maps the names of flags to values.
type file map[string]string

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
	return value, nil
}

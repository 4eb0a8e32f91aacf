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

// File reads settings from YAML. It is a kong.ConfigurationLoader. Its errors
// name settings and lines, and quote no values.
func File(r io.Reader) (kong.Resolver, error) {
	values, problems := readFile(r)
	if len(problems) > 0 {
		return nil, problems[0]
	}
	return values, nil
}

// readFile returns what can be understood of a file, and what is wrong with the
// rest of it.
func readFile(r io.Reader) (values file, problems []error) {
	values = file{}
	var document yaml.Node
	decoder := yaml.NewDecoder(r)
	if err := decoder.Decode(&document); errors.Is(err, io.EOF) {
		return values, nil
	} else if err != nil || document.Content[0].Kind != yaml.MappingNode {
		return values, []error{errors.New("the configuration file is not YAML of names and values")}
	}
	if err := decoder.Decode(&yaml.Node{}); !errors.Is(err, io.EOF) {
		problems = append(problems, errors.New("more than one YAML document in the configuration file"))
	}
	known, err := settings()
	if err != nil {
		return values, append(problems, err)
	}
	for pair := range slices.Chunk(document.Content[0].Content, 2) {
		name := pair[0].Value
		value, err := text(pair[1])
		_, twice := values[name]
		switch {
		case !known[name]:
			err = fmt.Errorf("unknown setting %q in the configuration file, line %d", name, pair[0].Line)
		case twice:
			err = fmt.Errorf("setting %q is in the configuration file twice, again in line %d", name, pair[0].Line)
		case err != nil:
			err = fmt.Errorf("setting %q in the configuration file, line %d: %w", name, pair[0].Line, err)
		default:
			values[name] = value
			continue
		}
		problems = append(problems, err)
	}
	return values, problems
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

// Validate accepts everything: File has refused what there is no setting for.
func (file) Validate(*kong.Application) error { return nil }

// settings returns the names of all settings that a file may have.
func settings() (map[string]bool, error) {
	parser, err := kong.New(&Serve{})
	if err != nil {
		return nil, err
	}
	names := map[string]bool{}
	for _, flag := range parser.Model.Flags {
		names[flag.Name] = flag.Name != "help" && flag.Name != "config"
	}
	return names, nil
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

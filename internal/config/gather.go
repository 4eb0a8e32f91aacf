package config

import (
	"errors"
	"fmt"
	"os"
	"strings"

	"github.com/alecthomas/kong"
)

// Gather fills grammar, a pointer to a struct of flags, from arguments, variables
// that begin with prefix, and the file that --config names, as kong does with
// DefaultEnvars and File. But where kong stops at the first thing that it cannot
// understand, Gather leaves that setting at its default and returns all of them.
// What was given is not quoted. Whether settings go together is not looked at.
func Gather(grammar any, prefix string, args []string) (problems []error) {
	parser, err := kong.New(grammar, kong.DefaultEnvars(prefix))
	if err != nil {
		return []error{err}
	}
	g := gatherer{parser: parser, flags: map[string]*kong.Flag{}}
	for _, flag := range parser.Model.Flags {
		g.flags[flag.Name] = flag
		if flag.Short != 0 {
			g.flags[string(flag.Short)] = flag
		}
	}
	given := g.fromArgs(args)
	values := file{}
	if path := g.path(given); path != "" {
		values = g.fromFile(path)
	}
	var good []string
	for _, flag := range parser.Model.Flags {
		from, where := given[flag.Name], ""
		if value, name, ok := variable(flag); from == nil && ok {
			from, where = []string{value}, " (variable "+name+")"
		}
		if value, ok := values[flag.Name]; from == nil && ok {
			from, where = []string{value}, " (configuration file)"
		}
		for _, value := range from {
			arg := "--" + flag.Name + "=" + value
			if g.understands(flag, value, arg, where) {
				good = append(good, arg)
			}
		}
		if from == nil && flag.Required {
			g.refuse("missing flags: --%s=%s", flag.Name, flag.FormatPlaceHolder())
		}
	}
	for _, flag := range parser.Model.Flags {
		flag.Tag.Envs = nil // Looked at already.
	}
	final, err := kong.Trace(parser, good)
	if err == nil {
		err = errors.Join(final.Error, final.Reset())
	}
	if err == nil {
		_, err = final.Apply()
	}
	if err != nil {
		g.problems = append(g.problems, err)
	}
	return g.problems
}

// gatherer collects what is wrong.
type gatherer struct {
	parser   *kong.Kong
	flags    map[string]*kong.Flag // by their names, long and short
	problems []error
}

func (g *gatherer) refuse(format string, args ...any) {
	g.problems = append(g.problems, fmt.Errorf(format, args...))
}

// fromArgs returns the values of flags by their long names.
func (g *gatherer) fromArgs(args []string) map[string][]string {
	given := map[string][]string{}
	for n := 0; n < len(args); n++ {
		name, value, has := strings.Cut(args[n], "=")
		long := strings.HasPrefix(name, "--")
		if name = strings.TrimLeft(name, "-"); !long && len(name) > 1 {
			name, value, has = name[:1], args[n][2:], true // -ojson
		}
		flag := g.flags[name]
		switch {
		case !strings.HasPrefix(args[n], "-") || name == "":
			g.refuse("argument %d is no flag, and there is nothing else to give", n+1)
			continue
		case flag == nil && long:
			g.refuse("unknown flag --%s", name)
			continue
		case flag == nil:
			g.refuse("unknown flag -%s", name)
			continue
		case has:
		case flag.IsBool():
			value = "true"
		case n+1 == len(args):
			g.refuse("--%s: there is no value behind it", flag.Name)
			continue
		default:
			n++
			value = args[n]
		}
		given[flag.Name] = append(given[flag.Name], value)
	}
	return given
}

// path returns the configuration file that is named; empty if none is.
func (g *gatherer) path(given map[string][]string) string {
	flag := g.flags["config"]
	if paths := given["config"]; len(paths) > 0 {
		return paths[len(paths)-1]
	} else if flag == nil {
		return ""
	}
	path, _, _ := variable(flag)
	return path
}

func (g *gatherer) fromFile(path string) file {
	f, err := os.Open(path)
	if err != nil {
		g.problems = append(g.problems, err)
		return nil
	}
	defer func() { _ = f.Close() }()
	values, problems := readFile(f)
	g.problems = append(g.problems, problems...)
	return values
}

// understands says whether a flag can have a value.
func (g *gatherer) understands(flag *kong.Flag, value, arg, where string) bool {
	if flag.Enum != "" && !flag.EnumMap()[value] {
		g.refuse("--%s%s must be one of %s", flag.Name, where, strings.ReplaceAll(flag.Enum, ",", ", "))
		return false
	}
	tried, err := kong.Trace(g.parser, []string{arg})
	if err != nil || tried.Error != nil {
		g.refuse("--%s%s: want %s", flag.Name, where, wanted(flag))
		return false
	}
	return true
}

// wanted says what a flag can be.
func wanted(flag *kong.Flag) string {
	switch flag.Target.Type().String() {
	case "time.Duration":
		return "a duration, such as 30s, 5m or 24h"
	case "float64":
		return "a number"
	case "bool":
		return "true or false"
	default:
		return flag.FormatPlaceHolder()
	}
}

// variable returns the value for a flag in the environment, and the variable's name.
func variable(flag *kong.Flag) (value, name string, ok bool) {
	for _, name := range flag.Envs {
		if value, ok := os.LookupEnv(name); ok {
			return value, name, true
		}
	}
	return "", "", false
}

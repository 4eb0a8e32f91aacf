package main

import (
	"context"
	"embed"
	"fmt"
	"regexp"
	"slices"
	"strings"
	"time"

	"github.com/alecthomas/kong"

	pb "smokeball.internal/tokenbroker/gen/tokenbroker/v1"
	"smokeball.internal/tokenbroker/internal/config"
)

// completionScripts have a shell ask "tokenbroker complete" what may come next, so
// that what there is to complete is said in one place for all shells.
//
//go:embed completion
var completionScripts embed.FS

type completionCommand struct {
	Shell string `arg:"" enum:"bash,zsh,fish" help:"bash, zsh or fish."`
}

// Run prints the script.
func (c *completionCommand) Run(out output) error {
	script, err := completionScripts.ReadFile("completion/" + c.Shell)
	if err != nil {
		return err
	}
	_, err = out.stdout.Write(script)
	return err
}

type completeCommand struct {
	Words []string `arg:"" optional:"" passthrough:"" help:"The words behind tokenbroker, up to the one that is to be completed."`
}

// Run prints what the last of the words may become, a line each; nothing, if that
// is not known, as for a file.
func (c *completeCommand) Run(ctx context.Context, out output, parsed *kong.Context) error {
	words := c.Words
	if len(words) > 0 && words[0] == "--" {
		words = words[1:]
	}
	for _, candidate := range complete(ctx, parsed.Model.Node, words) {
		if _, err := fmt.Fprintln(out.stdout, candidate); err != nil {
			return err
		}
	}
	return nil
}

// complete returns what the last word may become.
func complete(ctx context.Context, node *kong.Node, words []string) []string {
	if len(words) == 0 {
		return nil
	}
	last, value, positional := words[len(words)-1], (*kong.Flag)(nil), 0
	for _, word := range words[:len(words)-1] {
		name, _, has := strings.Cut(word, "=")
		switch {
		case value != nil:
			value = nil
		case strings.HasPrefix(word, "-"):
			if flag := flagNamed(node, name); flag != nil && !has && !flag.IsBool() {
				value = flag
			}
		default:
			if child := childNamed(node, word); child != nil {
				node = child
			} else {
				positional++
			}
		}
	}
	name, _, has := strings.Cut(last, "=")
	switch {
	case value != nil:
		return beginning(last, "", enumOf(value.Value))
	case has && strings.HasPrefix(last, "--"):
		flag := flagNamed(node, name)
		if flag == nil {
			return nil
		}
		return beginning(last, name+"=", enumOf(flag.Value))
	case strings.HasPrefix(last, "-"):
		return beginning(last, "--", flagNames(node))
	case len(node.Children) > 0:
		return beginning(last, "", childNames(node))
	case positional < len(node.Positional) && node.Positional[positional].Name == "tenant":
		return beginning(last, "", tenantNames(ctx, words))
	case positional < len(node.Positional):
		return beginning(last, "", enumOf(node.Positional[positional]))
	default:
		return nil
	}
}

// beginning returns those of the words, with something before them, that begin
// with what is there.
func beginning(there, before string, words []string) (found []string) {
	for _, word := range words {
		if strings.HasPrefix(before+word, there) {
			found = append(found, before+word)
		}
	}
	return found
}

func enumOf(value *kong.Value) []string {
	if value.Enum == "" {
		return nil
	}
	return slices.DeleteFunc(value.EnumSlice(), func(s string) bool { return s == "" })
}

func childNamed(node *kong.Node, name string) *kong.Node {
	for _, child := range node.Children {
		if child.Name == name {
			return child
		}
	}
	return nil
}

func childNames(node *kong.Node) (names []string) {
	for _, child := range node.Children {
		if !child.Hidden {
			names = append(names, child.Name)
		}
	}
	return names
}

// flagNamed returns the flag that is written as word, --name or -n.
func flagNamed(node *kong.Node, word string) *kong.Flag {
	for _, group := range node.AllFlags(false) {
		for _, flag := range group {
			if word == "--"+flag.Name || flag.Short != 0 && word == "-"+string(flag.Short) {
				return flag
			}
		}
	}
	return nil
}

func flagNames(node *kong.Node) (names []string) {
	for _, group := range node.AllFlags(true) {
		for _, flag := range group {
			names = append(names, flag.Name)
		}
	}
	slices.Sort(names)
	return names
}

// How long somebody waits for names who has pressed a key.
const completeTimeout = time.Second

// tenantID is the form of ids in the API. Whoever can write to Redis can have a server
// list others, and a shell puts what it is given on the command line as it is.
var tenantID = regexp.MustCompile(`^[a-z]([a-z0-9-]{0,61}[a-z0-9])?$`)

// tenantNames asks the server that words and variables name for its first thousand
// tenants; none, if it does not answer at once.
func tenantNames(ctx context.Context, words []string) (names []string) {
	var c listCommand
	_ = config.Gather(&c, variables, words) // What else is in them does not matter here.
	c.Timeout = completeTimeout
	if c.connection.Validate() != nil {
		return nil
	}
	_ = c.call(ctx, func(api pb.TenantServiceClient, each contexts) error {
		page, err := one(each, api.ListTenants, &pb.ListTenantsRequest{PageSize: 1000})
		for _, t := range page.GetTenants() {
			if id := strings.TrimPrefix(t.GetName(), "tenants/"); tenantID.MatchString(id) {
				names = append(names, id)
			}
		}
		return err
	})
	return names
}

package access

import (
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
)

const (
	// MaxPolicySize is how large an access file may be, in bytes.
	MaxPolicySize = 1 << 20
	// maxRules is how many rules it may have.
	maxRules = 10_000
)

// Policy is what an access file says: who may do what. It denies what no rule of
// it allows; the zero Policy denies everything. It is immutable and safe for
// concurrent use.
type Policy struct {
	// file is the name of the file in messages.
	file  string
	rules []*rule
	// allowances are in the order of the file: the first that fits counts.
	allowances []allowance
	// everything allows everything to everybody.
	everything bool
}

// insecure is the rule of Everything.
const insecure = "insecure"

// Everything returns the policy of --insecure: whoever calls may do everything,
// without limits. Its rule is called "insecure".
func Everything() *Policy { return &Policy{everything: true} }

// LoadPolicy reads the policy from an access file, as ParsePolicy does. In
// messages the file has its base name.
func LoadPolicy(path string) (*Policy, error) {
	f, err := os.Open(path)
	if err != nil {
		return nil, fmt.Errorf("access file: %w", err)
	}
	defer func() { _ = f.Close() }()
	content, err := io.ReadAll(io.LimitReader(f, MaxPolicySize+1))
	if err != nil {
		return nil, fmt.Errorf("access file: %w", err)
	}
	return ParsePolicy(filepath.Base(path), content)
}

// ParsePolicy reads the policy from the content of an access file. The error
// lists all that is wrong with it, but for the last of very many, one a line, as
// in "access.yaml:12: …"; name is what the file is called there. It quotes what is
// written where the names of callers, tenants, roles, scopes and labels belong,
// and the keys of mappings, so that a file of secrets named by mistake is not
// repeated. An empty file is a policy that denies everything.
func ParsePolicy(name string, content []byte) (*Policy, error) {
	f := &policyFile{name: name}
	p := f.policy(content)
	if err := errors.Join(f.problems()...); err != nil {
		return nil, err
	}
	return p, nil
}

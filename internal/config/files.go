package config

import (
	"regexp"

	"github.com/alecthomas/kong"
)

// NamedFile is a file that a setting names.
type NamedFile struct {
	// Setting is the name of the flag, without dashes.
	Setting string
	// Path is where the file is.
	Path string
	// Secret says that whoever can read the file has a secret.
	Secret bool
}

// holdsSecret is of the names of settings whose files hold one.
var holdsSecret = regexp.MustCompile(`keyset|password|secret|key-file$`)

// Files returns the files that the settings name, in the order of the flags. What a
// setting writes to is not among them.
func (c *Serve) Files() (files []NamedFile, err error) {
	parser, err := kong.New(c)
	if err != nil {
		return nil, err
	}
	for _, flag := range parser.Model.Flags {
		path := ""
		switch flag.PlaceHolder {
		case "FILE":
			path = flag.Target.String()
		case "FILE|URL":
			if path = flag.Target.String(); c.JWTKeysURL() != "" {
				path = ""
			}
		}
		if path != "" {
			files = append(files, NamedFile{flag.Name, path, holdsSecret.MatchString(flag.Name)})
		}
	}
	return files, nil
}

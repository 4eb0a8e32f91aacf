package config

import (
	"errors"
	"fmt"
	"net/url"
	"strings"
)

// Callers is the settings that say who may call, and what they may do.
type Callers struct {
	ClientCAFile string `name:"client-ca-file" placeholder:"FILE" help:"Certificate authorities of callers, PEM. Who calls is a certificate's SPIFFE ID, DNS name or subject."`
	AccessFile   string `name:"access-file" placeholder:"FILE" help:"Rules that say what callers may do, YAML. Nobody may do anything without a rule. See docs/security.md."`

	JWTIssuer   string   `name:"jwt-issuer" placeholder:"ISSUER" help:"Accept bearer tokens (JWT) with this iss. Who calls is their subject."`
	JWTAudience []string `name:"jwt-audience" placeholder:"AUDIENCE" help:"Bearer tokens must be meant for one of these (aud). May be repeated."`
	JWTKeys     string   `name:"jwt-keys" placeholder:"FILE|URL" help:"Keys of the issuer of bearer tokens: a JWK set, in a file or at an https:// URL."`
	JWTKeysCA   string   `name:"jwt-keys-ca-file" placeholder:"FILE" help:"Certificate authorities for the URL of --jwt-keys, PEM; those of the system if not given."`
}

func (c *Callers) any() bool {
	return c.ClientCAFile != "" || c.AccessFile != "" || c.JWTIssuer != "" || len(c.JWTAudience) > 0 || c.JWTKeys != "" || c.JWTKeysCA != ""
}

// Validate refuses settings that do not go together. Kong calls it.
func (c *Callers) Validate() error {
	given := c.JWTIssuer != "" || len(c.JWTAudience) > 0 || c.JWTKeys != ""
	switch {
	case given && (c.JWTIssuer == "" || len(c.JWTAudience) == 0 || c.JWTKeys == ""):
		return errors.New("--jwt-issuer, --jwt-audience and --jwt-keys are needed together")
	case c.JWTKeysCA != "" && c.JWTKeysURL() == "":
		return errors.New("--jwt-keys-ca-file is for a --jwt-keys that is a URL")
	}
	if u, err := url.Parse(c.JWTKeysURL()); c.JWTKeysURL() != "" && (err != nil || u.Host == "" || u.User != nil ||
		u.Scheme != "https" && (u.Scheme != "http" || !loopback(u.Host) && !loopback(u.Host+":80"))) {
		return errors.New("--jwt-keys must be a file or an https:// URL without a password; http:// only to loopback")
	}
	for _, audience := range c.JWTAudience {
		if audience == "" {
			return fmt.Errorf("--jwt-audience must not be empty")
		}
	}
	return nil
}

// JWTKeysURL returns --jwt-keys if it is a URL; else "".
func (c *Callers) JWTKeysURL() string {
	if strings.Contains(c.JWTKeys, "://") {
		return c.JWTKeys
	}
	return ""
}

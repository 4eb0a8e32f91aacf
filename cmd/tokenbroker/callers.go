package main

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"io"
	"net/http"
	"path/filepath"
	"sync/atomic"
	"time"

	"smokeball.internal/tokenbroker/internal/access"
	"smokeball.internal/tokenbroker/internal/reload"
	"smokeball.internal/tokenbroker/internal/seal"
)

// callers is how callers prove who they are.
type callers struct {
	certificates *access.Certificates
	tokens       *access.Tokens // nil: not by bearer tokens
	missedKey    chan struct{}  // has a value when a token names an unknown key
}

// callers returns what the settings say of callers; nil: everyone is let in.
func (c *serveCommand) callers() *callers {
	if c.Insecure {
		return nil
	}
	known := &callers{certificates: &access.Certificates{Optional: c.JWTIssuer != ""}, missedKey: make(chan struct{}, 1)}
	if c.TLSMinVersion == "1.2" {
		known.certificates.MinVersion = tls.VersionTLS12
	}
	if c.JWTIssuer != "" {
		known.tokens = access.NewTokens(c.JWTIssuer, c.JWTAudience, func() {
			select {
			case known.missedKey <- struct{}{}:
			default:
			}
		})
	}
	return known
}

// watchKeyset loads the keyset, now and when its file changes.
func (c *serveCommand) watchKeyset(ctx context.Context, w *reload.Watcher) (*seal.Keyset, error) {
	var keyset *seal.Keyset
	err := w.Files("keyset-file", func(contents [][]byte) error {
		next, err := seal.Parse(ctx, c.KeysetFile, contents[0])
		switch {
		case err != nil:
			return err
		case keyset == nil:
			keyset = next
			return nil
		default:
			return keyset.Replace(next)
		}
	}, c.KeysetFile)
	return keyset, err
}

// watchCallers loads the files that say who callers are and what they may do, now
// and when they change.
func (c *serveCommand) watchCallers(s *service) error {
	if s.callers == nil {
		return nil
	}
	certificates := s.callers.certificates
	if err := s.watcher.Files("tls-cert-file", func(contents [][]byte) error {
		return certificates.SetServer(contents[0], contents[1])
	}, c.TLSCertFile, c.TLSKeyFile); err != nil {
		return fmt.Errorf("tls: %w", err)
	}
	if c.ClientCAFile != "" {
		if err := s.watcher.Files("client-ca-file", func(contents [][]byte) error {
			defer s.guard.Recheck()
			return certificates.SetAuthorities(contents[0])
		}, c.ClientCAFile); err != nil {
			return fmt.Errorf("client authorities %s: %w", c.ClientCAFile, err)
		}
	}
	if err := c.watchKeys(s); err != nil {
		return fmt.Errorf("keys of bearer tokens: %w", err)
	}
	return s.watcher.Files("access-file", func(contents [][]byte) error {
		policy, err := access.ParsePolicy(filepath.Base(c.AccessFile), contents[0])
		if err == nil {
			s.guard.SetPolicy(policy)
		}
		return err
	}, c.AccessFile)
}

// How often the keys of bearer tokens are fetched, beside when one is missing.
const keysPeriod = 5 * time.Minute

// watchKeys loads the keys of the issuer of bearer tokens.
func (c *serveCommand) watchKeys(s *service) error {
	if s.callers.tokens == nil {
		return nil
	}
	set := func(jwks []byte) error {
		defer s.guard.Recheck()
		return s.callers.tokens.SetKeys(jwks)
	}
	if c.JWTKeysURL() == "" {
		return s.watcher.Files("jwt-keys", func(contents [][]byte) error { return set(contents[0]) }, c.JWTKeys)
	}
	var roots atomic.Pointer[x509.CertPool] // nil: the system's
	if c.JWTKeysCA != "" {
		if err := s.watcher.Files("jwt-keys-ca-file", func(contents [][]byte) error {
			pool, err := c.keysRoots(contents[0])
			if err == nil {
				roots.Store(pool)
			}
			return err
		}, c.JWTKeysCA); err != nil {
			return err
		}
	}
	s.watcher.Fetched("jwt-keys", keysPeriod, s.callers.missedKey, func(ctx context.Context) ([]byte, error) {
		return fetch(ctx, c.JWTKeysURL(), roots.Load())
	}, set)
	return nil
}

// keysRoots returns the authorities for the URL of keys that are in the content of
// their file.
func (c *serveCommand) keysRoots(content []byte) (*x509.CertPool, error) {
	pool := x509.NewCertPool()
	if !pool.AppendCertsFromPEM(content) {
		return nil, fmt.Errorf("%s has no PEM certificate in it", c.JWTKeysCA)
	}
	return pool, nil
}

// fetch returns what there is at a URL, on a connection of its own. Redirects are
// not followed.
func fetch(ctx context.Context, url string, roots *x509.CertPool) ([]byte, error) {
	ctx, cancel := context.WithTimeout(ctx, 10*time.Second)
	defer cancel()
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, url, nil)
	if err != nil {
		return nil, err
	}
	resp, err := (&http.Transport{
		Proxy: http.ProxyFromEnvironment, DisableKeepAlives: true, TLSClientConfig: &tls.Config{MinVersion: tls.VersionTLS12, RootCAs: roots},
	}).RoundTrip(req)
	if err != nil {
		return nil, err
	}
	defer func() { _ = resp.Body.Close() }()
	if resp.StatusCode != http.StatusOK {
		return nil, fmt.Errorf("%s answers with status %d", req.URL.Host, resp.StatusCode)
	}
	const most = 1 << 20
	content, err := io.ReadAll(io.LimitReader(resp.Body, most+1))
	if err == nil && len(content) > most {
		err = errors.New("the JWK set is larger than 1 MiB")
	}
	return content, err
}

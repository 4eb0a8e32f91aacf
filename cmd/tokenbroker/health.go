package main

import (
	"context"
	"crypto/tls"
	"fmt"
	"io"
	"net"
	"net/http"
	"strings"
	"time"

	"github.com/alecthomas/kong"
)

type healthCommand struct {
	Config  kong.ConfigFlag `placeholder:"FILE" help:"The server's --config."`
	OpsAddr string          `name:"ops-addr" default:"127.0.0.1:9091" placeholder:"HOST:PORT" help:"The server's --ops-addr. Default ${default}."`
	OpsTLS  bool            `name:"ops-tls" help:"The server's --ops-tls."`
}

// Run asks the server on this machine whether it is ready.
func (c *healthCommand) Run(ctx context.Context, out output) error {
	code, body, err := askOperators(ctx, c.OpsAddr, c.OpsTLS, "/readyz")
	if err != nil {
		return err
	}
	said := strings.TrimSpace(string(body))
	if code != http.StatusOK {
		return fmt.Errorf("not ready: %s", said)
	}
	_, err = fmt.Fprintln(out.stdout, said)
	return err
}

// askOperators gets what the server on this machine, whose --ops-addr and --ops-tls
// these are, has at a path.
func askOperators(ctx context.Context, addr string, overTLS bool, path string) (code int, body []byte, err error) {
	host, port, err := net.SplitHostPort(addr)
	if err != nil {
		return 0, nil, err
	}
	if ip := net.ParseIP(host); host == "" || ip != nil && ip.IsUnspecified() {
		host = "127.0.0.1" // What listens everywhere listens here.
	}
	ctx, cancel := context.WithTimeout(ctx, 2*time.Second)
	defer cancel()
	scheme := "http"
	if overTLS {
		scheme = "https"
	}
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, scheme+"://"+net.JoinHostPort(host, port)+path, nil)
	if err != nil {
		return 0, nil, err
	}
	// No proxy: it is this machine that is asked. It is told nothing, and its certificate is
	// made out to the names that others know it by.
	client := &http.Client{Transport: &http.Transport{
		DisableKeepAlives: true, TLSClientConfig: &tls.Config{InsecureSkipVerify: true}, //nolint:gosec // G402: as above.
	}}
	resp, err := client.Do(req)
	if err != nil {
		return 0, nil, err
	}
	defer func() { _ = resp.Body.Close() }()
	body, err = io.ReadAll(io.LimitReader(resp.Body, 1<<20))
	return resp.StatusCode, body, err
}

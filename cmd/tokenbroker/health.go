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
	host, port, err := net.SplitHostPort(c.OpsAddr)
	if err != nil {
		return err
	}
	if ip := net.ParseIP(host); host == "" || ip != nil && ip.IsUnspecified() {
		host = "127.0.0.1" // What listens everywhere listens here.
	}
	ctx, cancel := context.WithTimeout(ctx, 2*time.Second)
	defer cancel()
	scheme := "http"
	if c.OpsTLS {
		scheme = "https"
	}
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, scheme+"://"+net.JoinHostPort(host, port)+"/readyz", nil)
	if err != nil {
		return err
	}
	// No proxy: it is this machine that is asked. It is told nothing, and its certificate is
	// made out to the names that others know it by.
	client := &http.Client{Transport: &http.Transport{
		TLSClientConfig: &tls.Config{InsecureSkipVerify: true}, //nolint:gosec // G402: as above.
	}}
	resp, err := client.Do(req)
	if err != nil {
		return err
	}
	defer func() { _ = resp.Body.Close() }()
	body, _ := io.ReadAll(io.LimitReader(resp.Body, 1024))
	said := strings.TrimSpace(string(body))
	if resp.StatusCode != http.StatusOK {
		return fmt.Errorf("not ready: %s", said)
	}
	_, err = fmt.Fprintln(out.stdout, said)
	return err
}

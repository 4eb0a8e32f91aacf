// Command go lists the matters of some law firms, as a service does that calls
// Smokeball with tokens of the broker. It is made to be copied from.
package main

import (
	"context"
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"io"
	"net/http"
	"os"
	"os/signal"
	"syscall"
	"time"

	"smokeball.internal/tokenbroker/client"
)

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	if err := run(ctx, os.Args[1:], os.Stdout); err != nil {
		_, _ = fmt.Fprintln(os.Stderr, "Error:", err)
		os.Exit(1)
	}
}

func run(ctx context.Context, args []string, out io.Writer) error {
	flags := flag.NewFlagSet("go", flag.ContinueOnError)
	broker := flags.String("broker", "127.0.0.1:9090", "address of the token broker")
	if err := flags.Parse(args); err != nil {
		return err
	}
	tenants := flags.Args()
	if len(tenants) == 0 {
		tenants = []string{"tenants/acme", "tenants/globex"}
	}

	// One client for the whole service. WithInsecure is for a broker on this machine: in
	// production it is client.WithMTLS, client.WithSPIFFE, or client.WithTLS with client.WithJWTFile.
	tokens, err := client.New(ctx, *broker, client.WithInsecure())
	if err != nil {
		return err
	}
	defer func() { _ = tokens.Close() }()

	var failed []error
	for _, tenant := range tenants {
		// One http.Client for each firm, so that no request can carry another firm's
		// token. It is cheap: all share the connections of http.DefaultTransport.
		smokeball := &http.Client{
			Transport: &client.Transport{Source: tokens.TokenSource(tenant, client.WithScopes("matters/read"))},
			Timeout:   30 * time.Second,
		}
		err := listMatters(ctx, smokeball, tenant, out)
		switch reason := client.Reason(err); reason {
		case "TENANT_DISABLED", "TENANT_NOT_FOUND":
			_, _ = fmt.Fprintf(out, "%s is left out: %s\n", tenant, reason)
		default:
			failed = append(failed, err) // nil is none
		}
	}
	return errors.Join(failed...)
}

// listMatters prints the matters of the firm whose tokens smokeball has. Smokeball
// hands them out in pages, and says where the next one is.
func listMatters(ctx context.Context, smokeball *http.Client, tenant string, out io.Writer) error {
	// Without a host: the transport knows the region's, and the account's prefix.
	for url := "/matters?limit=2"; url != ""; {
		var page struct {
			Value []struct{ Number, Status, Description string }
			Next  struct{ HRef string }
		}
		if err := getJSON(ctx, smokeball, url, &page); err != nil {
			return fmt.Errorf("list the matters of %s: %w", tenant, err)
		}
		for _, m := range page.Value {
			_, _ = fmt.Fprintf(out, "%s %s %-7s %s\n", tenant, m.Number, m.Status, m.Description)
		}
		url = page.Next.HRef
	}
	return nil
}

// getJSON reads the answer to a GET request. A token that Smokeball rejects has been
// replaced once by the transport when a 401 arrives here: trying again does not help.
func getJSON(ctx context.Context, smokeball *http.Client, url string, into any) error {
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, url, nil)
	if err != nil {
		return err
	}
	resp, err := smokeball.Do(req)
	if err != nil {
		return err
	}
	defer func() { _ = resp.Body.Close() }()
	if resp.StatusCode != http.StatusOK {
		return fmt.Errorf("smokeball answers %s", resp.Status)
	}
	return json.NewDecoder(io.LimitReader(resp.Body, 8<<20)).Decode(into)
}

package client_test

import (
	"context"
	"fmt"
	"log"
	"net/http"
	"time"

	"smokeball.internal/tokenbroker/client"
)

// A service has one client, for as long as it runs.
func ExampleNew() {
	ctx, cancel := context.WithTimeout(context.Background(), 30*time.Second) // for the first identity
	defer cancel()
	broker, err := client.New(ctx, "tokenbroker.example:9090",
		client.WithSPIFFE("spiffe://prod.example/tokenbroker"),
		client.WithOpenTelemetry())
	if err != nil {
		log.Fatal(err)
	}
	defer func() { _ = broker.Close() }()
}

// A service that runs in Kubernetes, and has a projected service-account token.
func ExampleWithJWTFile() {
	broker, err := client.New(context.Background(), "tokenbroker.example:9090",
		client.WithTLS("/etc/tokenbroker/ca.pem"),
		client.WithJWTFile("/var/run/secrets/tokens/tokenbroker"))
	if err != nil {
		log.Fatal(err)
	}
	defer func() { _ = broker.Close() }()
}

// Requests to Smokeball name what they want below the tenant's account. Where that
// is, and which token it needs, the broker knows.
func ExampleTransport() {
	ctx := context.Background()
	broker, err := client.New(ctx, "localhost:9090", client.WithInsecure()) // as `tokenbroker dev` serves it
	if err != nil {
		log.Fatal(err)
	}
	defer func() { _ = broker.Close() }()

	smokeball := &http.Client{
		Transport: &client.Transport{Source: broker.TokenSource("tenants/acme")},
		Timeout:   30 * time.Second,
	}
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, "/matters?limit=10", nil)
	if err != nil {
		log.Print(err)
		return
	}
	resp, err := smokeball.Do(req)
	if err != nil {
		log.Print(err)
		return
	}
	defer func() { _ = resp.Body.Close() }()
	fmt.Println(resp.Status)
}

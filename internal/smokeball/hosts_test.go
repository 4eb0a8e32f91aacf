package smokeball_test

import (
	"strings"
	"testing"

	"smokeball.internal/tokenbroker/internal/smokeball"
	"smokeball.internal/tokenbroker/internal/tenant"
)

// Source: https://docs.smokeball.com, "Base URLs".
func TestHostsAreThoseSmokeballLists(t *testing.T) {
	places := map[smokeball.Place][2]string{
		{Region: tenant.US, Environment: tenant.Production}: {"https://auth.smokeball.com/oauth2/token", "https://api.smokeball.com"},
		{Region: tenant.US, Environment: tenant.Staging}:    {"https://datastaging-auth.smokeball.com/oauth2/token", "https://stagingapi.smokeball.com"},
		{Region: tenant.AU, Environment: tenant.Production}: {"https://auth.smokeball.com.au/oauth2/token", "https://api.smokeball.com.au"},
		{Region: tenant.AU, Environment: tenant.Staging}:    {"https://datastaging-auth.smokeball.com.au/oauth2/token", "https://stagingapi.smokeball.com.au"},
		{Region: tenant.UK, Environment: tenant.Production}: {"https://auth.smokeball.co.uk/oauth2/token", "https://api.smokeball.co.uk"},
		{Region: tenant.UK, Environment: tenant.Staging}:    {"https://datastaging-auth.smokeball.co.uk/oauth2/token", "https://stagingapi.smokeball.co.uk"},
	}
	if want := len(tenant.Regions()) * len(tenant.Environments()); len(places) != want {
		t.Fatalf("%d places are tested, and there are %d", len(places), want)
	}
	issuer := smokeball.New(nil)
	for place, want := range places {
		tn := &tenant.Tenant{Region: place.Region, Environment: place.Environment}
		if got := issuer.TokenEndpoint(tn); got != want[0] {
			t.Errorf("%s: the token endpoint is %s, want %s", place, got, want[0])
		}
		if got := issuer.APIBaseURL(tn); got != want[1] {
			t.Errorf("%s: the API is at %s, want %s", place, got, want[1])
		}
		tn.AccountID = "0f0e0d0c-0000-4000-8000-000000000001"
		if got := issuer.APIBaseURL(tn); got != want[1]+"/"+tn.AccountID {
			t.Errorf("%s: the API of an account is at %s, want %s/%s", place, got, want[1], tn.AccountID)
		}
		if got := issuer.TokenEndpoint(tn); got != want[0] {
			t.Errorf("%s: the token endpoint of an account is %s, want %s", place, got, want[0])
		}
	}
}

func TestOverrideMovesOneAddressOfOnePlaceOnly(t *testing.T) {
	place := smokeball.Place{Region: tenant.AU, Environment: tenant.Staging}
	const endpoint, api = "http://127.0.0.1:9092/au/staging/oauth2/token", "http://127.0.0.1:9092/au/staging/api"
	for _, account := range []string{"", "0f0e0d0c-0000-4000-8000-000000000001"} {
		for _, override := range []smokeball.Addresses{{}, {TokenEndpoint: endpoint}, {API: api}, {TokenEndpoint: endpoint, API: api}} {
			overridden, plain := smokeball.New(smokeball.Overrides{place: override}), smokeball.New(nil)
			for _, region := range tenant.Regions() {
				for _, environment := range tenant.Environments() {
					tn := &tenant.Tenant{Region: region, Environment: environment, AccountID: account}
					wantEndpoint, wantAPI := plain.TokenEndpoint(tn), plain.APIBaseURL(tn)
					if (smokeball.Place{Region: region, Environment: environment}) == place {
						if override.TokenEndpoint != "" {
							wantEndpoint = endpoint
						}
						if override.API != "" && account == "" {
							wantAPI = api
						} else if override.API != "" {
							wantAPI = api + "/" + account
						}
					}
					if got := overridden.TokenEndpoint(tn); got != wantEndpoint {
						t.Errorf("%v, %s/%s: the token endpoint is %s, want %s", override, region, environment, got, wantEndpoint)
					}
					if got := overridden.APIBaseURL(tn); got != wantAPI {
						t.Errorf("%v, %s/%s: the API is at %s, want %s", override, region, environment, got, wantAPI)
					}
				}
			}
		}
	}
}

func TestOverrideIsAPlaceAndAURL(t *testing.T) {
	for _, good := range []struct{ text, place, endpoint string }{
		{"us/production=https://auth.example/oauth2/token", "us/production", "https://auth.example/oauth2/token"},
		{"uk/staging=https://auth.example:8443/a/b", "uk/staging", "https://auth.example:8443/a/b"},
		{"au/production=https://10.0.0.1/oauth2/token", "au/production", "https://10.0.0.1/oauth2/token"},
		{"us/staging=http://127.0.0.1:9092/t", "us/staging", "http://127.0.0.1:9092/t"},
		{"us/staging=http://127.9.9.9/t", "us/staging", "http://127.9.9.9/t"},
		{"us/staging=http://[::1]:9092/t", "us/staging", "http://[::1]:9092/t"},
		{"us/staging=http://localhost:9092/t", "us/staging", "http://localhost:9092/t"},
		{"us/staging=https://auth.example/a=b", "us/staging", "https://auth.example/a=b"},
		{"us/staging=https://auth.example:65535/.well-known/a..b/...", "us/staging", "https://auth.example:65535/.well-known/a..b/..."},
		{"us/staging=https://auth.example/a%3Fb%23", "us/staging", "https://auth.example/a%3Fb%23"},
	} {
		place, endpoint, err := smokeball.ParseOverride(good.text)
		if err != nil || place.String() != good.place || endpoint != good.endpoint {
			t.Errorf("ParseOverride(%q) = %s, %q, %v", good.text, place, endpoint, err)
		}
	}
	for _, bad := range []struct{ name, text, said string }{
		{"nothing", "", "REGION/ENVIRONMENT=URL"},
		{"no URL", "us/production", "REGION/ENVIRONMENT=URL"},
		{"no place", "https://auth.example/oauth2/token", "REGION/ENVIRONMENT=URL"},
		{"no environment", "us=https://auth.example/oauth2/token", "REGION/ENVIRONMENT=URL"},
		{"unknown region", "nz/production=https://auth.example/t", "REGION/ENVIRONMENT=URL"},
		{"unknown environment", "us/test=https://auth.example/t", "REGION/ENVIRONMENT=URL"},
		{"capitals", "US/production=https://auth.example/t", "REGION/ENVIRONMENT=URL"},
		{"a space", " us/production=https://auth.example/t", "REGION/ENVIRONMENT=URL"},
		{"one part too many", "us/production/x=https://auth.example/t", "REGION/ENVIRONMENT=URL"},
		{"an empty URL", "us/production=", "scheme, host and path"},
		{"no scheme", "us/production=auth.example/t", "scheme, host and path"},
		{"no scheme, two slashes", "us/production=//auth.example/t", "https"},
		{"no host", "us/production=https:///t", "scheme, host and path"},
		{"a port alone", "us/production=https://:443/t", "scheme, host and path"},
		{"opaque", "us/production=https:auth.example", "scheme, host and path"},
		{"userinfo", "us/production=https://user:planted@auth.example/t", "scheme, host and path"},
		{"userinfo on loopback", "us/production=http://planted@127.0.0.1/t", "scheme, host and path"},
		{"a query", "us/production=https://auth.example/t?planted", "scheme, host and path"},
		{"a fragment", "us/production=https://auth.example/t#planted", "scheme, host and path"},
		{"an empty query", "us/production=https://auth.example?", "scheme, host and path"},
		{"an empty query after a path", "us/production=https://auth.example/t?", "scheme, host and path"},
		{"an empty fragment", "us/production=https://auth.example/t#", "scheme, host and path"},
		{"port 0", "us/production=https://auth.example:0", "port"},
		{"port 0, longer", "us/production=https://auth.example:00/t", "port"},
		{"port 0 on loopback", "us/production=http://[::1]:0/t", "port"},
		{"a port that is none", "us/production=https://auth.example:65536/t", "port"},
		{"up", "us/production=https://auth.example/planted/../t", `"." or ".."`},
		{"up, at the end", "us/production=https://auth.example/planted/..", `"." or ".."`},
		{"up, encoded", "us/production=https://auth.example/planted/%2E%2e/t", `"." or ".."`},
		{"here", "us/production=https://auth.example/./planted", `"." or ".."`},
		{"http", "us/production=http://auth.example/t", "loopback"},
		{"http to a private address", "us/production=http://10.0.0.1/t", "loopback"},
		{"http to every address", "us/production=http://0.0.0.0/t", "loopback"},
		{"http to a name that begins like loopback", "us/production=http://127.0.0.1.example/t", "loopback"},
		{"http to a name that begins like localhost", "us/production=http://localhost.example/t", "loopback"},
		{"another scheme", "us/production=ftp://127.0.0.1/t", "https"},
		{"a file", "us/production=file:///etc/passwd", "scheme, host and path"},
		{"a line break", "us/production=https://auth.example/planted\n", "not a URL"},
		{"a broken port", "us/production=https://auth.example:planted/t", "not a URL"},
		{"a password without a place", "https://user:planted@auth.example/t", "REGION/ENVIRONMENT=URL"},
		{"a password with a wrong place", "usa/production=https://user:planted@auth.example/t", "REGION/ENVIRONMENT=URL"},
	} {
		place, endpoint, err := smokeball.ParseOverride(bad.text)
		if err == nil {
			t.Errorf("%s: ParseOverride(%q) = %s, %q, want it refused", bad.name, bad.text, place, endpoint)
			continue
		}
		if place != (smokeball.Place{}) || endpoint != "" {
			t.Errorf("%s: %s, %q came with the error", bad.name, place, endpoint)
		}
		if !strings.Contains(err.Error(), bad.said) || strings.Contains(err.Error(), "planted") {
			t.Errorf("%s: the error is %q, want %q in it and no part of the URL", bad.name, err, bad.said)
		}
	}
}

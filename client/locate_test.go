package client_test

import (
	"fmt"
	"net/http"
	"net/url"
	"slices"
	"strings"
	"testing"
)

const (
	apiAddress     = "api.smokeball.com:443"
	storageAddress = "storage.example:443"
)

func TestWhereARequestGoes(t *testing.T) {
	t.Parallel()
	for _, test := range []struct{ base, url, address, host, uri string }{
		{account, "/matters?limit=1", apiAddress, "api.smokeball.com", "/ACCOUNT/matters?limit=1"},
		{account, "matters", apiAddress, "api.smokeball.com", "/ACCOUNT/matters"},
		{account, "?limit=1", apiAddress, "api.smokeball.com", "/ACCOUNT?limit=1"},
		{account, "/", apiAddress, "api.smokeball.com", "/ACCOUNT/"},
		{account, "/a%2Fb/c%20d/..e/f..", apiAddress, "api.smokeball.com", "/ACCOUNT/a%2Fb/c%20d/..e/f.."},
		{account, "/matters;a=..;b/;", apiAddress, "api.smokeball.com", "/ACCOUNT/matters;a=..;b/;"},
		{account + "/", "/matters#here", apiAddress, "api.smokeball.com", "/ACCOUNT/matters"},
		{api, "/matters", apiAddress, "api.smokeball.com", "/matters"},
		{api + ":8443", "/matters", "api.smokeball.com:8443", "api.smokeball.com:8443", "/matters"},
		{account, api + "/other/matters", apiAddress, "api.smokeball.com", "/other/matters"},
		{account, api + ":443/matters", apiAddress, "api.smokeball.com", "/matters"},
		{account, "HTTPS://API.Smokeball.COM/Matters", apiAddress, "api.smokeball.com", "/Matters"},
		{account, "https://me:Planted@api.smokeball.com/matters", apiAddress, "api.smokeball.com", "/matters"},
		{"http://127.0.0.1:8080", "/matters", "127.0.0.1:8080", "127.0.0.1:8080", "/matters"},
		{"http://localhost", "http://localhost:80/matters", "localhost:80", "localhost", "/matters"},
	} {
		t.Run(test.base+" "+test.url, func(t *testing.T) {
			t.Parallel()
			w, s := newWeb(t), newSource("first")
			s.tokens[0].APIBaseURL = test.base
			site := w.serve(test.address, nil)
			req := request(t, http.MethodGet, test.url, nil)
			req.Host = "front.example" // A request to the API has its host.
			req.Header["authorization"] = []string{"Bearer mine"}
			req.Header["x-api-key"] = []string{"mine"}
			resp, err := transport{s, w.base}.RoundTrip(req)
			if err != nil {
				t.Fatal(err)
			}
			read(t, resp)
			got := site.one(t)
			if got.host != test.host || got.uri != test.uri {
				t.Errorf("it went to %s, %s, want %s, %s", got.host, got.uri, test.host, test.uri)
			}
			if got.authorization != "Bearer first-token" || !slices.Equal(got.apiKey, []string{"key"}) {
				t.Errorf("it had %q and %q", got.authorization, got.apiKey)
			}
		})
	}
}

func TestTokenGoesToTheAPIOnly(t *testing.T) {
	t.Parallel()
	for url, address := range map[string]string{
		storage + "/file":                            storageAddress,
		"http://api.smokeball.com/matters":           "api.smokeball.com:80",
		"http://api.smokeball.com:443/matters":       apiAddress,
		api + ":8443/matters":                        "api.smokeball.com:8443",
		"https://api.smokeball.com./matters":         "api.smokeball.com.:443",
		"https://smokeball.com/matters":              "smokeball.com:443",
		"https://eu.api.smokeball.com/matters":       "eu.api.smokeball.com:443",
		"https://api.smokeball.com.example/matters":  "api.smokeball.com.example:443",
		"https://api.smokeball.com@storage.example/": storageAddress,
		"https://me:Planted@storage.example/":        storageAddress,
		"https://storage.example/?" + api:            storageAddress,
	} {
		t.Run(url, func(t *testing.T) {
			t.Parallel()
			w, s := newWeb(t), newSource("first", "second")
			site := w.serve(address, answers(http.StatusUnauthorized))
			req := request(t, http.MethodGet, url, nil)
			req.Header.Set("Authorization", "Bearer copied")
			req.Header["authorization"] = []string{"Bearer copied too"}
			req.Header.Set("X-API-Key", "copied")
			req.Header["x-api-key"] = []string{"copied too"}
			resp, err := (&http.Client{Transport: transport{s, w.base}}).Do(req)
			if err != nil {
				t.Fatal(err)
			}
			read(t, resp)
			if got := site.one(t); got.authorization != "" || len(got.apiKey) != 0 {
				t.Errorf("it had %q and %q", got.authorization, got.apiKey)
			}
			if resp.StatusCode != http.StatusUnauthorized || len(s.replacements()) != 0 {
				t.Errorf("after its %d, %q was replaced", resp.StatusCode, s.replacements())
			}
		})
	}
}

func TestRequestsThatCannotBeMade(t *testing.T) {
	t.Parallel()
	for name, test := range map[string]struct {
		base string
		url  *url.URL
		want string
	}{
		"no URL":               {account, nil, "no URL"},
		"up":                   {account, &url.URL{Path: "/../OTHER/matters"}, `segment ".."`},
		"up, later":            {account, &url.URL{Path: "/matters/../../OTHER"}, `segment ".."`},
		"up, at the end":       {account, &url.URL{Path: "matters/.."}, `segment ".."`},
		"up, encoded":          {account, parse(t, "/%2e%2e/OTHER"), `segment ".."`},
		"up, a slash encoded":  {account, parse(t, "/..%2FOTHER"), `segment ".."`},
		"here":                 {account, &url.URL{Path: "/./matters"}, `segment "."`},
		"up, a backslash":      {account, &url.URL{Path: `/x/..\..\OTHER`}, "backslash"},
		"up, one encoded":      {account, parse(t, "/..%5c..%5COTHER"), "backslash"},
		"a backslash":          {account, parse(t, "/matters%5Cfiles"), "backslash"},
		"up, a parameter":      {account, parse(t, "/..;/OTHER"), `segment ".."`},
		"up, a parameter set":  {account, parse(t, "/x/..;a=b/..%3B/OTHER"), `segment ".."`},
		"here, a parameter":    {account, parse(t, "/.%3b/matters"), `segment "."`},
		"a host, no scheme":    {account, parse(t, "//storage.example/file"), "a scheme and a host, or neither"},
		"a scheme, no host":    {account, &url.URL{Scheme: "https", Path: "/matters"}, "a scheme and a host, or neither"},
		"mail":                 {account, parse(t, "mailto:me@storage.example"), "is opaque"},
		"opaque":               {account, &url.URL{Scheme: "https", Host: "api.smokeball.com", Opaque: "//storage.example/"}, "is opaque"},
		"an API in plain text": {"http://api.smokeball.com", &url.URL{Path: "/matters"}, "neither https nor a loopback address"},
		"an API over FTP":      {"ftp://api.smokeball.com", &url.URL{Path: "/matters"}, "neither https nor a loopback address"},
		"no API":               {"", &url.URL{Path: "/matters"}, "the broker's API base URL is not one"},
		"an API without host":  {"/matters", &url.URL{Path: "/matters"}, "the broker's API base URL is not one"},
		"an API with a user":   {"https://Planted@api.smokeball.com", &url.URL{Path: "/matters"}, "the broker's API base URL is not one"},
		"a bad API":            {"https://api.smokeball.com:Planted", &url.URL{Path: "/matters"}, "the broker's API base URL is not one"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			w, s, content := newWeb(t), newSource("first"), newBody("content")
			s.tokens[0].APIBaseURL = test.base
			req := request(t, http.MethodPost, "/", content)
			req.URL = test.url
			resp, err := transport{s, w.base}.RoundTrip(req)
			if err == nil {
				t.Fatal(resp.Body.Close(), "it was made")
			}
			if !strings.Contains(err.Error(), test.want) || strings.Contains(err.Error(), "Planted") {
				t.Errorf("the error is %q, want %q in it", err, test.want)
			}
			if content.closed.Load() != 1 || w.dials != 0 {
				t.Errorf("the body was closed %d times, %d connections were made", content.closed.Load(), w.dials)
			}
		})
	}
}

func parse(t *testing.T, text string) *url.URL {
	t.Helper()
	u, err := url.Parse(text)
	if err != nil {
		t.Fatal(err)
	}
	return u
}

// What net/http does with a redirect, and what becomes of it.
func TestRedirects(t *testing.T) {
	t.Parallel()
	const token = "Bearer first-token"
	for name, test := range map[string]struct {
		locations map[string]string // :: ADDRESS/PATH → where that redirects to
		want      []string          // what was asked, each with whether the token was there
	}{
		"to another host": {map[string]string{apiAddress + "/ACCOUNT/file": storage + "/file"},
			[]string{apiAddress + "/ACCOUNT/file token", storageAddress + "/file"}},
		"to http": {map[string]string{apiAddress + "/ACCOUNT/file": "http://api.smokeball.com/file"},
			[]string{apiAddress + "/ACCOUNT/file token", "api.smokeball.com:80/file"}},
		"to another port": {map[string]string{apiAddress + "/ACCOUNT/file": api + ":8443/file"},
			[]string{apiAddress + "/ACCOUNT/file token", "api.smokeball.com:8443/file"}},
		"to another host, without a scheme": {map[string]string{apiAddress + "/ACCOUNT/file": "//storage.example/file"},
			[]string{apiAddress + "/ACCOUNT/file token", storageAddress + "/file"}},
		"to a host with a dot at its end": {map[string]string{apiAddress + "/ACCOUNT/file": "https://storage.example./file"},
			[]string{apiAddress + "/ACCOUNT/file token", "storage.example.:443/file"}},
		"to the API": {map[string]string{apiAddress + "/ACCOUNT/file": api + "/other/file"},
			[]string{apiAddress + "/ACCOUNT/file token", apiAddress + "/other/file token"}},
		"to a path of the host": {map[string]string{apiAddress + "/ACCOUNT/file": "/ACCOUNT/files/1"},
			[]string{apiAddress + "/ACCOUNT/file token", apiAddress + "/ACCOUNT/files/1 token"}},
		"to a path beside": {map[string]string{apiAddress + "/ACCOUNT/file": "files/1", apiAddress + "/ACCOUNT/files/1": "2", apiAddress + "/ACCOUNT/files/2": "../end"},
			[]string{apiAddress + "/ACCOUNT/file token", apiAddress + "/ACCOUNT/files/1 token", apiAddress + "/ACCOUNT/files/2 token", apiAddress + "/ACCOUNT/end token"}},
		"away, on, and back": {map[string]string{apiAddress + "/ACCOUNT/file": storage + "/file", storageAddress + "/file": "/end", storageAddress + "/end": api + "/back"},
			[]string{apiAddress + "/ACCOUNT/file token", storageAddress + "/file", storageAddress + "/end", apiAddress + "/back"}},
		"away, back, and on": {map[string]string{apiAddress + "/ACCOUNT/file": storage + "/file", storageAddress + "/file": api + "/back", apiAddress + "/back": "/end"},
			[]string{apiAddress + "/ACCOUNT/file token", storageAddress + "/file", apiAddress + "/back", apiAddress + "/end"}},
		"to http, and back": {map[string]string{apiAddress + "/ACCOUNT/file": "http://api.smokeball.com/file", "api.smokeball.com:80/file": api + "/back"},
			[]string{apiAddress + "/ACCOUNT/file token", "api.smokeball.com:80/file", apiAddress + "/back"}},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			w, s := newWeb(t), newSource("first")
			sites, asked := map[string]*site{}, make(chan string, 10)
			for _, address := range []string{apiAddress, storageAddress, "api.smokeball.com:80", "api.smokeball.com:8443", "storage.example.:443"} {
				sites[address] = w.serve(address, func(rw http.ResponseWriter, r *http.Request) {
					line := address + r.URL.Path
					if r.Header.Get("Authorization") == token && r.Header.Get("X-Api-Key") == "key" {
						line += " token"
					}
					asked <- line
					if location := test.locations[address+r.URL.Path]; location != "" {
						rw.Header().Set("Location", location)
						rw.WriteHeader(http.StatusTemporaryRedirect)
					}
				})
			}
			req := request(t, http.MethodPost, "/file", strings.NewReader("content"))
			req.Header.Set("Authorization", "Bearer mine") // net/http takes them along.
			req.Header.Set("X-Api-Key", "mine")
			resp, err := (&http.Client{Transport: transport{s, w.base}}).Do(req)
			if err != nil {
				t.Fatal(err)
			}
			read(t, resp)
			close(asked)
			var got []string
			for line := range asked {
				got = append(got, line)
			}
			if !slices.Equal(got, test.want) {
				t.Errorf("asked were\n%s\nwant\n%s", strings.Join(got, "\n"), strings.Join(test.want, "\n"))
			}
			for address, site := range sites {
				for _, a := range site.all() {
					if strings.Contains(fmt.Sprint(a), "mine") || a.body != "content" {
						t.Errorf("%s got %+v", address, a)
					}
				}
			}
		})
	}
}

// Who is asked without a token cannot choose what is done with it.
func TestStrangerWhoRedirectsToTheAPI(t *testing.T) {
	t.Parallel()
	w, s := newWeb(t), newSource("first", "second")
	site := w.serve(apiAddress, answers(http.StatusUnauthorized))
	w.serve(storageAddress, func(rw http.ResponseWriter, _ *http.Request) {
		rw.Header().Set("Location", api+"/ACCOUNT/matters/1")
		rw.WriteHeader(http.StatusTemporaryRedirect)
	})
	req := request(t, http.MethodDelete, storage+"/file", nil)
	req.Header.Set("X-Api-Key", "mine")
	resp, err := (&http.Client{Transport: transport{s, w.base}}).Do(req)
	if err != nil {
		t.Fatal(err)
	}
	read(t, resp)
	if got := site.one(t); got.authorization != "" || len(got.apiKey) != 0 {
		t.Errorf("%s %s had %q and %q", got.method, got.uri, got.authorization, got.apiKey)
	}
	if resp.StatusCode != http.StatusUnauthorized || len(s.replacements()) != 0 {
		t.Errorf("after its %d, %q was replaced", resp.StatusCode, s.replacements())
	}
}

// A redirect of which nobody can tell where it came from is as one from a stranger.
func TestRedirectFromNowhere(t *testing.T) {
	t.Parallel()
	for name, before := range map[string]*http.Response{
		"no request":      {},
		"no URL":          {Request: &http.Request{}},
		"a URL, no host":  {Request: &http.Request{URL: &url.URL{Path: "/file"}}},
		"a URL elsewhere": {Request: request(t, http.MethodGet, storage+"/file", nil)},
	} {
		for _, to := range []string{"/matters", account + "/matters"} {
			t.Run(name+", to "+to, func(t *testing.T) {
				w := newWeb(t)
				site := w.serve(apiAddress, nil)
				req := request(t, http.MethodGet, to, nil)
				req.Response = before
				resp, err := transport{newSource("first"), w.base}.RoundTrip(req)
				if err != nil {
					t.Fatal(err)
				}
				read(t, resp)
				if got := site.one(t); got.authorization != "" || len(got.apiKey) != 0 {
					t.Errorf("it had %q and %q", got.authorization, got.apiKey)
				}
			})
		}
	}
}

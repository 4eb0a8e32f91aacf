package client_test

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"reflect"
	"slices"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"smokeball.internal/tokenbroker/client"
)

func TestHeadersOfTheCaller(t *testing.T) {
	t.Parallel()
	w, s := newWeb(t), newSource("first")
	s.tokens[0].APIKey = "" // The caller has it from elsewhere.
	site := w.serve(apiAddress, nil)
	req := request(t, http.MethodGet, "/matters", nil)
	req.Header.Set("Authorization", "Bearer mine")
	req.Header.Set("X-Api-Key", "mine")
	req.Header.Set("Accept", "text/plain")
	resp, err := transport{s, w.base}.RoundTrip(req)
	if err != nil {
		t.Fatal(err)
	}
	read(t, resp)
	if got := site.one(t); got.authorization != "Bearer first-token" || !slices.Equal(got.apiKey, []string{"mine"}) {
		t.Errorf("it had %q and %q", got.authorization, got.apiKey)
	}
}

// http.RoundTripper: "RoundTrip should not modify the request, except for consuming
// and closing the Request's Body."
func TestRequestIsNotModified(t *testing.T) {
	t.Parallel()
	w := newWeb(t)
	w.serve(apiAddress, answers(http.StatusUnauthorized, http.StatusOK))
	w.serve(storageAddress, nil)
	for _, url := range []string{"/matters?limit=1", storage + "/file"} {
		req := request(t, http.MethodPost, url, strings.NewReader("content"))
		req.Header.Set("Authorization", "Bearer mine")
		req.Header["x-api-key"] = []string{"mine"}
		before := req.Clone(t.Context())
		resp, err := transport{newSource("first", "second"), w.base}.RoundTrip(req)
		if err != nil {
			t.Fatal(err)
		}
		read(t, resp)
		if !reflect.DeepEqual(req.Header, before.Header) || !reflect.DeepEqual(req.URL, before.URL) || req.Host != before.Host {
			t.Errorf("%s: it is %v, %s, %q, and was %v, %s, %q", url, req.Header, req.URL, req.Host, before.Header, before.URL, before.Host)
		}
	}
	if resp, err := (transport{newSource("first"), w.base}).RoundTrip(&http.Request{Method: http.MethodGet, URL: parse(t, "/matters")}); err != nil {
		t.Errorf("without headers: %v", err)
	} else {
		read(t, resp)
	}
}

// Who logs an answer logs no token.
func TestAnswerDoesNotTellTheToken(t *testing.T) {
	t.Parallel()
	w := newWeb(t)
	w.serve(apiAddress, answers(http.StatusUnauthorized, http.StatusOK))
	resp, err := (&http.Client{Transport: transport{newSource("first", "second"), w.base}}).Do(request(t, http.MethodGet, "/matters", nil))
	if err != nil {
		t.Fatal(err)
	}
	read(t, resp)
	if asked := resp.Request; asked.URL.String() != account+"/matters" || asked.Host != "api.smokeball.com" {
		t.Errorf("the request of the answer is to %s, %s", asked.Host, asked.URL)
	}
	if all := fmt.Sprint(resp.Request.Header, resp.Header); strings.Contains(all, "token") || strings.Contains(all, "key") {
		t.Errorf("the answer has %s", all)
	}
}

func TestRejectedToken(t *testing.T) {
	t.Parallel()
	const unauthorized, ok, forbidden = http.StatusUnauthorized, http.StatusOK, http.StatusForbidden
	broken := errors.New("broken")
	for name, test := range map[string]struct {
		answers  []int
		tokens   []string // that there are, one after the other
		refuses  error    // what Replace says
		change   func(*http.Request)
		status   int // of the answer
		says     string
		requests int
		replaced []string
	}{
		"no":                         {answers: []int{ok}, status: ok, says: "answer 1", requests: 1},
		"once":                       {answers: []int{unauthorized, ok}, status: ok, says: "answer 2", requests: 2, replaced: []string{"first"}},
		"for ever":                   {answers: []int{unauthorized}, status: unauthorized, says: "answer 2", requests: 2, replaced: []string{"first"}},
		"then something else":        {answers: []int{unauthorized, forbidden}, status: forbidden, says: "answer 2", requests: 2, replaced: []string{"first"}},
		"by 403":                     {answers: []int{forbidden, ok}, status: forbidden, says: "answer 1", requests: 1},
		"by 500":                     {answers: []int{500, ok}, status: 500, says: "answer 1", requests: 1},
		"and there is no other":      {answers: []int{unauthorized, ok}, tokens: []string{"first"}, status: unauthorized, says: "answer 1", requests: 1, replaced: []string{"first"}},
		"and there is no broker":     {answers: []int{unauthorized, ok}, refuses: broken, status: unauthorized, says: "answer 1", requests: 1, replaced: []string{"first"}},
		"without a body":             {answers: []int{unauthorized, ok}, change: func(r *http.Request) { r.Body, r.GetBody = nil, nil }, status: ok, says: "answer 2", requests: 2, replaced: []string{"first"}},
		"with a body of nothing":     {answers: []int{unauthorized, ok}, change: func(r *http.Request) { r.Body, r.GetBody = http.NoBody, nil }, status: ok, says: "answer 2", requests: 2, replaced: []string{"first"}},
		"with a body that is gone":   {answers: []int{unauthorized, ok}, change: func(r *http.Request) { r.GetBody = nil }, status: unauthorized, says: "answer 1", requests: 1, replaced: []string{"first"}},
		"with a body that is broken": {answers: []int{unauthorized, ok}, change: func(r *http.Request) { r.GetBody = func() (io.ReadCloser, error) { return nil, broken } }, status: unauthorized, says: "answer 1", requests: 1, replaced: []string{"first"}},
		"at the API's own address":   {answers: []int{unauthorized, ok}, change: func(r *http.Request) { r.URL = parse(t, api+"/matters") }, status: ok, says: "answer 2", requests: 2, replaced: []string{"first"}},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			if test.tokens == nil {
				test.tokens = []string{"first", "second", "third"}
			}
			w, s := newWeb(t), newSource(test.tokens...)
			s.refuses = test.refuses
			site := w.serve(apiAddress, answers(test.answers...))

			first, second := newBody("content"), newBody("content")
			req := request(t, http.MethodPost, "/matters", first)
			req.ContentLength = int64(len("content"))
			req.GetBody = func() (io.ReadCloser, error) { return second, nil }
			if test.change != nil {
				test.change(req)
			}
			hasBody, repeated := req.Body == first, test.requests == 2
			if req.Body == nil || req.Body == http.NoBody {
				req.ContentLength = 0
			}
			resp, err := transport{s, w.base}.RoundTrip(req)
			if err != nil {
				t.Fatal(err)
			}
			if says := read(t, resp); resp.StatusCode != test.status || says != test.says {
				t.Errorf("got %d, %q, want %d, %q", resp.StatusCode, says, test.status, test.says)
			}
			if replaced := s.replacements(); !slices.Equal(replaced, test.replaced) {
				t.Errorf("replaced were %q, want %q", replaced, test.replaced)
			}
			all := site.all()
			if len(all) != test.requests {
				t.Fatalf("%d requests, want %d", len(all), test.requests)
			}
			for i, a := range all {
				if want := "Bearer " + test.tokens[i] + "-token"; a.authorization != want || hasBody != (a.body == "content") {
					t.Errorf("request %d had %q and %q, want %q", i+1, a.authorization, a.body, want)
				}
			}
			if hasBody != (first.closed.Load() > 0) || (hasBody && repeated) != (second.closed.Load() > 0) {
				t.Errorf("the bodies were closed %d and %d times", first.closed.Load(), second.closed.Load())
			}
		})
	}
}

// An answer that is given up is not read to an end that it may not have.
func TestLongRefusal(t *testing.T) {
	t.Parallel()
	w := newWeb(t)
	left := make(chan struct{})
	w.serve(apiAddress, func(rw http.ResponseWriter, r *http.Request) {
		if r.Header.Get("Authorization") != "Bearer first-token" {
			return
		}
		rw.WriteHeader(http.StatusUnauthorized)
		for err := error(nil); err == nil; {
			_, err = rw.Write(make([]byte, 4<<10))
		}
		close(left)
	})
	resp, err := transport{newSource("first", "second"), w.base}.RoundTrip(request(t, http.MethodGet, "/matters", nil))
	if err != nil || resp.StatusCode != http.StatusOK {
		t.Fatalf("got %v, %v", resp, err)
	}
	read(t, resp)
	<-left // Its body was closed.
}

// Nor is its end waited for.
func TestRefusalThatDoesNotEnd(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		w := newWeb(t)
		w.serve(apiAddress, func(rw http.ResponseWriter, r *http.Request) {
			if r.Header.Get("Authorization") != "Bearer first-token" {
				return
			}
			rw.WriteHeader(http.StatusUnauthorized)
			_ = http.NewResponseController(rw).Flush()
			<-r.Context().Done()
		})
		ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
		defer cancel()
		began := time.Now()
		resp, err := transport{newSource("first", "second"), w.base}.RoundTrip(request(t, http.MethodGet, "/matters", nil).WithContext(ctx))
		if err != nil {
			t.Fatalf("after %v: %v", time.Since(began), err)
		}
		read(t, resp)
		if took := time.Since(began); resp.StatusCode != http.StatusOK || took > 0 {
			t.Errorf("got %d after %v", resp.StatusCode, took)
		}
		w.base.CloseIdleConnections()
	})
}

func TestManyAreRejectedAtOnce(t *testing.T) {
	t.Parallel()
	w, s := newWeb(t), newSource("first", "second", "third")
	w.serve(apiAddress, func(rw http.ResponseWriter, r *http.Request) {
		if r.Header.Get("Authorization") != "Bearer second-token" {
			rw.WriteHeader(http.StatusUnauthorized)
		}
	})
	smokeball := &http.Client{Transport: transport{s, w.base}}
	var all sync.WaitGroup
	for range 50 {
		all.Go(func() {
			resp, err := smokeball.Post("/matters", "text/plain", strings.NewReader("content"))
			if err != nil {
				t.Error(err)
				return
			}
			if read(t, resp); resp.StatusCode != http.StatusOK {
				t.Errorf("got %d", resp.StatusCode)
			}
		})
	}
	all.Wait()
	for _, id := range s.replacements() {
		if id != "first" {
			t.Errorf("%s was replaced", id)
		}
	}
}

func TestNoTokenNoRequest(t *testing.T) {
	t.Parallel()
	w := newWeb(t)
	for want, rt := range map[string]http.RoundTripper{
		"there is none": transport{&source{wait: func(context.Context) error { return errors.New("there is none") }}, w.base},
		"has no Source": &client.Transport{Base: w.base},
	} {
		t.Run(want, func(t *testing.T) {
			content := newBody("content")
			resp, err := rt.RoundTrip(request(t, http.MethodPost, "/matters", content))
			if err == nil {
				t.Fatal(resp.Body.Close(), "it was made")
			}
			if !strings.Contains(err.Error(), want) || content.closed.Load() != 1 || w.dials != 0 {
				t.Errorf("the error is %q, the body was closed %d times, %d connections were made", err, content.closed.Load(), w.dials)
			}
		})
	}
}

func TestErrorsOfTheSourceAreThere(t *testing.T) {
	t.Parallel()
	away := errors.New("away")
	_, err := transport{&source{wait: func(context.Context) error { return away }}, newWeb(t).base}.RoundTrip(request(t, http.MethodGet, "/matters", nil)) //nolint:bodyclose // There is none.
	if !errors.Is(err, away) || !strings.HasPrefix(err.Error(), "token broker: ") {
		t.Errorf("the error is %v", err)
	}
}

func TestAPIThatIsAway(t *testing.T) {
	t.Parallel()
	w, s := newWeb(t), newSource("first", "second")
	content := newBody("content")
	if _, err := (transport{s, w.base}).RoundTrip(request(t, http.MethodPost, "/matters", content)); err == nil || content.closed.Load() == 0 { //nolint:bodyclose // There is none.
		t.Errorf("the error is %v, and the body was closed %d times", err, content.closed.Load())
	}
	w.serve(apiAddress, func(rw http.ResponseWriter, r *http.Request) {
		if r.Header.Get("Authorization") == "Bearer first-token" {
			rw.WriteHeader(http.StatusUnauthorized)
			return
		}
		panic(http.ErrAbortHandler)
	})
	if resp, err := (transport{s, w.base}).RoundTrip(request(t, http.MethodPost, "/matters", strings.NewReader("content"))); err == nil {
		t.Errorf("got %d when it went away for the second request", resp.StatusCode)
		_ = resp.Body.Close()
	}
}

func TestCallerLeaves(t *testing.T) {
	t.Parallel()
	hangs := func(ctx context.Context) error {
		<-ctx.Done()
		return ctx.Err()
	}
	for name, set := range map[string]func(*web, *source){
		"while there is no token": func(_ *web, s *source) { s.wait = hangs },
		"while the API thinks": func(w *web, _ *source) {
			w.serve(apiAddress, func(_ http.ResponseWriter, r *http.Request) { _ = hangs(r.Context()) })
		},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			synctest.Test(t, func(t *testing.T) {
				w, s, content := newWeb(t), newSource("first"), newBody("content")
				set(w, s)
				ctx, cancel := context.WithTimeout(t.Context(), time.Second)
				defer cancel()
				began := time.Now()
				_, err := transport{s, w.base}.RoundTrip(request(t, http.MethodPost, "/matters", content).WithContext(ctx)) //nolint:bodyclose // There is none.
				if took := time.Since(began); !errors.Is(err, context.DeadlineExceeded) || took != time.Second {
					t.Errorf("it took %v, and ended with %v", took, err)
				}
				synctest.Wait()
				if content.closed.Load() == 0 {
					t.Error("the body was not closed")
				}
				w.base.CloseIdleConnections()
			})
		})
	}
}

func TestDefaultTransport(t *testing.T) {
	t.Parallel()
	server := httptest.NewServer(answers(http.StatusOK))
	defer server.Close()
	s := newSource("first")
	s.tokens[0].APIBaseURL = server.URL
	resp, err := client.RoundTrip(s, nil, request(t, http.MethodGet, "/matters", nil))
	if err != nil {
		t.Fatal(err)
	}
	if says := read(t, resp); says != "answer 1" {
		t.Errorf("got %q", says)
	}
}

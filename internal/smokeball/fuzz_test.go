package smokeball_test

import (
	"math/big"
	"net/http"
	"net/url"
	"slices"
	"strings"
	"testing"
	"time"

	"smokeball.internal/tokenbroker/internal/smokeball"
	"smokeball.internal/tokenbroker/internal/token"
)

// FuzzAnswer interprets whatever an issuer may answer. Each "§" in the input stands for an access token, so that the
// fuzzer moves whole tokens about, to places they must not be repeated from.
func FuzzAnswer(f *testing.F) {
	const (
		planted  = "eyPLANTED.PLANTED.PLANTED"
		jsonType = "application/json;charset=UTF-8"
		date     = "Sat, 01 Jan 2000 00:00:00 GMT"
		id       = "0a1b2c3d-0a1b-0a1b-0a1b-0a1b2c3d4e5f"
	)
	f.Add(200, `{"access_token":"§","expires_in":3600,"token_type":"Bearer"}`, jsonType, date, "", "", id)
	f.Add(200, `{"access_token":"§","expires_in":"1e400","token_type":"bearer","scope":"b a b"}`, jsonType, "", "9", "", id)
	f.Add(200, `{"access_token":"`+jwt(`{"exp":946684860}`)+`","token_type":"Bearer"}`, jsonType, date, "", "", "")
	f.Add(200, `{"access_token":"`+jwt(`{"exp":1e18}`)+`","expires_in":-1,"token_type":"Bearer"}`, jsonType, date, "5", "", "")
	f.Add(200, `{"access_token":"§\r\nX: y","token_type":"Bearer"}`, "", "", "", "", "")
	f.Add(200, `{"access_token":"§`, "text/§", "§", "§", "§", "§")
	f.Add(200, `{"access_token":"`+jwt(`{"client_id":"acme-client","token_use":"access","scope":"b"}`)+`","token_type":"Bearer","scope":"a"}`, jsonType, date, "", "", id)
	f.Add(200, `{"access_token":"`+jwt(`{"client_id":"§","token_use":"§","scope":"§"}`)+`","token_type":"Bearer"}`, jsonType, date, "", "", id)
	f.Add(200, `{"access_token":"x","token_type":"Bearer","scope":"a c"}`, jsonType, date, "", "", id)
	f.Add(400, `{"error":"§"}`, jsonType, date, "", "", id)
	f.Add(400, `{"error":"invalid_client","error_description":"§"}`, jsonType, date, "", "", id+"§")
	f.Add(400, `{"__type":"§TooManyRequestsException"}`, jsonType, date, "", "1", "")
	f.Add(403, `<html>§</html>`, "text/html", "", "", "", "")
	f.Add(429, `Rate exceeded §`, "text/plain", date, "", "Sat, 01 Jan 2000 00:00:01 GMT", "")
	f.Add(503, ``, "", date, "", "99999999999999999999", "")
	f.Add(307, `§`, "", date, "", "Fri, 31 Dec 9999 23:59:59 GMT", "")

	classes := []token.Class{
		token.CredentialsRejected, token.GrantRejected, token.ScopeRejected, token.Throttled, token.Blocked, token.Unavailable, token.Malformed,
	}
	sent := time.Date(2026, 3, 1, 12, 0, 0, 0, time.UTC)
	c := credential("a", "b")
	f.Fuzz(func(t *testing.T, status int, body, contentType, date, age, retryAfter, requestID string) {
		plant := func(s string) string { return strings.ReplaceAll(s, "§", planted) }
		resp := &http.Response{
			StatusCode: status,
			Header: http.Header{
				"Content-Type": {plant(contentType)}, "Date": {plant(date)}, "Age": {plant(age)},
				"Retry-After": {plant(retryAfter)}, "X-Amz-Cognito-Request-Id": {plant(requestID)},
			},
			Request: &http.Request{URL: &url.URL{Scheme: "https", Host: "auth.example"}},
		}
		tok, failure := smokeball.Interpret(resp, []byte(plant(body)), c, sent)
		if (tok == nil) == (failure == nil) {
			t.Fatalf("token %v, failure %v: want one of them", tok, failure)
		}
		if failure != nil {
			text := failure.Error()
			if strings.Contains(text, "PLANTED") || len(text) > 300 || strings.ContainsFunc(text, func(r rune) bool { return r < ' ' || r > '~' }) {
				t.Errorf("the error is %q", text)
			}
			if !slices.Contains(classes, failure.Class) || failure.RetryAfter < 0 {
				t.Errorf("class %q, RetryAfter %v", failure.Class, failure.RetryAfter)
			}
			return
		}
		if status != http.StatusOK {
			t.Errorf("status %d brought a token", status)
		}
		if life := tok.Lifetime(); life < 0 || life > 24*time.Hour || !tok.Issued.Equal(sent) {
			t.Errorf("the token lives %v from %v", life, tok.Issued)
		}
		text := tok.AccessToken.Reveal()
		if text == "" || strings.ContainsFunc(text, func(r rune) bool { return r <= ' ' || r > '~' }) {
			t.Errorf("the access token is %q", text)
		}
		if tok.ID != token.ID(tok.AccessToken) {
			t.Errorf("ID %q does not name the token", tok.ID)
		}
		if !slices.Equal(tok.Scopes, token.CanonicalScopes(tok.Scopes)) {
			t.Errorf("Scopes = %q are not canonical", tok.Scopes)
		}
		for _, scope := range tok.Scopes {
			if !slices.Contains(c.Scopes, scope) {
				t.Errorf("scope %q was not asked for", scope)
			}
		}
	})
}

// FuzzRetryAfter reads what an issuer may say of when to come back, by its own clock where it shows one.
func FuzzRetryAfter(f *testing.F) {
	const date = "Sat, 01 Jan 2000 00:00:00 GMT"
	for _, value := range []string{
		"", "0", "1", "3600", "3601", "007", "-1", "+1", "1.5", "1e3", " 1", "1 ", "0x10", "9223372036854775807", "9223372036854775808", "99999999999999999999999",
		"Sat, 01 Jan 2000 00:00:01 GMT", "Sat, 01 Jan 2000 01:00:01 GMT", "Fri, 31 Dec 1999 23:59:59 GMT", "Fri, 31 Dec 9999 23:59:59 GMT",
		"Saturday, 01-Jan-00 00:01:00 GMT", "Sat Jan  1 00:01:00 2000", "Mon, 01 Jan 0001 00:00:00 GMT", "soon",
	} {
		f.Add(value, date)
		f.Add(value, "")
	}
	c := credential()
	f.Fuzz(func(t *testing.T, value, date string) {
		resp := &http.Response{
			StatusCode: http.StatusTooManyRequests,
			Header:     http.Header{"Retry-After": {value}, "Date": {date}},
			Request:    &http.Request{URL: &url.URL{Scheme: "https", Host: "auth.example"}},
		}
		_, failure := smokeball.Interpret(resp, nil, c, time.Now())
		if failure == nil || failure.Class != token.Throttled {
			t.Fatalf("the failure is %v", failure)
		}
		got := failure.RetryAfter
		if got < 0 || got > token.MaxRetryAfter {
			t.Errorf("RetryAfter = %v", got)
		}
		seconds, isNumber := new(big.Int).SetString(value, 10)
		isNumber = isNumber && !strings.ContainsAny(value, "+-_")
		at, notADate := http.ParseTime(value)
		now, notShown := http.ParseTime(date)
		want := time.Duration(0)
		switch {
		case isNumber && seconds.BitLen() <= 63:
			want = time.Duration(min(seconds.Int64(), 3600)) * time.Second
		case notADate == nil && notShown == nil && at.After(now):
			want = min(at.Sub(now), time.Hour)
		case notADate == nil && notShown != nil:
			return // By the clock here.
		}
		if got != want {
			t.Errorf("RetryAfter of %q at %q = %v, want %v", value, date, got, want)
		}
	})
}

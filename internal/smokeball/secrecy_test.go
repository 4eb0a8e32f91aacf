package smokeball_test

import (
	"encoding/base64"
	"errors"
	"fmt"
	"net/http"
	"strings"
	"testing"

	"smokeball.internal/tokenbroker/internal/token"
)

// wantNothingPlanted fails if err shows anything of what was planted. The issuer of these tests plants in all it sends.
func wantNothingPlanted(t *testing.T, err error) {
	t.Helper()
	if err == nil {
		t.Fatal("there is no error")
	}
	basic := base64.StdEncoding.EncodeToString([]byte(clientID + ":" + clientSecret))
	for _, text := range []string{err.Error(), fmt.Sprintf("%v %+v %s %q", err, err, err, err), fmt.Sprintf("%x", err)} {
		for _, secret := range []string{"lanted", fmt.Sprintf("%x", "lanted"), "e30.", clientSecret, basic, "evil.example"} {
			if strings.Contains(text, secret) {
				t.Errorf("the error shows %q: %s", secret, text)
			}
		}
	}
	// The causes are not printed, and may quote the other side; but what we sent is in none of them.
	for cause := err; cause != nil; cause = errors.Unwrap(cause) {
		for _, secret := range []string{clientSecret, basic} {
			if strings.Contains(cause.Error(), secret) {
				t.Errorf("a cause shows %q: %v", secret, cause)
			}
		}
	}
}

func TestErrorShowsNothingThatTheIssuerSent(t *testing.T) {
	headers := []string{
		"Content-Type", "text/planted", "X-Amz-Cognito-Request-Id", "planted", "Www-Authenticate", `Basic realm="planted"`,
		"Retry-After", "planted", "Date", "planted", "Server", "planted", "Location", "https://evil.example/planted",
		"Content-Encoding", "planted", "Set-Cookie", "planted=planted",
	}
	bodies := map[string]string{
		"an unknown error":           `{"error":"planted","error_description":"planted"}`,
		"an error that is a token":   `{"error":"planted","access_token":"planted","token_type":"Bearer"}`,
		"a known error, described":   `{"error":"invalid_client","error_description":"planted","error_uri":"https://planted"}`,
		"an error of AWS":            `{"__type":"PlantedException","message":"planted"}`,
		"a throttle of AWS":          `{"__type":"PlantedTooManyRequestsException","message":"planted"}`,
		"JSON cut off in the token":  `{"token_type":"Bearer","access_token":"planted`,
		"JSON with a bad escape":     `{"access_token":"planted\x","token_type":"Bearer"}`,
		"a token where none belongs": `{"access_token":{"planted":"planted"},"token_type":"Bearer"}`,
		"a field of another type":    `{"access_token":"planted","token_type":"Bearer","scope":["planted"]}`,
		"another kind of token":      `{"access_token":"planted","token_type":"planted"}`,
		"a token with a line break":  `{"access_token":"planted\r\nplanted","token_type":"Bearer"}`,
		"a token that has expired":   `{"access_token":"` + jwt(`{"exp":1,"jti":"planted"}`) + `","token_type":"Bearer"}`,
		"HTML":                       `<html>planted</html>`,
		"text":                       `planted`,
		"what we sent":               clientSecret + " " + base64.StdEncoding.EncodeToString([]byte(clientID+":"+clientSecret)),
		"too much":                   strings.Repeat("planted", 50_000),
	}
	for name, body := range bodies {
		t.Run(name, func(t *testing.T) {
			for _, status := range []int{200, 302, 400, 401, 403, 404, 429, 500, 503} {
				header := headers
				if strings.HasSuffix(name, "expired") {
					header = append(headers[:len(headers):len(headers)], "Date", httpDate(0))
				}
				bubble(t, answers(says(status, body, header...)), func(t *testing.T, n *network) {
					_, err := n.exchange()
					wantNothingPlanted(t, err)
				})
			}
		})
	}
}

func TestErrorOfTheTransportShowsNothingThatTheIssuerSent(t *testing.T) {
	for name, text := range map[string]string{
		"no HTTP":            "planted planted planted\r\n\r\n",
		"a bad version":      "HTTP/planted 200 OK\r\n\r\n",
		"a bad status":       "HTTP/1.1 planted OK\r\n\r\n",
		"a bad header":       "HTTP/1.1 200 OK\r\nplanted planted\r\n\r\n",
		"a bad length":       "HTTP/1.1 200 OK\r\nContent-Length: planted\r\n\r\n",
		"a bad encoding":     "HTTP/1.1 200 OK\r\nTransfer-Encoding: planted\r\n\r\n",
		"a bad chunk":        "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\nplanted\r\n",
		"a bad location":     "HTTP/1.1 302 Found\r\nLocation: http://[planted\r\nContent-Length: 0\r\n\r\n",
		"a location missing": "HTTP/1.1 302 Found\r\nX: planted\r\nContent-Length: 0\r\n\r\n",
		"a broken off body":  "HTTP/1.1 200 OK\r\nContent-Length: 999\r\n\r\n{\"access_token\":\"planted",
	} {
		t.Run(name, func(t *testing.T) {
			bubble(t, answers(raw(text)), func(t *testing.T, n *network) {
				_, err := n.exchange()
				wantNothingPlanted(t, err)
			})
		})
	}
}

func TestErrorNamesTheRequestAndTheKindOfAnswer(t *testing.T) {
	const id = "0a1b2c3d-0a1b-0a1b-0a1b-0A1B2C3D4E5F"
	for _, test := range []struct{ contentType, id, want string }{
		{"application/json;charset=UTF-8", id, "(status 400, application/json, request " + id + ")"},
		{"Text/HTML; charset=x", "", "(status 400, text/html)"},
		{"", id, "(status 400, request " + id + ")"},
		{"text/" + accessToken, accessToken, "(status 400)"},
		{"no type", id + id, "(status 400)"},
	} {
		answer := says(400, `{"error":"invalid_client"}`, "Content-Type", test.contentType, "X-Amz-Cognito-Request-Id", test.id)
		bubble(t, answers(answer), func(t *testing.T, n *network) {
			f := n.failure(token.CredentialsRejected)
			if want := "credentials_rejected: auth.example answers invalid_client " + test.want; f.Error() != want {
				t.Errorf("the error is %q, want %q", f.Error(), want)
			}
		})
	}
}

func TestRedirectIsNotFollowed(t *testing.T) {
	for _, status := range []int{301, 302, 303, 307, 308} {
		for _, location := range []string{"http://evil.example/oauth2/token", "http://auth.example/other", "/other"} {
			t.Run(fmt.Sprint(status, " to ", location), func(t *testing.T) {
				s := answers(says(status, "", "Location", location), sold(accessToken))
				elsewhere := answers(sold(accessToken))
				bubble(t, s, func(t *testing.T, n *network) {
					n.serve("evil.example:80", elsewhere)
					wantSaid(t, n.failure(token.Malformed), "redirect, which is not followed")
				})
				wantRequests(t, s, 1)
				wantRequests(t, elsewhere, 0)
			})
		}
	}
}

// 307 and 308 would repeat the body, and on the same host the Authorization header too.
func TestRedirectWithATokenInItIsStillARedirect(t *testing.T) {
	body := `{"access_token":"x","expires_in":3600,"token_type":"Bearer"}`
	bubble(t, answers(says(http.StatusTemporaryRedirect, body, "Location", "/")), func(_ *testing.T, n *network) {
		n.failure(token.Malformed)
	})
}

func TestEndpointThatIsNoneIsSaidWithoutQuotingIt(t *testing.T) {
	for _, bad := range []string{"http://auth.example/\x00planted", "http://user:planted@[::1", "http://[planted"} {
		bubble(t, answers(sold(accessToken)), func(t *testing.T, n *network) {
			c := credential()
			c.Endpoint = bad
			tok, err := n.issuer.Exchange(t.Context(), c)
			wantFailure(t, tok, err, token.Unavailable)
			wantNothingPlanted(t, err)
		})
	}
}

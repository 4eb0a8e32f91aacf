package simulator

import (
	"cmp"
	"context"
	"encoding/json"
	"net"
	"net/http"
	"strconv"
	"strings"
	"time"
)

const (
	jsonType = "application/json;charset=UTF-8"

	wafPage = `<!DOCTYPE HTML PUBLIC "-//W3C//DTD HTML 4.01 Transitional//EN" "http://www.w3.org/TR/html4/loose.dtd">
<HTML><HEAD><TITLE>ERROR: The request could not be satisfied</TITLE></HEAD>
<BODY><H1>403 ERROR</H1><H2>The request could not be satisfied.</H2><HR>Request blocked.</BODY></HTML>
`
)

// tokenResponse has the fields and the order of Cognito's. There is never a refresh token for this grant.
type tokenResponse struct {
	Padding     string          `json:"padding,omitempty"`
	AccessToken string          `json:"access_token,omitempty"`
	ExpiresIn   json.RawMessage `json:"expires_in,omitempty"`
	TokenType   string          `json:"token_type"`
}

// serveToken is the token endpoint. The exchange is decided before any delay, so a token ages, and is paid for, while
// its answer is held back.
func (s *Simulator) serveToken(w http.ResponseWriter, r *http.Request) {
	request := readTokenRequest(w, r)
	fault, granted := s.receive(&request)
	switch {
	case s.unanswered(w, r, fault):
	case fault.Kind.inFront():
		answerInFront(w, fault)
	case granted.code == serverError:
		answerJSON(w, http.StatusInternalServerError, errorBody(granted.code))
	case granted.code != "":
		answerJSON(w, http.StatusBadRequest, errorBody(granted.code))
	default:
		answerToken(w, fault, granted)
	}
}

// unanswered holds the request back for as long as the fault wants, and reports whether that was its end: if the fault
// lets it have no answer, or its client has left.
func (s *Simulator) unanswered(w http.ResponseWriter, r *http.Request, f Fault) bool {
	over := f.Delay > 0 && !s.wait(r.Context(), f.Delay)
	switch {
	case over, f.Kind == KindReset:
	case f.Kind == KindHang:
		s.wait(r.Context(), 0)
	default:
		return false
	}
	cut(w)
	return true
}

// wait returns after d, or for d == 0 never, and in any case as soon as the client leaves or the simulator is closed.
// It reports whether the client is still there.
func (s *Simulator) wait(ctx context.Context, d time.Duration) bool {
	var over <-chan time.Time
	if d > 0 {
		timer := time.NewTimer(d)
		defer timer.Stop()
		over = timer.C
	}
	select {
	case <-ctx.Done():
		return false
	case <-over:
	case <-s.closed:
	}
	return true
}

// cut ends the connection without an answer, with a TCP reset where there is TCP. A writer that cannot do that (HTTP/2,
// a recorder) gets 503: returning without an answer would look like an empty 200.
func cut(w http.ResponseWriter) {
	conn, _, err := http.NewResponseController(w).Hijack()
	if err != nil {
		w.WriteHeader(http.StatusServiceUnavailable)
		return
	}
	if tcp, ok := conn.(*net.TCPConn); ok {
		_ = tcp.SetLinger(0) // failing, the connection is closed in the ordinary way
	}
	_ = conn.Close()
}

// answerInFront writes the answer of something between the client and the issuer.
func answerInFront(w http.ResponseWriter, f Fault) {
	header := w.Header()
	switch f.Kind {
	case KindStatus:
		if f.RetryAfter != "" {
			header.Set("Retry-After", f.RetryAfter)
		}
		answer(w, f.Status, contentType(f), f.Body)
	case KindWAF:
		header.Set("Server", "CloudFront")
		header.Set("X-Cache", "Error from cloudfront")
		answer(w, http.StatusForbidden, "text/html", wafPage)
	case KindRedirect:
		header.Set("Location", f.Location)
		w.WriteHeader(cmp.Or(f.Status, http.StatusFound))
	case KindGarbage:
		answer(w, http.StatusOK, jsonType, cmp.Or(f.Body, `{"access_token":`))
	case KindErrorIn200:
		answer(w, http.StatusOK, jsonType, cmp.Or(f.Body, errorBody(serverError)))
	case KindNoToken:
		answer(w, http.StatusOK, jsonType, `{"expires_in":3600,"token_type":"Bearer"}`)
	default: // KindEmpty
		answer(w, http.StatusOK, jsonType, "")
	}
}

// answerToken writes the issuer's token response, distorted by the fault.
func answerToken(w http.ResponseWriter, f Fault, g grant) {
	response := tokenResponse{
		AccessToken: g.token,
		ExpiresIn:   json.RawMessage(strconv.FormatInt(g.lifetime, 10)),
		TokenType:   cmp.Or(f.TokenType, "Bearer"),
	}
	if f.Kind == KindExpiresIn {
		response.ExpiresIn = f.ExpiresIn
		if string(f.ExpiresIn) == Omitted {
			response.ExpiresIn = nil
		}
	}
	if f.Kind == KindOversize {
		response.Padding = strings.Repeat("x", cmp.Or(f.Size, defaultOversize))
	}
	body, err := json.Marshal(response)
	if err != nil {
		answerJSON(w, http.StatusInternalServerError, errorBody(serverError))
		return
	}
	if f.Kind == KindTruncate {
		// net/http cuts a connection on which less than the announced length was written.
		w.Header().Set("Content-Length", strconv.Itoa(len(body)))
		body = body[:len(body)/2]
	}
	answerJSON(w, http.StatusOK, string(body))
}

// answerJSON writes an answer of the issuer itself, with the headers it gives all of them.
func answerJSON(w http.ResponseWriter, status int, body string) {
	header := w.Header()
	header.Set("Cache-Control", "no-store")
	header.Set("Pragma", "no-cache")
	header.Set("X-Amz-Cognito-Request-Id", newUUID())
	answer(w, status, jsonType, body)
}

func answer(w http.ResponseWriter, status int, contentType, body string) {
	w.Header().Set("Content-Type", contentType)
	w.WriteHeader(status)
	_, _ = w.Write([]byte(body)) // a client that has left misses its answer
}

func errorBody(code string) string { return `{"error":"` + code + `"}` }

func contentType(f Fault) string {
	if f.ContentType == "" && !json.Valid([]byte(f.Body)) {
		return "text/plain; charset=utf-8"
	}
	return cmp.Or(f.ContentType, jsonType)
}

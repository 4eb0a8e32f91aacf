package smokeball_test

import (
	"context"
	"errors"
	"io"
	"net"
	"net/http"
	"testing"
	"time"

	"smokeball.internal/tokenbroker/internal/smokeball"
	"smokeball.internal/tokenbroker/internal/token"
)

// gaps are the times between the requests that a script was asked.
func gaps(s *script) []time.Duration {
	var between []time.Duration
	requests := s.requests()
	for i := 1; i < len(requests); i++ {
		between = append(between, requests[i].at.Sub(requests[i-1].at))
	}
	return between
}

func TestFailureThatMayPassIsTriedAgain(t *testing.T) {
	for name, passing := range map[string]http.HandlerFunc{
		"503": says(503, ""), "a lost connection": raw(""), "an answer that broke off": says(200, `{"access_token":`),
	} {
		t.Run(name, func(t *testing.T) {
			s := answers(passing, sold(accessToken))
			bubble(t, s, func(_ *testing.T, n *network) { n.token() })
			wantRequests(t, s, 2)
		})
	}
}

func TestThirdFailureIsTheLast(t *testing.T) {
	s := answers(says(503, ""), says(502, ""), says(500, ""), sold(accessToken))
	bubble(t, s, func(t *testing.T, n *network) { wantSaid(t, n.failure(token.Unavailable), "status 500") })
	wantRequests(t, s, 3)
}

func TestWaitBetweenAttemptsGrowsAndIsNeverTheSame(t *testing.T) {
	seen := map[time.Duration]bool{}
	for range 10 {
		s := answers(says(503, ""))
		bubble(t, s, func(_ *testing.T, n *network) { n.failure(token.Unavailable) })
		for i, gap := range gaps(s) {
			most := 250 * time.Millisecond << i
			if gap < most/2 || gap > most {
				t.Errorf("wait %d is %v, want it between %v and %v", i+1, gap, most/2, most)
			}
			seen[gap] = true
		}
	}
	// Replicas that failed together must not come back together.
	if len(seen) < 15 {
		t.Errorf("20 waits have only %d lengths", len(seen))
	}
}

func TestRefusalEndsTheAttempts(t *testing.T) {
	s := answers(says(503, ""), says(400, `{"error":"invalid_client"}`), sold(accessToken))
	bubble(t, s, func(_ *testing.T, n *network) { n.failure(token.CredentialsRejected) })
	wantRequests(t, s, 2)
}

func TestRetryAfterIsWaitedForIfShort(t *testing.T) {
	// The server's clock is a year ahead, so that a date means nothing by the clock here.
	const ahead = 365 * 24 * time.Hour
	for _, test := range []struct {
		name        string
		status      int
		retryAfter  string
		least, most time.Duration // the wait before the second request; 0: there is none
		retry       time.Duration // what the failure says, where there is no second request
	}{
		{"throttled, nothing said", 429, "-", 0, 0, 0},
		{"throttled, zero", 429, "0", 0, 0, 0},
		{"throttled, a second", 429, "1", time.Second, 1125 * time.Millisecond, 0},
		{"throttled, two seconds", 429, "2", 2 * time.Second, 2125 * time.Millisecond, 0},
		{"throttled, more than is waited for", 429, "3", 0, 0, 3 * time.Second},
		{"throttled, an hour", 429, "3600", 0, 0, time.Hour},
		{"throttled, a date in a second", 429, httpDate(ahead + time.Second), time.Second, 1125 * time.Millisecond, 0},
		{"throttled, a date in a minute", 429, httpDate(ahead + time.Minute), 0, 0, time.Minute},
		{"throttled, a date that has passed", 429, httpDate(ahead - time.Minute), 0, 0, 0},
		{"throttled, a date that is now", 429, httpDate(ahead), 0, 0, 0},
		{"throttled, words", 429, "soon", 0, 0, 0},
		{"throttled, negative", 429, "-1", 0, 0, 0},
		{"throttled, a fraction", 429, "1.5", 0, 0, 0},
		{"throttled, empty", 429, "", 0, 0, 0},
		{"throttled for ages", 429, "9223372036854775807", 0, 0, time.Hour},
		{"throttled until the end of days", 429, "Fri, 31 Dec 2099 23:59:59 GMT", 0, 0, time.Hour},
		{"down, nothing said", 503, "-", 125 * time.Millisecond, 250 * time.Millisecond, 0},
		{"down, words", 503, "soon", 125 * time.Millisecond, 250 * time.Millisecond, 0},
		{"down, a second", 503, "1", time.Second, time.Second, 0},
		{"down, a minute", 503, "60", 0, 0, time.Minute},
		{"blocked, a second", 403, "1", 0, 0, time.Second},
	} {
		t.Run(test.name, func(t *testing.T) {
			s := answers(says(test.status, "", "Retry-After", test.retryAfter, "Date", httpDate(ahead)), sold(accessToken))
			bubble(t, s, func(t *testing.T, n *network) {
				if test.most > 0 {
					n.token()
					return
				}
				tok, err := n.exchange()
				var f *token.Failure
				if !errors.As(err, &f) || tok != nil {
					t.Fatalf("Exchange = %v, %v, want a failure", tok, err)
				}
				if f.RetryAfter != test.retry {
					t.Errorf("RetryAfter = %v, want %v", f.RetryAfter, test.retry)
				}
			})
			if test.most == 0 {
				wantRequests(t, s, 1)
			} else if g := gaps(s); len(g) != 1 || g[0] < test.least || g[0] > test.most {
				t.Errorf("the waits were %v, want one between %v and %v", g, test.least, test.most)
			}
		})
	}
}

func TestRetryAfterDateIsReadByTheClockHereIfTheServerShowsNone(t *testing.T) {
	s := answers(says(429, "", "Retry-After", httpDate(time.Minute), "Date", "-"))
	bubble(t, s, func(t *testing.T, n *network) {
		if f := n.failure(token.Throttled); f.RetryAfter != time.Minute {
			t.Errorf("RetryAfter = %v", f.RetryAfter)
		}
	})
}

func TestThrottleThatGoesOnIsGivenUpAfterThreeAttempts(t *testing.T) {
	s := answers(says(429, "", "Retry-After", "1"))
	bubble(t, s, func(t *testing.T, n *network) {
		if f := n.failure(token.Throttled); f.RetryAfter != time.Second {
			t.Errorf("RetryAfter = %v", f.RetryAfter)
		}
	})
	wantRequests(t, s, 3)
}

func startsAndHangs(w http.ResponseWriter, r *http.Request) {
	w.Header().Set("Content-Length", "100")
	_, _ = io.WriteString(w, `{"access_token":"`)
	_ = http.NewResponseController(w).Flush()
	<-r.Context().Done()
}

func TestExchangeIsOverAfterTenSecondsWhateverHangs(t *testing.T) {
	drips := func(w http.ResponseWriter, r *http.Request) {
		for r.Context().Err() == nil {
			_, _ = io.WriteString(w, " ")
			_ = http.NewResponseController(w).Flush()
			after(time.Second, func(http.ResponseWriter, *http.Request) {})(w, r)
		}
	}
	for name, handler := range map[string]http.HandlerFunc{
		"no answer": hangs, "half an answer": startsAndHangs, "a byte a second": drips,
		"throttled late, for as long as is waited for": after(4*time.Second, says(429, "", "Retry-After", "2")),
	} {
		t.Run(name, func(t *testing.T) {
			bubble(t, answers(handler), func(t *testing.T, n *network) {
				begun := time.Now()
				if _, err := n.exchange(); !errors.As(err, new(*token.Failure)) {
					t.Errorf("Exchange = %v, want a failure: the caller's own context has not ended", err)
				}
				if took := time.Since(begun); took > smokeball.ExchangeTimeout || took < smokeball.ExchangeTimeout/2 {
					t.Errorf("it took %v", took)
				}
			})
		})
	}
	t.Run("no connection", func(t *testing.T) {
		bubble(t, answers(hangs), func(t *testing.T, n *network) {
			n.issuer.Transport().DialContext = func(ctx context.Context, _, _ string) (net.Conn, error) {
				<-ctx.Done()
				return nil, ctx.Err()
			}
			begun := time.Now()
			wantSaid(t, n.failure(token.Unavailable), "did not answer in time")
			if took := time.Since(begun); took > smokeball.ExchangeTimeout {
				t.Errorf("it took %v", took)
			}
		})
	})
}

func TestAttemptThatHangsLeavesTimeForAnother(t *testing.T) {
	for name, handler := range map[string]http.HandlerFunc{"no answer": hangs, "half an answer": startsAndHangs} {
		t.Run(name, func(t *testing.T) {
			bubble(t, answers(handler, sold(accessToken)), func(t *testing.T, n *network) {
				begun := time.Now()
				n.token()
				if took := time.Since(begun); took < 5*time.Second || took > 5250*time.Millisecond {
					t.Errorf("it took %v, want five seconds and a short wait", took)
				}
			})
		})
	}
}

func TestCallerWhoLeavesIsLetGoAtOnce(t *testing.T) {
	for name, handler := range map[string]http.HandlerFunc{
		"waiting for the answer":        hangs,
		"waiting for the next attempt":  after(time.Second-time.Millisecond, says(503, "")),
		"waiting because it was asked":  says(429, "", "Retry-After", "2"),
		"waiting for a refusal to come": after(4*time.Second, says(400, `{"error":"invalid_client"}`)),
	} {
		t.Run(name, func(t *testing.T) {
			s := answers(handler)
			bubble(t, s, func(t *testing.T, n *network) {
				ctx, cancel := context.WithCancel(t.Context())
				time.AfterFunc(time.Second, cancel)
				begun := time.Now()
				tok, err := n.issuer.Exchange(ctx, credential())
				if tok != nil || !errors.Is(err, context.Canceled) || errors.As(err, new(*token.Failure)) {
					t.Errorf("Exchange = %v, %v, want %v", tok, err, context.Canceled)
				}
				if took := time.Since(begun); took != time.Second {
					t.Errorf("it took %v", took)
				}
			})
			wantRequests(t, s, 1)
		})
	}
}

func TestCallerWhoseTimeIsUpIsToldSo(t *testing.T) {
	bubble(t, answers(hangs), func(t *testing.T, n *network) {
		ctx, cancel := context.WithTimeout(t.Context(), time.Second)
		defer cancel()
		begun := time.Now()
		if tok, err := n.issuer.Exchange(ctx, credential()); tok != nil || !errors.Is(err, context.DeadlineExceeded) || errors.As(err, new(*token.Failure)) {
			t.Errorf("Exchange = %v, %v, want %v", tok, err, context.DeadlineExceeded)
		}
		if took := time.Since(begun); took != time.Second {
			t.Errorf("it took %v", took)
		}
	})
}

// What is known of the issuer is worth more than a second of waiting for nothing.
func TestCallerWithoutTimeForAnotherAttemptGetsTheFailureAtOnce(t *testing.T) {
	s := answers(says(429, "", "Retry-After", "2"))
	bubble(t, s, func(t *testing.T, n *network) {
		ctx, cancel := context.WithTimeout(t.Context(), time.Second)
		defer cancel()
		begun := time.Now()
		tok, err := n.issuer.Exchange(ctx, credential())
		wantFailure(t, tok, err, token.Throttled)
		if took := time.Since(begun); took != 0 {
			t.Errorf("it took %v", took)
		}
	})
	wantRequests(t, s, 1)
}

func TestCallerWhoHasLeftCostsNothing(t *testing.T) {
	s := answers(sold(accessToken))
	bubble(t, s, func(t *testing.T, n *network) {
		ctx, cancel := context.WithCancel(t.Context())
		cancel()
		if tok, err := n.issuer.Exchange(ctx, credential()); tok != nil || !errors.Is(err, context.Canceled) {
			t.Errorf("Exchange = %v, %v", tok, err)
		}
	})
	wantRequests(t, s, 0)
}

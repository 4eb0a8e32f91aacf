package main_test

import (
	"context"
	"encoding/base64"
	"encoding/json"
	"fmt"
	"maps"
	"math/rand/v2"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"google.golang.org/grpc"

	pb "smokeball.internal/tokenbroker/gen/tokenbroker/v1"
)

const (
	// How often each caller asks.
	callPause = 100 * time.Millisecond
	// How long a caller waits for an answer, as a service would.
	callPatience = 5 * time.Second
	// Machines that run tests are busy: by this much a call may reach the broker
	// later than it was begun, and a token the other replicas.
	slack = time.Second
)

// load is callers that ask for tokens of some tenants without pause, and the book
// that is kept of what they get. It reports as an error of the test what must
// never be: a failed call for a tenant that had a valid token, and a token that
// is handed out beyond its safe end.
type load struct {
	t       testing.TB
	lives   map[string]time.Duration // of the tokens of each tenant
	ctx     context.Context
	cancel  context.CancelFunc
	callers sync.WaitGroup

	pulses map[*grpc.ClientConn]*pulse

	mu     sync.Mutex
	tokens map[string]map[string]*seen // by tenant and token id
	tally  tally
	slow   []slowCall // to be looked at by take
	told   int        // how much was reported
}

// seen is a token that was handed out.
type seen struct {
	first   time.Time // when it was here first
	safeEnd time.Time // until when it may be handed out, rather too early than too late
	exp     time.Time // what the token says itself, in whole seconds
}

// tally counts calls.
type tally struct {
	calls, callsWith          int            // all, and those for a tenant that had a valid token
	failedWith, failedWithout int            // the same for those that failed
	slowest, slowestWith      time.Duration  // the same, without what the machine took
	silent                    time.Duration  // for how long a replica said nothing at all
	reasons                   map[string]int // of the failures
	late                      int            // tokens that were handed out beyond their safe end
	news                      int            // tokens that were not seen before
}

// slowCall is a call that took long.
type slowCall struct {
	conn         *grpc.ClientConn
	begun, ended time.Time
	had          bool
}

// took enters how long a call took.
func (n *tally) took(d time.Duration, had bool) {
	n.slowest = max(n.slowest, d)
	if had {
		n.slowestWith = max(n.slowestWith, d)
	}
}

// startLoad has one caller for each tenant on each connection, until stop or the
// end of the test.
func startLoad(t testing.TB, lives map[string]time.Duration, conns ...*grpc.ClientConn) *load {
	l := &load{t: t, lives: lives, pulses: map[*grpc.ClientConn]*pulse{}, tokens: map[string]map[string]*seen{}}
	l.ctx, l.cancel = context.WithCancel(context.Background())
	t.Cleanup(l.stop)
	for _, conn := range conns {
		l.pulses[conn] = &pulse{last: time.Now()}
	}
	for conn, p := range l.pulses {
		l.callers.Go(func() { p.beat(l.ctx, conn) })
	}
	for id := range lives {
		l.tokens[id] = map[string]*seen{}
	}
	for id := range lives {
		for _, conn := range conns {
			l.callers.Go(func() { l.ask(conn, id) })
		}
	}
	return l
}

// stop ends the callers and waits for them.
func (l *load) stop() {
	l.cancel()
	l.callers.Wait()
}

// take returns the counts since it was called last.
func (l *load) take() tally {
	l.mu.Lock()
	defer l.mu.Unlock()
	for _, c := range l.slow {
		l.tally.took(c.ended.Sub(c.begun)-l.pulses[c.conn].silentDuring(c.begun, c.ended), c.had)
	}
	for _, p := range l.pulses {
		l.tally.silent = max(l.tally.silent, p.longest())
	}
	taken := l.tally
	l.tally, l.slow = tally{}, nil
	return taken
}

func (l *load) ask(conn *grpc.ClientConn, id string) {
	for {
		select {
		case <-time.After(callPause/2 + rand.N(callPause)):
		case <-l.ctx.Done():
			return
		}
		had := l.hasToken(id) // This may wait for the book, and has a call begin late.
		begun := time.Now()
		ctx, cancel := context.WithTimeout(l.ctx, callPatience)
		tok, err := get(ctx, conn, id)
		cancel()
		if l.ctx.Err() != nil {
			return
		}
		l.note(conn, id, begun, had, tok, err)
	}
}

// hasToken says whether the tenant has a valid token now, which every replica has had
// the time to hear of.
func (l *load) hasToken(id string) bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	at := time.Now()
	for _, s := range l.tokens[id] {
		if at.Sub(s.first) >= slack && s.safeEnd.Sub(at) >= slack {
			return true
		}
	}
	return false
}

// note enters a call into the book.
func (l *load) note(conn *grpc.ClientConn, id string, begun time.Time, had bool, tok *pb.Token, err error) {
	took := time.Since(begun)
	l.mu.Lock()
	defer l.mu.Unlock()
	n := &l.tally
	n.calls++
	if had {
		n.callsWith++
	}
	if took < silence {
		n.took(took, had)
	} else {
		l.slow = append(l.slow, slowCall{conn, begun, begun.Add(took), had})
	}
	if err != nil {
		if n.reasons == nil {
			n.reasons = map[string]int{}
		}
		n.reasons[reason(err)]++
		if !had {
			n.failedWithout++
			return
		}
		n.failedWith++
		l.complain("%s had a valid token, and a call fails after %v: %v", id, took, err)
		return
	}
	life := l.lives[id]
	s := l.tokens[id][tok.GetTokenId()]
	if s == nil {
		n.news++
		exp, err := expiryOf(tok.GetAccessToken())
		if err != nil {
			l.complain("%s: %v", id, err)
			return
		}
		s = &seen{first: begun.Add(took), exp: exp, safeEnd: begun.Add(tok.GetRemaining().AsDuration() - life/10)}
		l.tokens[id][tok.GetTokenId()] = s
	}
	// exp is rounded down to whole seconds, and a life of which a second is lost on
	// the way has a smaller margin.
	if over := begun.Sub(s.exp.Add(time.Second - (life-time.Second)/10)); over > 0 {
		n.late++
		l.complain("%s: a token is handed out %v after its safe end", id, over)
	}
	// A second may be lost in the rounding of exp, and others on the way from the issuer.
	says, longest, shortest := tok.GetRemaining().AsDuration(), s.exp.Add(time.Second).Sub(begun), s.exp.Add(-time.Second).Sub(begun.Add(took))
	if says > longest || says < shortest-2*slack {
		n.late++
		l.complain("%s: a token is said to live for %v, and lives for %v to %v", id, says, shortest, longest)
	}
}

// complain reports an error, but not a thousand of them. l.mu is held.
func (l *load) complain(format string, args ...any) {
	if l.told++; l.told <= 5 {
		l.t.Errorf("%s "+format, append([]any{time.Now().Format("15:04:05.000")}, args...)...)
	}
}

// String tells the counts.
func (n tally) String() string {
	var reasons []string
	for _, name := range slices.Sorted(maps.Keys(n.reasons)) {
		reasons = append(reasons, fmt.Sprintf("%d %s", n.reasons[name], name))
	}
	return fmt.Sprintf("%d calls for tenants with a valid token, %d failed, slowest %v; %d calls in all, %d more failed %v, slowest %v (a machine that stood still, up to %v, not counted); %d new tokens, %d served too late",
		n.callsWith, n.failedWith, n.slowestWith.Round(time.Millisecond), n.calls, n.failedWithout, reasons, n.slowest.Round(time.Millisecond), n.silent.Round(time.Millisecond), n.news, n.late)
}

// expiryOf returns the exp claim of a token.
func expiryOf(accessToken string) (time.Time, error) {
	parts := strings.Split(accessToken, ".")
	if len(parts) != 3 {
		return time.Time{}, fmt.Errorf("the token has %d parts, want 3", len(parts))
	}
	payload, err := base64.RawURLEncoding.DecodeString(parts[1])
	if err != nil {
		return time.Time{}, fmt.Errorf("claims: %w", err)
	}
	var claims struct{ Exp int64 }
	if err := json.Unmarshal(payload, &claims); err != nil || claims.Exp == 0 {
		return time.Time{}, fmt.Errorf("claims without exp: %w", err)
	}
	return time.Unix(claims.Exp, 0), nil
}

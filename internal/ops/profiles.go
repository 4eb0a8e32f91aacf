package ops

import (
	"context"
	"fmt"
	"log/slog"
	"net/http"
	"net/http/pprof"
	"runtime"
	"slices"
	"strconv"
	"sync"
	"time"
)

const (
	// How long a profile takes at most, and if nobody says how long, in seconds.
	longestProfile, usualProfile = 60, 10
	// Of so many times that a mutex was waited for one is recorded, while that is.
	mutexFraction = 10
	// One wait is recorded for each such time that goroutines have waited, while that is.
	blockRate = 10 * time.Microsecond
)

// profiles gives profiles of this process, as "go tool pprof" reads them, to who is on
// this host. They name functions of the program, and nothing that it holds. The command
// line and traces, which net/http/pprof has too, are not among them.
type profiles struct {
	log   *slog.Logger
	taken sync.Mutex // while one is taken that takes time

	closing context.Context // ends those that are being taken
	end     func()
}

func newProfiles(log *slog.Logger) *profiles {
	p := &profiles{log: log}
	p.closing, p.end = context.WithCancel(context.Background())
	return p
}

// profile is a kind of profile.
type profile struct {
	name, what string
	// take writes it. It takes the seconds that the query says, if it says any.
	take http.Handler
	// usual is how many they are if it does not; 0: it is of this instant, or since the start.
	usual int
	// setRate has the runtime record what the profile is of, at this rate, and at 0 no
	// longer; nil: it always does.
	setRate func(int)
	rate    int
}

var kinds = []profile{
	{name: "profile", what: "where the processors' time goes", take: http.HandlerFunc(pprof.Profile), usual: usualProfile},
	{name: "heap", what: "what memory is held, and who has allocated it", take: pprof.Handler("heap")},
	{name: "allocs", what: "what was allocated: since the start, or within the seconds", take: pprof.Handler("allocs")},
	{name: "goroutine", what: "what goroutines there are, and where they are", take: pprof.Handler("goroutine")},
	{name: "mutex", what: "which mutexes were waited for", take: pprof.Handler("mutex"), usual: usualProfile,
		setRate: func(n int) { runtime.SetMutexProfileFraction(n) }, rate: mutexFraction},
	{name: "block", what: "what goroutines waited for", take: pprof.Handler("block"), usual: usualProfile,
		setRate: runtime.SetBlockProfileRate, rate: int(blockRate)},
}

const notFromHere = "profiles are for who is on this host, and not through a proxy or a browser"

func (p *profiles) list(w http.ResponseWriter, r *http.Request) {
	if !fromHere(r) {
		answer(w, http.StatusForbidden, notFromHere)
		return
	}
	text := fmt.Sprintf("go tool pprof http://HOST:PORT/debug/pprof/NAME?seconds=N, N at most %d. NAME is one of", longestProfile)
	for _, kind := range kinds {
		text += fmt.Sprintf("\n%-10s %s", kind.name, kind.what)
	}
	answer(w, http.StatusOK, text)
}

// take answers with a profile.
func (p *profiles) take(w http.ResponseWriter, r *http.Request) {
	if !fromHere(r) {
		answer(w, http.StatusForbidden, notFromHere)
		return
	}
	n := slices.IndexFunc(kinds, func(k profile) bool { return k.name == r.PathValue("name") })
	if n < 0 {
		answer(w, http.StatusNotFound, "there is no such profile: /debug/pprof/ lists them")
		return
	}
	seconds := kinds[n].usual
	if said := r.URL.Query().Get("seconds"); said != "" {
		var err error
		if seconds, err = strconv.Atoi(said); err != nil || seconds < 1 || seconds > longestProfile {
			answer(w, http.StatusBadRequest, fmt.Sprintf("want seconds from 1 to %d", longestProfile))
			return
		}
	}
	if seconds == 0 {
		kinds[n].take.ServeHTTP(w, r)
		return
	}
	p.takeFor(seconds, kinds[n], w, r)
}

// takeFor answers with a profile of the next seconds. There is one at a time, so that none
// shows what it costs to take another.
func (p *profiles) takeFor(seconds int, kind profile, w http.ResponseWriter, r *http.Request) {
	if !p.taken.TryLock() {
		answer(w, http.StatusConflict, "another profile is being taken: one at a time")
		return
	}
	defer p.taken.Unlock()
	p.log.InfoContext(r.Context(), "a profile is being taken", "kind", kind.name, "seconds", seconds)
	ctx, cancel := context.WithCancel(r.Context())
	defer cancel()
	defer context.AfterFunc(p.closing, cancel)()
	if kind.setRate != nil {
		kind.setRate(kind.rate)
		defer kind.setRate(0)
	}
	r = r.Clone(ctx)
	query := r.URL.Query()
	query.Set("seconds", strconv.Itoa(seconds))
	r.URL.RawQuery = query.Encode()
	kind.take.ServeHTTP(w, r)
}

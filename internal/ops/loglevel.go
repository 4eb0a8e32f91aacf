package ops

import (
	"io"
	"log/slog"
	"net/http"
	"strings"
)

// logLevel shows the level of the log, and changes it for who is on this host.
type logLevel struct {
	level *slog.LevelVar
	log   *slog.Logger
}

func (l logLevel) show(w http.ResponseWriter, _ *http.Request) {
	answer(w, http.StatusOK, strings.ToLower(l.level.Level().String()))
}

// set takes one of the words debug, info, warn and error.
func (l logLevel) set(w http.ResponseWriter, r *http.Request) {
	if !fromHere(r) {
		answer(w, http.StatusForbidden, "the level is changed from this host alone, and not through a proxy or a browser")
		return
	}
	const longest = len("debug\r\n")
	word, err := io.ReadAll(http.MaxBytesReader(w, r.Body, int64(longest)))
	level, known := levels[strings.TrimSpace(string(word))]
	if err != nil || !known {
		answer(w, http.StatusBadRequest, "want debug, info, warn or error")
		return
	}
	before := l.level.Level()
	l.level.Set(min(level, slog.LevelWarn)) // So that the change is in the log, whatever it is to.
	l.log.WarnContext(r.Context(), "the level of the log was changed", "before", strings.ToLower(before.String()), "after", strings.ToLower(level.String()))
	l.level.Set(level)
	answer(w, http.StatusOK, strings.ToLower(level.String()))
}

var levels = map[string]slog.Level{"debug": slog.LevelDebug, "info": slog.LevelInfo, "warn": slog.LevelWarn, "error": slog.LevelError}

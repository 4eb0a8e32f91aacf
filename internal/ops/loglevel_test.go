package ops_test

import (
	"bytes"
	"io"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"

	"smokeball.internal/tokenbroker/internal/ops"
)

func newLevel(t *testing.T) (level *slog.LevelVar, log *bytes.Buffer, ask func(method, body, peer string, header ...string) (int, string)) {
	t.Helper()
	level, log = new(slog.LevelVar), &bytes.Buffer{}
	server := ops.NewServer(ops.Config{Metrics: ops.NewMetrics(), Logger: slog.New(slog.NewTextHandler(log, &slog.HandlerOptions{Level: level})), LogLevel: level})
	return level, log, func(method, body, peer string, header ...string) (int, string) {
		r := httptest.NewRequestWithContext(t.Context(), method, "http://127.0.0.1:9091/loglevel", strings.NewReader(body))
		r.RemoteAddr = peer
		for n := 0; n < len(header); n += 2 {
			r.Header.Set(header[n], header[n+1])
		}
		w := httptest.NewRecorder()
		server.Handler().ServeHTTP(w, r)
		said, _ := io.ReadAll(w.Body)
		return w.Code, string(said)
	}
}

// Whatever it is changed from and to, the change is in the log.
func TestLogLevelChanges(t *testing.T) {
	level, log, ask := newLevel(t)
	for _, step := range []struct {
		body, before, after string
		level               slog.Level
	}{
		{"debug", "info", "debug", slog.LevelDebug}, {"error\n", "debug", "error", slog.LevelError},
		{"error", "error", "error", slog.LevelError}, {"warn", "error", "warn", slog.LevelWarn}, {"info\r\n", "warn", "info", slog.LevelInfo},
	} {
		log.Reset()
		if code, said := ask(http.MethodPut, step.body, "127.0.0.1:4711"); code != http.StatusOK || said != step.after+"\n" {
			t.Errorf("PUT %q = %d %q", step.body, code, said)
		}
		if level.Level() != step.level {
			t.Errorf("after %q the level is %v", step.body, level.Level())
		}
		if said := log.String(); !strings.Contains(said, "level=WARN") || !strings.Contains(said, "before="+step.before+" after="+step.after) {
			t.Errorf("after %q the log says %q", step.body, said)
		}
		if code, said := ask(http.MethodGet, "", "192.0.2.1:4711"); code != http.StatusOK || said != step.after+"\n" {
			t.Errorf("GET = %d %q, want %q", code, said, step.after)
		}
	}
	if code, _ := ask(http.MethodPut, "debug", "[::1]:4711"); code != http.StatusOK {
		t.Errorf("from ::1 it is %d", code)
	}
}

// others are requests that are not of somebody on this host, or not of that somebody's own.
var others = map[string]struct {
	peer   string
	header []string
}{
	"another host":              {"192.0.2.1:4711", nil},
	"another host, IPv6":        {"[2001:db8::1]:4711", nil},
	"no address":                {"@", nil},
	"a proxy: Forwarded":        {"127.0.0.1:4711", []string{"Forwarded", "for=192.0.2.1"}},
	"a proxy: X-Forwarded-For":  {"127.0.0.1:4711", []string{"X-Forwarded-For", "192.0.2.1"}},
	"a proxy, saying little":    {"127.0.0.1:4711", []string{"X-Forwarded-For", ""}},
	"a proxy: X-Forwarded-Host": {"127.0.0.1:4711", []string{"X-Forwarded-Host", "broker"}},
	"a proxy: X-Real-IP":        {"127.0.0.1:4711", []string{"X-Real-IP", "192.0.2.1"}},
	"a proxy: Via":              {"127.0.0.1:4711", []string{"Via", "1.1 proxy"}},
	"a page":                    {"127.0.0.1:4711", []string{"Origin", "http://127.0.0.1:9091"}},
	"a page, saying little":     {"127.0.0.1:4711", []string{"Sec-Fetch-Site", "same-origin"}},
}

func TestLogLevelIsNotForOthers(t *testing.T) {
	for name, test := range others {
		level, log, ask := newLevel(t)
		if code, _ := ask(http.MethodPut, "debug", test.peer, test.header...); code != http.StatusForbidden || level.Level() != slog.LevelInfo || log.Len() > 0 {
			t.Errorf("%s: %d, and the level is %v", name, code, level.Level())
		}
	}
}

func TestLogLevelThatIsNone(t *testing.T) {
	level, _, ask := newLevel(t)
	for _, body := range []string{"", "DEBUG-4", "trace", "Info", "-4", "debug info", strings.Repeat(" ", 1<<20) + "debug"} {
		if code, _ := ask(http.MethodPut, body, "127.0.0.1:4711"); code != http.StatusBadRequest || level.Level() != slog.LevelInfo {
			t.Errorf("%.20q: %d, and the level is %v", body, code, level.Level())
		}
	}
	for _, method := range []string{http.MethodPost, http.MethodDelete, http.MethodPatch} {
		if code, _ := ask(method, "debug", "127.0.0.1:4711"); code != http.StatusMethodNotAllowed {
			t.Errorf("%s is %d", method, code)
		}
	}
}

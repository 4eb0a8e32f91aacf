// Package ops is the operators' side, over HTTP: metrics, liveness, readiness
// and the state in short.
package ops

import (
	"context"
	"encoding/json"
	"errors"
	"log/slog"
	"net"
	"net/http"
	"sync/atomic"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/collectors"
	"github.com/prometheus/client_golang/prometheus/promhttp"
)

// Config is what the operators' server is made of. All fields but Warnings, Page and
// LogLevel are required.
type Config struct {
	// Version of the program.
	Version string
	// Metrics is what /metrics shows.
	Metrics *prometheus.Registry
	// PingRedis returns nil if Redis answers.
	PingRedis func(context.Context) error
	// Warnings returns what /status says is wrong with Redis, a sentence each; nil:
	// nothing is.
	Warnings func() []string
	// Page is what /status shows to people, who may not all see it; nil: JSON, as to
	// scripts.
	Page http.Handler
	// Logger gets what goes wrong.
	Logger *slog.Logger
	// LogLevel is the log's, which can be seen and changed at /loglevel; nil: it cannot.
	LogLevel *slog.LevelVar
}

// Server is the operators' HTTP server. It is live from the start and ready when
// told so.
type Server struct {
	config  Config
	http    *http.Server
	started time.Time
	// Why calls of TokenService, and of TenantService, cannot be answered; empty: they can.
	tokens, tenants atomic.Value // :: string
}

// NewServer returns a server that is not serving yet.
func NewServer(c Config) *Server {
	s := &Server{config: c, started: time.Now()}
	const starting = "starting: Redis has not been reached yet"
	s.NotReady(starting)
	s.NotAdministering(starting)
	c.Metrics.MustRegister(prometheus.NewGaugeFunc(prometheus.GaugeOpts{
		Name: "tokenbroker_ready", Help: "Whether calls for tokens can be answered, as /readyz says.",
	}, func() float64 { return truth(s.tokens.Load() == "") }))
	mux := http.NewServeMux()
	mux.Handle("GET /metrics", promhttp.HandlerFor(c.Metrics, promhttp.HandlerOpts{}))
	mux.HandleFunc("GET /livez", func(w http.ResponseWriter, _ *http.Request) { answer(w, http.StatusOK, "live") })
	// Whoever is answered has read its files and serves its ports. That Redis is not
	// there yet is no reason for a new start, so it is none not to have started.
	mux.HandleFunc("GET /startupz", func(w http.ResponseWriter, _ *http.Request) { answer(w, http.StatusOK, "started") })
	mux.HandleFunc("GET /readyz", s.readyz)
	mux.HandleFunc("GET /status", s.statusOrPage)
	if c.LogLevel != nil {
		level := logLevel{c.LogLevel, c.Logger}
		mux.HandleFunc("GET /loglevel", level.show)
		mux.HandleFunc("PUT /loglevel", level.set)
	}
	s.http = &http.Server{
		Handler:           mux,
		ReadHeaderTimeout: 5 * time.Second,
		ReadTimeout:       10 * time.Second,
		WriteTimeout:      30 * time.Second,
		IdleTimeout:       time.Minute,
		ErrorLog:          slog.NewLogLogger(c.Logger.Handler(), slog.LevelDebug),
	}
	p := newProfiles(c.Logger)
	mux.HandleFunc("GET /debug/pprof/{$}", p.list)
	mux.HandleFunc("GET /debug/pprof/{name}", p.take)
	s.http.RegisterOnShutdown(p.end)
	return s
}

// NewMetrics returns a registry with the metrics of the process and of the Go
// runtime.
func NewMetrics() *prometheus.Registry {
	r := prometheus.NewRegistry()
	r.MustRegister(collectors.NewGoCollector(), collectors.NewProcessCollector(collectors.ProcessCollectorOpts{}))
	return r
}

// NotReady says why calls for tokens cannot be answered; empty: they can.
func (s *Server) NotReady(why string) { s.tokens.Store(why) }

// NotAdministering says why calls of administrators cannot be answered; empty:
// they can.
func (s *Server) NotAdministering(why string) { s.tenants.Store(why) }

// Hindrances says which calls cannot be answered, and why, a sentence each; none, if
// all can.
func (s *Server) Hindrances() (all []string) {
	tokens, tenants := s.tokens.Load().(string), s.tenants.Load().(string)
	if tokens != "" {
		all = append(all, "not ready: "+tokens)
	}
	switch {
	case tenants == "", tenants == tokens:
	case tokens == "":
		all = append(all, "ready, but serves no administrators: "+tenants)
	default:
		all = append(all, "serves no administrators: "+tenants)
	}
	return all
}

// Serve serves on l until Close.
func (s *Server) Serve(l net.Listener) error {
	if err := s.http.Serve(l); !errors.Is(err, http.ErrServerClosed) {
		return err
	}
	return nil
}

// Close ends the server; requests under way have until ctx ends.
func (s *Server) Close(ctx context.Context) {
	if s.http.Shutdown(ctx) != nil {
		_ = s.http.Close()
	}
}

func (s *Server) readyz(w http.ResponseWriter, _ *http.Request) {
	if why := s.tokens.Load().(string); why != "" {
		answer(w, http.StatusServiceUnavailable, why)
		return
	}
	answer(w, http.StatusOK, "ready")
}

func (s *Server) status(w http.ResponseWriter, r *http.Request) {
	ctx, cancel := context.WithTimeout(r.Context(), time.Second)
	defer cancel()
	status := struct {
		Version  string   `json:"version"`
		Uptime   string   `json:"uptime"`
		Ready    bool     `json:"ready"`
		NotReady string   `json:"not_ready_because,omitempty"`
		Tenants  string   `json:"tenants_not_served_because,omitempty"`
		Redis    string   `json:"redis"`
		Warnings []string `json:"redis_warnings,omitempty"`
	}{Version: s.config.Version, Uptime: time.Since(s.started).Round(time.Second).String(), Redis: "answers"}
	status.NotReady, status.Tenants = s.tokens.Load().(string), s.tenants.Load().(string)
	status.Ready = status.NotReady == ""
	if s.config.PingRedis(ctx) != nil {
		status.Redis = "out of reach"
	}
	if s.config.Warnings != nil {
		status.Warnings = s.config.Warnings()
	}
	w.Header().Set("Content-Type", "application/json")
	_ = json.NewEncoder(w).Encode(status)
}

func answer(w http.ResponseWriter, code int, text string) {
	w.Header().Set("Content-Type", "text/plain; charset=utf-8")
	w.Header().Set("Cache-Control", "no-store")
	w.WriteHeader(code)
	_, _ = w.Write([]byte(text + "\n"))
}

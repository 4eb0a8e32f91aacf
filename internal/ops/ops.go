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

// Config is what the operators' server is made of. All fields but Warnings and Page
// are required.
type Config struct {
	// Version of the program.
	Version string
	// Metrics is what /metrics shows.
	Metrics *prometheus.Registry
	// PingRedis returns nil if Redis answers.
	PingRedis func(context.Context) error
	// Warnings is what /status says is wrong with Redis; nil: nothing is.
	Warnings *RedisWarnings
	// Page is what /status shows to people, who may not all see it; nil: JSON, as to
	// scripts.
	Page http.Handler
	// Logger gets what goes wrong.
	Logger *slog.Logger
}

// Server is the operators' HTTP server. It is live from the start and ready when
// told so.
type Server struct {
	config  Config
	http    *http.Server
	started time.Time
	state   atomic.Pointer[string] // why it is not ready; nil if it is
}

// NewServer returns a server that is not serving yet.
func NewServer(c Config) *Server {
	s := &Server{config: c, started: time.Now()}
	s.NotReady("starting: Redis has not been reached yet")
	mux := http.NewServeMux()
	mux.Handle("GET /metrics", promhttp.HandlerFor(c.Metrics, promhttp.HandlerOpts{}))
	mux.HandleFunc("GET /livez", func(w http.ResponseWriter, _ *http.Request) { answer(w, http.StatusOK, "live") })
	mux.HandleFunc("GET /readyz", s.readyz)
	mux.HandleFunc("GET /status", s.statusOrPage)
	s.http = &http.Server{
		Handler:           mux,
		ReadHeaderTimeout: 5 * time.Second,
		ReadTimeout:       10 * time.Second,
		WriteTimeout:      30 * time.Second,
		IdleTimeout:       time.Minute,
		ErrorLog:          slog.NewLogLogger(c.Logger.Handler(), slog.LevelDebug),
	}
	return s
}

// NewMetrics returns a registry with the metrics of the process and of the Go
// runtime.
func NewMetrics() *prometheus.Registry {
	r := prometheus.NewRegistry()
	r.MustRegister(collectors.NewGoCollector(), collectors.NewProcessCollector(collectors.ProcessCollectorOpts{}))
	return r
}

// Ready says that calls can be answered.
func (s *Server) Ready() { s.state.Store(nil) }

// NotReady says that calls cannot be answered, and why.
func (s *Server) NotReady(why string) { s.state.Store(&why) }

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
	if why := s.state.Load(); why != nil {
		answer(w, http.StatusServiceUnavailable, *why)
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
		Redis    string   `json:"redis"`
		Warnings []string `json:"redis_warnings,omitempty"`
	}{Version: s.config.Version, Uptime: time.Since(s.started).Round(time.Second).String(), Ready: true, Redis: "answers"}
	if why := s.state.Load(); why != nil {
		status.Ready, status.NotReady = false, *why
	}
	if s.config.PingRedis(ctx) != nil {
		status.Redis = "out of reach"
	}
	if s.config.Warnings != nil {
		status.Warnings = s.config.Warnings.Sentences()
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

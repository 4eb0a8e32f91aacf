package rpc

import (
	"fmt"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
)

// methodMetrics is what is counted of one method's calls.
type methodMetrics struct {
	started, received, sent prometheus.Counter
	handled                 [codes.Unauthenticated + 1]prometheus.Counter // by code
	took                    prometheus.Observer
}

// callMetrics counts calls, under the names and labels that go-grpc-middleware has
// for them, which dashboards know. It finds a method's metrics by one look, where the
// middleware looks five times with three labels each: that made up a twentieth of a
// GetToken. It is complete before the first call; a method that is not in it is not counted.
type callMetrics map[string]*methodMetrics // :: full method

// measure has the calls of a server counted, of which all is known that it serves.
func (all callMetrics) measure(server *grpc.Server, r prometheus.Registerer) error {
	labels := []string{"grpc_type", "grpc_service", "grpc_method"}
	counter := func(name, help string, more ...string) *prometheus.CounterVec {
		return prometheus.NewCounterVec(prometheus.CounterOpts{Name: name, Help: help}, append(labels, more...))
	}
	started := counter("grpc_server_started_total", "Total number of RPCs started on the server.")
	received := counter("grpc_server_msg_received_total", "Total number of RPC stream messages received on the server.")
	sent := counter("grpc_server_msg_sent_total", "Total number of gRPC stream messages sent by the server.")
	handled := counter("grpc_server_handled_total", "Total number of RPCs completed on the server, regardless of success or failure.", "grpc_code")
	took := prometheus.NewHistogramVec(prometheus.HistogramOpts{
		Name:    "grpc_server_handling_seconds",
		Help:    "Histogram of response latency (seconds) of gRPC that had been application-level handled by the server.",
		Buckets: []float64{.0001, .0005, .001, .005, .025, .1, .5, 2.5, 10, 30},
	}, labels)
	for _, c := range []prometheus.Collector{started, received, sent, handled, took} {
		if err := r.Register(c); err != nil {
			return fmt.Errorf("metrics of the server: %w", err)
		}
	}
	for service, info := range server.GetServiceInfo() {
		for _, method := range info.Methods {
			values := []string{typeOf(method), service, method.Name}
			m := &methodMetrics{started: started.WithLabelValues(values...), received: received.WithLabelValues(values...),
				sent: sent.WithLabelValues(values...), took: took.WithLabelValues(values...)}
			for code := range m.handled {
				m.handled[code] = handled.WithLabelValues(append(values, codes.Code(code).String())...)
			}
			all["/"+service+"/"+method.Name] = m
		}
	}
	return nil
}

func typeOf(m grpc.MethodInfo) string {
	switch {
	case m.IsClientStream && m.IsServerStream:
		return "bidi_stream"
	case m.IsClientStream:
		return "client_stream"
	case m.IsServerStream:
		return "server_stream"
	default:
		return "unary"
	}
}

// begin counts a call that begins, with its request. finished is to be called of
// what it returns, which may be nil.
func (all callMetrics) begin(method string) *methodMetrics {
	m := all[method]
	if m != nil {
		m.started.Inc()
		m.received.Inc()
	}
	return m
}

func (all callMetrics) stream(srv any, stream grpc.ServerStream, info *grpc.StreamServerInfo, handler grpc.StreamHandler) error {
	m, known := all[info.FullMethod]
	if !known {
		return handler(srv, stream)
	}
	m.started.Inc()
	began := time.Now()
	err := handler(srv, counted{stream, m})
	m.ended(began, err)
	return err
}

// finished counts a unary call that has come to err.
func (m *methodMetrics) finished(began time.Time, err error) {
	if m == nil {
		return
	}
	if err == nil {
		m.sent.Inc()
	}
	m.ended(began, err)
}

func (m *methodMetrics) ended(began time.Time, err error) {
	code := status.Code(err)
	if int(code) >= len(m.handled) {
		code = codes.Unknown
	}
	m.handled[code].Inc()
	m.took.Observe(time.Since(began).Seconds())
}

// counted is a stream whose messages are counted.
type counted struct {
	grpc.ServerStream
	metrics *methodMetrics
}

// SendMsg implements grpc.ServerStream.
func (s counted) SendMsg(m any) error {
	err := s.ServerStream.SendMsg(m)
	if err == nil {
		s.metrics.sent.Inc()
	}
	return err
}

// RecvMsg implements grpc.ServerStream.
func (s counted) RecvMsg(m any) error {
	err := s.ServerStream.RecvMsg(m)
	if err == nil {
		s.metrics.received.Inc()
	}
	return err
}

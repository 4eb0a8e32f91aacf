// Package rpc serves the API over gRPC: handlers, interceptors, and the one
// translation of errors. It translates; it decides nothing.
package rpc

import (
	"context"
	"fmt"
	"log/slog"
	"net"
	"time"

	"buf.build/go/protovalidate"
	"github.com/prometheus/client_golang/prometheus"
	"go.opentelemetry.io/otel/trace"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/health"
	healthpb "google.golang.org/grpc/health/grpc_health_v1"
	"google.golang.org/grpc/keepalive"
	"google.golang.org/grpc/reflection"
	"google.golang.org/grpc/status"

	pb "smokeball.internal/tokenbroker/gen/tokenbroker/v1"
	"smokeball.internal/tokenbroker/internal/access"
	"smokeball.internal/tokenbroker/internal/audit"
	"smokeball.internal/tokenbroker/internal/broker"
)

const (
	// The largest valid request is a tenant with all its scopes and labels, some
	// 30 KiB. What is larger is read so far that it can be told what is wrong.
	maxRequest = 1 << 20
	// Room for a bearer token and the traces of some proxies.
	maxHeader = 64 << 10
	// Enough for a busy client on one connection; more is held back, not refused.
	maxStreams = 1000
	// What a connection may have sent before anybody has read it. It does not grow with
	// a client's speed.
	connWindow = 256 << 10
	// Requests are small, and there is one such buffer for each connection.
	readBuffer = 8 << 10
	// Goroutines that are kept for calls. One that is begun for a call has its stack grown
	// twice, which takes a sixth of the call's time. A stream keeps one until it ends; when
	// none is left, calls have new ones, as all have without this.
	workers = 128
	// Clients that probe a connection more often than this are sent away.
	minPing = 10 * time.Second
	// How long those who watch health have to hear that the server is going.
	farewell = 500 * time.Millisecond
)

// Config is what a server is made of.
type Config struct {
	// Broker and Registry answer. Required.
	Broker   *broker.Broker
	Registry *broker.Registry
	// Logger gets a record of each call, without its content. Required.
	Logger *slog.Logger
	// Metrics gets the server's metrics; nil: calls are not counted.
	Metrics prometheus.Registerer
	// Tracer begins a span for each call; nil: there are none.
	Tracer trace.Tracer
	// Guard says who may do what. Required.
	Guard *access.Guard
	// Certificates serve TLS; nil serves plain text.
	Certificates *access.Certificates
	// Audit gets a record of each decision. Required.
	Audit *audit.Log
	// MaxConnectionAge ends connections that are older, after what is under way on
	// them, so that clients connect anew and a balancer can spread them; 0: never.
	MaxConnectionAge time.Duration
}

// Server is the gRPC server. The health of its services is NOT_SERVING at first.
type Server struct {
	server     *grpc.Server
	health     *health.Server
	endStreams context.CancelFunc
}

// NewServer returns a server that is not serving yet.
func NewServer(c Config) (*Server, error) {
	// The first violation is enough to refuse a request, and a request with ten
	// thousand of them costs no more than one with one.
	validator, err := protovalidate.New(protovalidate.WithFailFast(), protovalidate.WithMessages(
		&pb.GetTokenRequest{}, &pb.RefreshTokenRequest{}, &pb.WatchTokenRequest{},
		&pb.CreateTenantRequest{}, &pb.GetTenantRequest{}, &pb.ListTenantsRequest{}, &pb.UpdateTenantRequest{}, &pb.DeleteTenantRequest{},
		&pb.RotateClientSecretRequest{}, &pb.CheckTenantRequest{}))
	if err != nil {
		return nil, fmt.Errorf("rules of the API: %w", err)
	}
	entrance, err := newEntrance(c)
	if err != nil {
		return nil, fmt.Errorf("metrics of the server: %w", err)
	}
	way := newWay(c, validator)
	streams, endStreams := context.WithCancel(context.Background())
	options := []grpc.ServerOption{
		grpc.NumStreamWorkers(workers),
		grpc.InTapHandle(entrance.look),
		grpc.UnaryInterceptor(way.unary),
		grpc.ChainStreamInterceptor(entrance.stream),
		grpc.ChainStreamInterceptor(way.streams(streams)...),
		grpc.UnknownServiceHandler(unknown), // So that who asks for it comes in by the entrance, too.
		grpc.MaxRecvMsgSize(maxRequest),
		grpc.MaxConcurrentStreams(maxStreams),
		grpc.MaxHeaderListSize(maxHeader),
		grpc.StaticConnWindowSize(connWindow),
		grpc.ReadBufferSize(readBuffer),
		grpc.ConnectionTimeout(10 * time.Second),
		grpc.WaitForHandlers(true),
		grpc.KeepaliveParams(keepalive.ServerParameters{
			MaxConnectionAge:      c.MaxConnectionAge,
			MaxConnectionAgeGrace: 30 * time.Second,
			Time:                  time.Minute,
			Timeout:               20 * time.Second,
		}),
		grpc.KeepaliveEnforcementPolicy(keepalive.EnforcementPolicy{MinTime: minPing, PermitWithoutStream: true}),
	}
	if c.Certificates != nil {
		options = append(options, grpc.Creds(newDoor(c.Certificates, c.Guard, c.Logger)))
	}
	s := &Server{grpc.NewServer(options...), health.NewServer(), endStreams}
	services := registrar{s.server, entrance}
	pb.RegisterTokenServiceServer(services, &tokenService{broker: c.Broker, log: c.Logger})
	pb.RegisterTenantServiceServer(services, &tenantService{registry: c.Registry, guard: c.Guard, log: c.Logger})
	healthpb.RegisterHealthServer(services, s.health)
	reflection.Register(services)
	if c.Metrics != nil {
		if err := way.metrics.measure(s.server, c.Metrics); err != nil {
			return nil, err
		}
	}
	s.SetServing(false)
	s.SetAdministering(false)
	return s, nil
}

// unknown answers calls of methods that there are not.
func unknown(_ any, stream grpc.ServerStream) error {
	method, _ := grpc.MethodFromServerStream(stream)
	return status.Error(codes.Unimplemented, "there is no method "+clip(method))
}

// SetServing sets what the health service says of TokenService, and of the server
// as a whole, since that is what it is for.
func (s *Server) SetServing(serving bool) {
	s.setHealth(serving, "", pb.TokenService_ServiceDesc.ServiceName)
}

// SetAdministering sets what the health service says of TenantService.
func (s *Server) SetAdministering(serving bool) {
	s.setHealth(serving, pb.TenantService_ServiceDesc.ServiceName)
}

func (s *Server) setHealth(serving bool, services ...string) {
	state := healthpb.HealthCheckResponse_NOT_SERVING
	if serving {
		state = healthpb.HealthCheckResponse_SERVING
	}
	for _, service := range services {
		s.health.SetServingStatus(service, state)
	}
}

// Serve serves on l until Drain.
func (s *Server) Serve(l net.Listener) error { return s.server.Serve(l) }

// Drain tells clients and balancers to go elsewhere, lets the calls that are
// under way finish, and ends what is left of them when ctx ends. Streams end
// soon: they would not finish by themselves.
func (s *Server) Drain(ctx context.Context) {
	s.health.Shutdown()
	defer time.AfterFunc(farewell, s.endStreams).Stop()
	done := make(chan struct{})
	go func() {
		s.server.GracefulStop()
		close(done)
	}()
	select {
	case <-done:
	case <-ctx.Done():
		s.server.Stop()
		<-done
	}
	s.endStreams()
}

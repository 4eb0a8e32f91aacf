package bench_test

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"encoding/json"
	"errors"
	"fmt"
	"net"
	"net/http"
	"os"
	"os/signal"
	"strings"
	"syscall"

	"github.com/prometheus/client_golang/prometheus/promhttp"
	"github.com/redis/go-redis/v9"
	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/protobuf/proto"

	pb "smokeball.internal/tokenbroker/gen/tokenbroker/v1"
)

// files are certificates, of a server or of its callers; the zero files are plain text.
type files struct{ CA, Cert, Key string }

func (f files) pair() (*x509.CertPool, tls.Certificate, error) {
	ca, err := os.ReadFile(f.CA)
	if err != nil {
		return nil, tls.Certificate{}, err
	}
	pool := x509.NewCertPool()
	pool.AppendCertsFromPEM(ca)
	pair, err := tls.LoadX509KeyPair(f.Cert, f.Key)
	return pool, pair, err
}

func (f files) dial(address string) (*grpc.ClientConn, error) {
	if f == (files{}) {
		return grpc.NewClient(address, grpc.WithTransportCredentials(insecure.NewCredentials()))
	}
	pool, pair, err := f.pair()
	if err != nil {
		return nil, err
	}
	return grpc.NewClient(address, grpc.WithTransportCredentials(credentials.NewTLS(&tls.Config{RootCAs: pool, Certificates: []tls.Certificate{pair}})))
}

func (f files) serverOptions() ([]grpc.ServerOption, error) {
	if f == (files{}) {
		return nil, nil
	}
	pool, pair, err := f.pair()
	if err != nil {
		return nil, err
	}
	return []grpc.ServerOption{grpc.Creds(credentials.NewTLS(&tls.Config{
		ClientCAs: pool, ClientAuth: tls.RequireAndVerifyClientCert, Certificates: []tls.Certificate{pair}, MinVersion: tls.VersionTLS13,
	}))}, nil
}

// serverOrder is what a server that is compared with the broker is told.
type serverOrder struct {
	Files    files
	Response []byte // of GetToken
	Redis    string // URL
	Tuned    bool   // as the broker's server is (internal/rpc)
	Answers  int    // how many it holds, one for each tenant; 0: the same for all
}

// serve serves on ports that it writes to standard output, API and metrics, until it is
// to end.
func serve(make func(serverOrder) (pb.TokenServiceServer, error)) error {
	var o serverOrder
	if err := json.NewDecoder(os.Stdin).Decode(&o); err != nil {
		return err
	}
	service, err := make(o)
	if err != nil {
		return err
	}
	options, err := o.Files.serverOptions()
	if err != nil {
		return err
	}
	if o.Tuned {
		options = append(options, grpc.NumStreamWorkers(128), grpc.StaticConnWindowSize(256<<10), grpc.ReadBufferSize(8<<10))
	}
	ctx, stop := signal.NotifyContext(context.Background(), syscall.SIGTERM)
	defer stop()
	var listen net.ListenConfig
	api, err := listen.Listen(ctx, "tcp", "127.0.0.1:0")
	if err != nil {
		return err
	}
	operators, err := listen.Listen(ctx, "tcp", "127.0.0.1:0")
	if err != nil {
		return err
	}
	server := grpc.NewServer(options...)
	pb.RegisterTokenServiceServer(server, service)
	metrics := &http.Server{Handler: promhttp.Handler()}
	go func() { _ = metrics.Serve(operators) }()
	context.AfterFunc(ctx, server.Stop)
	fmt.Println(api.Addr(), operators.Addr())
	return server.Serve(api)
}

// bare answers with the same message each time, or with one that it finds in a map.
type bare struct {
	pb.UnimplementedTokenServiceServer
	response *pb.GetTokenResponse
	each     map[string]*pb.GetTokenResponse // :: tenant's name → answer, for some of the tenants
}

func (b *bare) GetToken(_ context.Context, req *pb.GetTokenRequest) (*pb.GetTokenResponse, error) {
	if response, ok := b.each[req.GetTenant()]; ok {
		return response, nil
	}
	return b.response, nil
}

func serveBare() error {
	return serve(func(o serverOrder) (pb.TokenServiceServer, error) {
		b := &bare{response: &pb.GetTokenResponse{}, each: make(map[string]*pb.GetTokenResponse, o.Answers)}
		for n := range o.Answers {
			response := &pb.GetTokenResponse{}
			if err := proto.Unmarshal(o.Response, response); err != nil {
				return nil, err
			}
			b.each["tenants/"+id(n)] = response
		}
		return b, proto.Unmarshal(o.Response, b.response)
	})
}

// naive reads the token from Redis for each call: no seal, no identity, no limits.
type naive struct {
	pb.UnimplementedTokenServiceServer
	redis *redis.Client
}

func (n *naive) GetToken(ctx context.Context, req *pb.GetTokenRequest) (*pb.GetTokenResponse, error) {
	id, ok := strings.CutPrefix(req.GetTenant(), "tenants/")
	if !ok {
		return nil, errors.New("no tenant")
	}
	stored, err := n.redis.Get(ctx, "naive:"+id).Bytes()
	if err != nil {
		return nil, err
	}
	response := &pb.GetTokenResponse{}
	return response, proto.Unmarshal(stored, response)
}

func serveNaive() error {
	return serve(func(o serverOrder) (pb.TokenServiceServer, error) {
		options, err := redis.ParseURL(o.Redis)
		if err != nil {
			return nil, err
		}
		client := redis.NewClient(options)
		// It has the tokens of each tenant that is asked for from the start.
		return &naive{redis: client}, client.Set(context.Background(), "naive:acme", o.Response, 0).Err()
	})
}

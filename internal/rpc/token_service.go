package rpc

import (
	"context"
	"errors"
	"log/slog"
	"time"

	"google.golang.org/grpc"

	pb "smokeball.internal/tokenbroker/gen/tokenbroker/v1"
	"smokeball.internal/tokenbroker/internal/broker"
)

// tokenService serves callers.
type tokenService struct {
	pb.UnimplementedTokenServiceServer
	broker *broker.Broker
	log    *slog.Logger
}

func (s *tokenService) GetToken(ctx context.Context, req *pb.GetTokenRequest) (*pb.GetTokenResponse, error) {
	atLeast, err := duration("min_remaining", req.GetMinRemaining())
	if err != nil {
		return nil, err
	}
	a, err := s.broker.Get(ctx, tenantID(req.GetTenant()), req.GetScopes(), atLeast)
	if err != nil {
		return nil, toStatus(ctx, s.log, req.GetTenant(), err)
	}
	return &pb.GetTokenResponse{Token: tokenToProto(a, time.Now())}, nil
}

func (s *tokenService) RefreshToken(ctx context.Context, req *pb.RefreshTokenRequest) (*pb.RefreshTokenResponse, error) {
	a, err := s.broker.Refresh(ctx, tenantID(req.GetTenant()), req.GetScopes(), req.GetRejectedTokenId())
	if err != nil {
		return nil, toStatus(ctx, s.log, req.GetTenant(), err)
	}
	return &pb.RefreshTokenResponse{Token: tokenToProto(a, time.Now())}, nil
}

func (s *tokenService) WatchToken(req *pb.WatchTokenRequest, stream grpc.ServerStreamingServer[pb.WatchTokenResponse]) error {
	heartbeat, err := duration("heartbeat_interval", req.GetHeartbeatInterval())
	if err != nil {
		return err
	}
	ctx := stream.Context()
	w := s.broker.Watch(tenantID(req.GetTenant()), req.GetScopes())
	defer w.Close()
	for {
		a, err := next(ctx, w, heartbeat)
		if err != nil {
			return toStatus(ctx, s.log, req.GetTenant(), err)
		}
		resp := &pb.WatchTokenResponse{}
		if a != nil {
			resp.Token = tokenToProto(a, time.Now())
		}
		if err := stream.Send(resp); err != nil {
			return err
		}
	}
}

// next returns the next answer of a watch; nil when there was none for this time
// (0: however long).
func next(ctx context.Context, w *broker.Watch, within time.Duration) (*broker.Answer, error) {
	if within == 0 {
		return w.Next(ctx)
	}
	waiting, cancel := context.WithTimeout(ctx, within)
	defer cancel()
	a, err := w.Next(waiting)
	if errors.Is(err, context.DeadlineExceeded) && ctx.Err() == nil {
		return nil, nil
	}
	return a, err
}

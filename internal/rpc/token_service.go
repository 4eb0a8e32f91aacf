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
	for sent := time.Now(); ; {
		a, news, err := next(ctx, w, heartbeat, sent)
		if err != nil {
			return toStatus(ctx, s.log, req.GetTenant(), err)
		}
		resp := &pb.WatchTokenResponse{}
		switch {
		case news:
			resp.Token = tokenToProto(*a, time.Now())
		case a != nil: // The tenant may be another, and this caller's no more.
			if err := callOf(ctx).standing(); err != nil {
				return err
			}
			continue
		}
		if err := stream.Send(resp); err != nil {
			return err
		}
		sent = time.Now()
	}
}

// next returns what comes next of a watch; nil when a heartbeat is due (0: never)
// since something was sent.
func next(ctx context.Context, w *broker.Watch, heartbeat time.Duration, sent time.Time) (a *broker.Answer, news bool, err error) {
	if heartbeat == 0 {
		return w.Next(ctx)
	}
	waiting, cancel := context.WithDeadline(ctx, sent.Add(heartbeat))
	defer cancel()
	a, news, err = w.Next(waiting)
	if errors.Is(err, context.DeadlineExceeded) && ctx.Err() == nil {
		return nil, false, nil
	}
	return a, news, err
}

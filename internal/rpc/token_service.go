package rpc

import (
	"context"
	"log/slog"
	"time"

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

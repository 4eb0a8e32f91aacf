package rpc

import (
	"context"
	"errors"
	"log/slog"
	"slices"
	"time"

	"go.einride.tech/aip/fieldmask"
	"google.golang.org/protobuf/proto"

	pb "smokeball.internal/tokenbroker/gen/tokenbroker/v1"
	"smokeball.internal/tokenbroker/internal/access"
	"smokeball.internal/tokenbroker/internal/broker"
	"smokeball.internal/tokenbroker/internal/secret"
	"smokeball.internal/tokenbroker/internal/tenant"
)

const (
	defaultPageSize    = 50
	maxPageSize        = 1000
	maxPageBytes       = 1 << 20 // Clients take 4 MiB, if nobody has told them otherwise.
	defaultFallbackTTL = 24 * time.Hour
)

// tenantService serves administrators.
type tenantService struct {
	pb.UnimplementedTenantServiceServer
	registry *broker.Registry
	guard    *access.Guard
	log      *slog.Logger
}

func (s *tenantService) CreateTenant(ctx context.Context, req *pb.CreateTenantRequest) (*pb.CreateTenantResponse, error) {
	t := tenant.Tenant{ID: req.GetTenantId()}
	applyProto(&t, req.GetTenant())
	created, err := s.registry.Create(ctx, t, req.GetValidateOnly())
	if err != nil {
		return nil, toStatus(ctx, s.log, collection+t.ID, err)
	}
	return &pb.CreateTenantResponse{Tenant: tenantToProto(created)}, nil
}

func (s *tenantService) GetTenant(ctx context.Context, req *pb.GetTenantRequest) (*pb.GetTenantResponse, error) {
	t, err := s.registry.Tenant(ctx, tenantID(req.GetName()))
	if err != nil {
		return nil, toStatus(ctx, s.log, req.GetName(), err)
	}
	held, failure, err := s.registry.Status(ctx, t)
	if err != nil {
		return nil, toStatus(ctx, s.log, req.GetName(), err)
	}
	p := tenantToProto(t)
	p.Status = statusToProto(held, failure)
	return &pb.GetTenantResponse{Tenant: p}, nil
}

func (s *tenantService) ListTenants(ctx context.Context, req *pb.ListTenantsRequest) (*pb.ListTenantsResponse, error) {
	size := min(int(req.GetPageSize()), maxPageSize)
	if size == 0 {
		size = defaultPageSize
	}
	after, err := readPageToken(req.GetPageToken())
	if err != nil {
		return nil, err
	}
	resp := &pb.ListTenantsResponse{}
	bytes := 0
	for t, err := range s.registry.List(ctx, "", after, size+1) {
		if err != nil {
			return nil, toStatus(ctx, s.log, "tenants", err)
		}
		if !s.guard.Sees(callOf(ctx).caller, t.ID, t.Labels) {
			continue
		}
		// The next page begins behind a tenant that is shown: its token would tell
		// of one that is not.
		if len(resp.Tenants) == size || bytes >= maxPageBytes {
			resp.NextPageToken = pageToken(tenantID(resp.Tenants[len(resp.Tenants)-1].GetName()))
			break
		}
		p := tenantToProto(t)
		resp.Tenants = append(resp.Tenants, p)
		bytes += proto.Size(p)
	}
	return resp, nil
}

func (s *tenantService) UpdateTenant(ctx context.Context, req *pb.UpdateTenantRequest) (*pb.UpdateTenantResponse, error) {
	name := req.GetTenant().GetName()
	if name == "" {
		return nil, badRequest("tenant.name", "must be given")
	}
	if err := checkMask(req); err != nil {
		return nil, err
	}
	updated, err := s.registry.Update(ctx, tenantID(name), req.GetTenant().GetEtag(), req.GetValidateOnly(), func(t *tenant.Tenant) error {
		if err := s.mayUpdate(ctx, t); err != nil {
			return err
		}
		// The mask is applied to a copy of the registered tenant in the API's form.
		p := proto.CloneOf(tenantToProto(t))
		fieldmask.Update(req.GetUpdateMask(), p, proto.CloneOf(req.GetTenant()))
		applyProto(t, p)
		if names(req, "api_key") && p.GetApiKey() == "" {
			t.APIKey = secret.Text{}
		}
		for field, given := range map[string]bool{
			"client_secret": p.GetClientSecret() != "",
			"environment":   p.GetEnvironment() != pb.Environment_ENVIRONMENT_UNSPECIFIED,
			"state":         p.GetState() != pb.Tenant_STATE_UNSPECIFIED,
		} {
			if names(req, field) && !given {
				return &tenant.FieldError{Field: field, Description: "must be given"}
			}
		}
		return s.mayUpdate(ctx, t)
	})
	if err != nil {
		return nil, toStatus(ctx, s.log, name, err)
	}
	return &pb.UpdateTenantResponse{Tenant: tenantToProto(updated)}, nil
}

// mayUpdate says whether the caller may change t as it is: the labels that a rule
// goes by may have changed since the call began, or be what the call changes.
func (s *tenantService) mayUpdate(ctx context.Context, t *tenant.Tenant) error {
	_, err := s.guard.DecideFor(callOf(ctx).caller, access.Query{Method: "UpdateTenant", Tenant: t.ID}, t.Labels)
	return err
}

// names says whether the update mask names this field itself.
func names(req *pb.UpdateTenantRequest, field string) bool {
	return slices.Contains(req.GetUpdateMask().GetPaths(), field)
}

// checkMask refuses a mask with a field that there is not, or that is part of
// another.
func checkMask(req *pb.UpdateTenantRequest) error {
	if fieldmask.IsFullReplacement(req.GetUpdateMask()) {
		return nil
	}
	fields := req.GetTenant().ProtoReflect().Descriptor().Fields()
	for _, path := range req.GetUpdateMask().GetPaths() {
		if fields.ByTextName(path) == nil {
			return badRequest("update_mask", "names "+clip(path)+", which is not a field of a tenant")
		}
	}
	return nil
}

func (s *tenantService) DeleteTenant(ctx context.Context, req *pb.DeleteTenantRequest) (*pb.DeleteTenantResponse, error) {
	err := s.registry.Delete(ctx, tenantID(req.GetName()), req.GetEtag(), req.GetValidateOnly())
	if errors.Is(err, tenant.ErrNotFound) && req.GetAllowMissing() {
		err = nil
	}
	if err != nil {
		return nil, toStatus(ctx, s.log, req.GetName(), err)
	}
	return &pb.DeleteTenantResponse{}, nil
}

func (s *tenantService) RotateClientSecret(ctx context.Context, req *pb.RotateClientSecretRequest) (*pb.RotateClientSecretResponse, error) {
	fallback := defaultFallbackTTL
	if req.GetFallbackTtl() != nil {
		var err error
		if fallback, err = duration("fallback_ttl", req.GetFallbackTtl()); err != nil {
			return nil, err
		}
	}
	rotated, err := s.registry.Rotate(ctx, tenantID(req.GetName()), broker.Rotation{
		Secret:           secret.New(req.GetClientSecret()),
		Etag:             req.GetEtag(),
		SkipVerification: req.GetSkipVerification(),
		FallbackTTL:      fallback,
		ValidateOnly:     req.GetValidateOnly(),
	})
	if err != nil {
		return nil, toStatus(ctx, s.log, req.GetName(), err)
	}
	return &pb.RotateClientSecretResponse{Tenant: tenantToProto(rotated)}, nil
}

func (s *tenantService) CheckTenant(ctx context.Context, req *pb.CheckTenantRequest) (*pb.CheckTenantResponse, error) {
	finding, err := s.registry.Check(ctx, tenantID(req.GetName()), req.GetSkipOtherRegions())
	if err != nil {
		return nil, toStatus(ctx, s.log, req.GetName(), err)
	}
	return findingToProto(finding), nil
}

package rpc

import (
	"strings"
	"time"

	"google.golang.org/protobuf/types/known/durationpb"
	"google.golang.org/protobuf/types/known/timestamppb"

	pb "smokeball.internal/tokenbroker/gen/tokenbroker/v1"
	"smokeball.internal/tokenbroker/internal/broker"
	"smokeball.internal/tokenbroker/internal/secret"
	"smokeball.internal/tokenbroker/internal/tenant"
	"smokeball.internal/tokenbroker/internal/token"
)

const collection = "tenants/"

// tenantID returns the last part of a resource name that has been validated.
func tenantID(name string) string { return strings.TrimPrefix(name, collection) }

var (
	regions = map[pb.Region]tenant.Region{
		pb.Region_REGION_US: tenant.US, pb.Region_REGION_AU: tenant.AU, pb.Region_REGION_UK: tenant.UK,
	}
	environments = map[pb.Environment]tenant.Environment{
		pb.Environment_ENVIRONMENT_PRODUCTION: tenant.Production, pb.Environment_ENVIRONMENT_STAGING: tenant.Staging,
	}
)

// protoOf finds the enum value that stands for v; the zero value if none does.
func protoOf[P ~int32, V comparable](values map[P]V, v V) P {
	for p, value := range values {
		if value == v {
			return p
		}
	}
	return 0
}

// duration returns the value of a field that has been validated, which leaves
// one thing: seconds and nanoseconds that do not go together.
func duration(field string, d *durationpb.Duration) (time.Duration, error) {
	if d != nil && d.CheckValid() != nil {
		return 0, badRequest(field, "must be a duration: seconds and nanoseconds of one sign, and less than a second of the latter")
	}
	return d.AsDuration(), nil
}

// timestamp returns nil for the zero time.
func timestamp(t time.Time) *timestamppb.Timestamp {
	if t.IsZero() {
		return nil
	}
	return timestamppb.New(t)
}

// tokenToProto is the one place where an access token and an API key leave. It is one
// piece of memory, since it is made for each call.
func tokenToProto(a broker.Answer, now time.Time) *pb.Token {
	t := &struct {
		token          pb.Token
		issued, expire timestamppb.Timestamp
		remaining      durationpb.Duration
	}{}
	t.token.AccessToken = a.Token.AccessToken.Reveal()
	t.token.TokenType = "Bearer"
	t.token.TokenId = a.Token.ID
	t.token.Scopes = a.Token.Scopes
	t.token.IssueTime = at(&t.issued, a.Token.Issued)
	t.token.ExpireTime = at(&t.expire, a.Token.Expires)
	left := max(0, a.Token.Expires.Sub(now))
	t.remaining.Seconds, t.remaining.Nanos = int64(left/time.Second), int32(left%time.Second)
	t.token.Remaining = &t.remaining
	t.token.ApiBaseUrl = a.APIBaseURL
	t.token.ApiKey = a.APIKey.Reveal()
	return &t.token
}

// at sets a timestamp, as timestamppb.New does.
func at(p *timestamppb.Timestamp, t time.Time) *timestamppb.Timestamp {
	p.Seconds, p.Nanos = t.Unix(), int32(t.Nanosecond())
	return p
}

// tenantToProto leaves out what is input only.
func tenantToProto(t *tenant.Tenant) *pb.Tenant {
	var state pb.Tenant_State
	switch {
	case t.Region == "": // A record that cannot be opened: nobody knows.
	case t.Disabled:
		state = pb.Tenant_STATE_DISABLED
	default:
		state = pb.Tenant_STATE_ACTIVE
	}
	p := &pb.Tenant{
		Name:        collection + t.ID,
		DisplayName: t.DisplayName,
		Region:      protoOf(regions, t.Region),
		Environment: protoOf(environments, t.Environment),
		ClientId:    t.ClientID,
		AccountId:   t.AccountID,
		Scopes:      t.Scopes,
		State:       state,
		KeepWarm:    t.KeepWarm,
		Labels:      t.Labels,
		CreateTime:  timestamp(t.Created),
		UpdateTime:  timestamp(t.Updated),
		Etag:        t.Etag,

		ClientSecretUpdateTime: timestamp(t.SecretUpdated),
	}
	if !t.Fallback.Value.IsZero() && time.Now().Before(t.FallbackUntil) {
		p.FallbackSecretExpireTime = timestamp(t.FallbackUntil)
	}
	return p
}

// applyProto sets what administrators may set. An input-only field that is empty
// leaves what is registered, since nobody can have read it to give it back; so
// does an unspecified state or environment, since nobody should enable a tenant
// by leaving something out.
func applyProto(t *tenant.Tenant, p *pb.Tenant) {
	t.DisplayName = p.GetDisplayName()
	t.Region = regions[p.GetRegion()]
	if environment, ok := environments[p.GetEnvironment()]; ok {
		t.Environment = environment
	} else if t.Environment == "" {
		t.Environment = tenant.Production
	}
	t.ClientID = p.GetClientId()
	if s := secret.New(p.GetClientSecret()); !s.IsZero() && !s.Equal(t.Secret.Value) {
		t.Secret = tenant.Secret{Value: s}
		t.Fallback, t.FallbackUntil = tenant.Secret{}, time.Time{}
	}
	if key := p.GetApiKey(); key != "" {
		t.APIKey = secret.New(key)
	}
	t.AccountID = p.GetAccountId()
	t.Scopes = p.GetScopes()
	if p.GetState() != pb.Tenant_STATE_UNSPECIFIED {
		t.Disabled = p.GetState() == pb.Tenant_STATE_DISABLED
	}
	t.KeepWarm = p.GetKeepWarm()
	t.Labels = p.GetLabels()
}

// statusToProto tells how the tenant's token fares; nil if there is nothing to
// tell.
func statusToProto(t *token.Token, f *token.Failure) *pb.TenantStatus {
	if t == nil && f == nil {
		return nil
	}
	s := &pb.TenantStatus{}
	if t != nil {
		s.TokenId = t.ID
		s.LastRefreshTime = timestamp(t.Issued)
		s.TokenExpireTime = timestamp(t.Expires)
		s.NextRefreshTime = timestamp(t.RefreshAt)
	}
	if f != nil {
		s.LastFailure = &pb.TenantFailure{
			Reason: failureOf(f.Class).reason, Message: f.Message, RetryTime: timestamp(f.RetryAt),
		}
	}
	return s
}

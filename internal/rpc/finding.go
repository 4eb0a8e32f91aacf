package rpc

import (
	"fmt"
	"strings"
	"time"

	pb "smokeball.internal/tokenbroker/gen/tokenbroker/v1"
	"smokeball.internal/tokenbroker/internal/broker"
	"smokeball.internal/tokenbroker/internal/token"
)

// findings says what each class of failure is to an administrator.
var findings = map[token.Class]struct {
	finding pb.CheckTenantResponse_Finding
	advice  string
}{
	token.CredentialsRejected: {pb.CheckTenantResponse_FINDING_CREDENTIALS_REJECTED,
		"Compare client_id, region and environment with the app in Smokeball's Developer Console. If they are right, the client secret is wrong or was replaced: " +
			"ask Smokeball's partner team for the current one and register it with RotateClientSecret."},
	token.GrantRejected: {pb.CheckTenantResponse_FINDING_GRANT_NOT_ALLOWED,
		"The app must be a private app with the client-credentials grant: ask Smokeball's partner team to enable it for this client_id."},
	token.ScopeRejected: {pb.CheckTenantResponse_FINDING_SCOPE_REJECTED,
		"Compare the tenant's scopes with those that are approved for the app, and correct them with UpdateTenant; without scopes, all that are approved are asked for."},
	token.Throttled: {pb.CheckTenantResponse_FINDING_ISSUER_THROTTLED,
		"The credentials were not looked at. Wait a few minutes and check again."},
	token.Unavailable: {pb.CheckTenantResponse_FINDING_ISSUER_UNREACHABLE,
		"The credentials were not looked at. Look at Smokeball's status page, and whether this server may connect to the token endpoint (DNS, proxy, firewall)."},
	token.Blocked: {pb.CheckTenantResponse_FINDING_ISSUER_ANSWER_UNUSABLE,
		"A firewall in front of the issuer refuses this server. Ask Smokeball's partner team whether its address has to be allowed."},
	token.Malformed: {pb.CheckTenantResponse_FINDING_ISSUER_ANSWER_UNUSABLE,
		"The credentials may be right. If the server has an issuer override for this region, look whether it names a token endpoint; else look at Smokeball's status page."},
}

// findingToProto puts what a check found in words.
func findingToProto(f *broker.Finding) *pb.CheckTenantResponse {
	r := &pb.CheckTenantResponse{TokenEndpoint: f.Endpoint}
	if f.Failure == nil {
		r.Finding = pb.CheckTenantResponse_FINDING_OK
		r.Message = fmt.Sprintf("The issuer accepts the credentials; its tokens live %v.", f.Token.Lifetime().Round(time.Second))
		r.TokenExpireTime = timestamp(f.Token.Expires)
		r.GrantedScopes = f.Token.Scopes
		return r
	}
	r.Finding, r.Advice = findings[f.Failure.Class].finding, findings[f.Failure.Class].advice
	r.Message = f.Failure.Message
	switch {
	case f.AcceptedRegion != "":
		r.Finding = pb.CheckTenantResponse_FINDING_WRONG_REGION
		r.AcceptedRegion = protoOf(regions, f.AcceptedRegion)
		r.Message += "; the same credentials are accepted in region " + strings.ToUpper(string(f.AcceptedRegion))
		r.Advice = fmt.Sprintf("Set the tenant's region to %s with UpdateTenant.", r.GetAcceptedRegion())
	case !f.FallbackUntil.IsZero():
		r.Message += "; the client secret before this one is accepted and stands in until " + f.FallbackUntil.UTC().Format(time.RFC3339)
	}
	return r
}

package rpc

import (
	"context"
	"strings"

	"buf.build/go/protovalidate"
	validation "github.com/grpc-ecosystem/go-grpc-middleware/v2/interceptors/protovalidate"
	"google.golang.org/grpc"
	"google.golang.org/protobuf/types/known/durationpb"

	pb "smokeball.internal/tokenbroker/gen/tokenbroker/v1"
	"smokeball.internal/tokenbroker/internal/access"
)

// rules are those of the API, as its definition in proto has them.
type rules struct{ interceptor grpc.UnaryServerInterceptor }

func newRules(v protovalidate.Validator) rules { return rules{validation.UnaryServerInterceptor(v)} }

// check returns the first violation, by a status with google.rpc details. What it
// refuses never had a valid name.
func (r rules) check(ctx context.Context, req any) error {
	if asked, ok := req.(*pb.GetTokenRequest); ok && keepsRules(asked) {
		return nil
	}
	_, err := r.interceptor(ctx, req, nil, func(context.Context, any) (any, error) { return nil, nil })
	if err != nil {
		return violation(err)
	}
	return nil
}

// keepsRules says that a request keeps the rules of its definition, for the one
// that most requests are: it takes a fiftieth of the time and nothing from the heap.
// Where it says no, protovalidate has the word, and finds those for what is wrong.
func keepsRules(r *pb.GetTokenRequest) bool {
	id, ok := strings.CutPrefix(r.GetTenant(), collection)
	if !ok || !access.ValidID(id) || len(r.GetScopes()) > 50 || !keepsRule(r.GetMinRemaining()) {
		return false
	}
	for _, scope := range r.GetScopes() {
		if !access.ValidScope(scope) {
			return false
		}
	}
	return true
}

// keepsRule says that min_remaining is between 0 and 24 hours.
func keepsRule(d *durationpb.Duration) bool {
	return d.GetSeconds() >= 0 && d.GetNanos() >= 0 && d.GetNanos() < 1e9 && (d.GetSeconds() < 86400 || d.GetSeconds() == 86400 && d.GetNanos() == 0)
}
